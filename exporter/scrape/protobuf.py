"""Protobuf: families become messages of Prometheus' client model, which alone can carry native histograms.

Each message is preceded by its length (`encoding=delimited`). Field numbers are those of
io/prometheus/client/metrics.proto in prometheus/client_model.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar

from exporter.buckets import SCHEMA, ZERO, ZERO_THRESHOLD
from exporter.client import escape_label_name, escape_metric_name
from exporter.merge.families import Family, Group

_COUNTER, _GAUGE, _SUMMARY, _UNTYPED, _HISTOGRAM, _GAUGE_HISTOGRAM = range(6)
_TYPES = {
    "counter": _COUNTER,
    "gauge": _GAUGE,
    "summary": _SUMMARY,
    "histogram": _HISTOGRAM,
    "gaugehistogram": _GAUGE_HISTOGRAM,
    "info": _GAUGE,
    "stateset": _GAUGE,
}
_double = struct.Struct("<d").pack
_SMALL = [bytes([number]) for number in range(128)]


def varint(number: int) -> bytes:
    """A whole number from 0 on, seven bits a byte, the lowest first."""
    if number < 128:
        return _SMALL[number]
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


def zigzag(number: int) -> bytes:
    """A whole number of either sign."""
    return varint(number << 1 if number >= 0 else (-number << 1) - 1)


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def family_message(
    family: Family,
    values: Sequence[float],
    exemplars: Mapping[int, Exemplar],
    natives: Mapping[tuple[tuple[str, str], ...], Mapping[int, float]],
    created: Sequence[float],
    escaping: str,
) -> bytes:
    """The delimited message of a family, with a value for each line, and a time of creation for each group.

    `natives` are the counts of native buckets by labels and index.
    """
    name = family.name + ("_total" if family.type == "counter" else "_info" if family.type == "info" else "")
    metrics = []
    line = 0
    for group, creation in zip(family.groups, created, strict=True):
        end = line + len(group.lines)
        labels = _labels(group, escaping)
        native = natives.get(group.labels)
        child = _Child(group.lines, values[line:end], line, exemplars, creation, native)
        content = _CONTENTS[family.type](child)
        metrics.append(field(4, labels + content))
        line = end
    return _family(name, family.documentation, family.type, family.unit, metrics, escaping)


def metric_messages(metric: Metric, escaping: str) -> Iterator[bytes]:
    """The delimited messages of prometheus_client's form of a family; a gauge has one for each name."""
    if metric.type in ("counter", "histogram", "summary", "gaugehistogram"):
        groups: dict[
            tuple[tuple[str, str], ...], list[tuple[str, dict[str, str], float, Exemplar | None]]
        ] = {}
        for sample in metric.samples:
            labels = {k: v for k, v in sample.labels.items() if k not in ("le", "quantile")}
            groups.setdefault(tuple(sorted(labels.items())), []).append(
                (sample.name, sample.labels, sample.value, sample.exemplar)
            )
        members = [
            Group(key, [(name, labels) for name, labels, _, _ in lines]) for key, lines in groups.items()
        ]
        rows = [row for lines in groups.values() for row in lines]
        family = Family(metric.name, metric.documentation, metric.type, members, metric.unit)
        exemplars = {at: row[3] for at, row in enumerate(rows) if row[3] is not None}
        values = [float(row[2]) for row in rows]
        yield family_message(family, values, exemplars, {}, [0.0] * len(members), escaping)
        return
    names: dict[str, list[bytes]] = {}
    for sample in metric.samples:
        group = Group(tuple(sorted(sample.labels.items())), ())
        kind = 2 if metric.type in _TYPES else 5
        content = field(kind, b"\x09" + _double(float(sample.value)))
        names.setdefault(sample.name, []).append(field(4, _labels(group, escaping) + content))
    for name, metrics in names.items():
        yield _family(name, metric.documentation, metric.type, metric.unit, metrics, escaping)


def _family(
    name: str, documentation: str, kind: str, unit: str, metrics: Iterable[bytes], escaping: str
) -> bytes:
    message = b"".join(
        [
            field(1, _escape(escape_metric_name, name, escaping)),
            field(2, documentation.encode()),
            b"\x18" + varint(_TYPES.get(kind, _UNTYPED)),
            *metrics,
            field(5, unit.encode()) if unit else b"",
        ]
    )
    return varint(len(message)) + message


def _labels(group: Group, escaping: str) -> bytes:
    if escaping not in group.label_messages:
        group.label_messages[escaping] = b"".join(
            field(1, field(1, _escape(escape_label_name, name, escaping)) + field(2, value.encode()))
            for name, value in group.labels
        )
    return group.label_messages[escaping]


def _escape(escape: Callable[[str, str], str], name: str, escaping: str) -> bytes:
    return (name if escaping == "allow-utf-8" else escape(name, escaping)).encode()


class _Child(NamedTuple):
    """One group of a family: its lines with their values, and what else a message says of it."""

    lines: Sequence[tuple[str, dict[str, str]]]
    values: Sequence[float]
    start: int
    """The number of the first line in the family."""
    exemplars: Mapping[int, Exemplar]
    """By the number of the line in the family."""
    created: float
    native: Mapping[int, float] | None


def _counter(child: _Child) -> bytes:
    created, content = child.created, b""
    for at, (name, _) in enumerate(child.lines):
        value = child.values[at]
        if name.endswith("_total"):
            content += b"\x09" + _double(value)
            if child.start + at in child.exemplars:
                content += field(2, _exemplar(child.exemplars[child.start + at]))
        elif name.endswith("_created"):
            created = created or value
    return field(3, content + _time(3, created))


def _gauge(child: _Child) -> bytes:
    return field(2, b"\x09" + _double(child.values[0]))


def _summary(child: _Child) -> bytes:
    created, content = child.created, b""
    for (name, labels), value in zip(child.lines, child.values, strict=True):
        if "quantile" in labels:
            content += field(3, b"\x09" + _double(float(labels["quantile"])) + b"\x11" + _double(value))
        elif name.endswith("_count"):
            content += b"\x08" + varint(int(value))
        elif name.endswith("_sum"):
            content += b"\x11" + _double(value)
        elif name.endswith("_created"):
            created = created or value
    return field(4, content + _time(4, created))


def _histogram(child: _Child) -> bytes:
    """A histogram whose count is that of its native buckets, if there are some: they were read last."""
    lines, values, line, exemplars, created, native = child
    count = int(sum(native.values())) if native else None
    parts = []
    for at, (name, labels) in enumerate(lines):
        value = values[at]
        if "le" in labels:
            bound = labels["le"]
            cumulative = varint(
                int(value) if count is None else count if bound == "+Inf" else min(int(value), count)
            )
            bucket = b"\x08" + cumulative + b"\x11" + _double(float(bound))
            if line + at in exemplars:
                bucket += field(3, _exemplar(exemplars[line + at]))
            parts.append(b"\x1a" + varint(len(bucket)) + bucket)
        elif name.endswith("_count"):
            parts.append(b"\x08" + varint(int(value) if count is None else count))
        elif name.endswith("_sum"):
            parts.append(b"\x11" + _double(value))
        elif name.endswith("_created"):
            created = created or value
    if native is not None:
        parts.append(_native(native))
    parts.append(_time(15, created))
    return field(7, b"".join(parts))


def _native(counts: Mapping[int, float]) -> bytes:
    """Schema, zero bucket, spans and deltas; the zero threshold says that the histogram is a native one."""
    indexes = sorted(index for index in counts if index > ZERO)
    parts = [
        b"\x28" + zigzag(SCHEMA),
        b"\x31" + _double(ZERO_THRESHOLD),
        b"\x38" + varint(int(counts.get(ZERO, 0.0))),
    ]
    spans: list[tuple[int, int]] = []
    next_index = 0  # the first offset is an index, the others are gaps
    for index in indexes:
        if spans and index == next_index:
            spans[-1] = spans[-1][0], spans[-1][1] + 1
        else:
            spans.append((index - next_index, 1))
        next_index = index + 1
    parts += [field(12, b"\x08" + zigzag(offset) + b"\x10" + varint(length)) for offset, length in spans]
    last = 0
    for index in indexes:
        count = int(counts[index])
        parts.append(b"\x68" + zigzag(count - last))
        last = count
    return b"".join(parts)


def _exemplar(exemplar: Exemplar) -> bytes:
    content = b"".join(
        field(1, field(1, name.encode()) + field(2, value.encode()))
        for name, value in exemplar.labels.items()
    )
    content += b"\x11" + _double(exemplar.value)
    return content + _time(3, float(exemplar.timestamp) if exemplar.timestamp else 0.0)


def _time(number: int, seconds: float) -> bytes:
    """A google.protobuf.Timestamp; nothing if it is unknown."""
    if not seconds:
        return b""
    whole = int(seconds)
    nanoseconds = int((seconds - whole) * 1e9)
    return field(number, b"\x08" + varint(whole) + (b"\x10" + varint(nanoseconds) if nanoseconds else b""))


_CONTENTS = {
    "counter": _counter,
    "gauge": _gauge,
    "summary": _summary,
    "histogram": _histogram,
    "gaugehistogram": _histogram,
}
