"""Protobuf: families become messages of Prometheus' client model, which alone can carry native histograms.

Each message is preceded by its length (`encoding=delimited`). Field numbers are those of
io/prometheus/client/metrics.proto in prometheus/client_model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar

from exporter.client import escape_label_name, escape_metric_name
from exporter.merge.families import Family, Group
from exporter.scrape.histogram import histogram
from exporter.scrape.wire import double, exemplar_message, field, timestamp, varint

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
        child = _Child(group, values[line:end], line, exemplars, creation, native)
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
        content = field(kind, b"\x09" + double(float(sample.value)))
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
    """One group of a family with the values of its lines, and what else a message says of it."""

    group: Group
    values: Sequence[float]
    start: int
    """The number of the first line in the family."""
    exemplars: Mapping[int, Exemplar]
    """By the number of the line in the family."""
    created: float
    native: Mapping[int, float] | None


def _counter(child: _Child) -> bytes:
    created, content = child.created, b""
    for at, (name, _) in enumerate(child.group.lines):
        value = child.values[at]
        if name.endswith("_total"):
            content += b"\x09" + double(value)
            if child.start + at in child.exemplars:
                content += field(2, exemplar_message(child.exemplars[child.start + at]))
        elif name.endswith("_created"):
            created = created or value
    return field(3, content + timestamp(3, created))


def _gauge(child: _Child) -> bytes:
    return field(2, b"\x09" + double(child.values[0]))


def _summary(child: _Child) -> bytes:
    created, content = child.created, b""
    for (name, labels), value in zip(child.group.lines, child.values, strict=True):
        if "quantile" in labels:
            content += field(3, b"\x09" + double(float(labels["quantile"])) + b"\x11" + double(value))
        elif name.endswith("_count"):
            content += b"\x08" + varint(int(value))
        elif name.endswith("_sum"):
            content += b"\x11" + double(value)
        elif name.endswith("_created"):
            created = created or value
    return field(4, content + timestamp(4, created))


def _histogram(child: _Child) -> bytes:
    return histogram(child.group, child.values, child.start, child.exemplars, child.created, child.native)


_CONTENTS = {
    "counter": _counter,
    "gauge": _gauge,
    "summary": _summary,
    "histogram": _histogram,
    "gaugehistogram": _histogram,
}
