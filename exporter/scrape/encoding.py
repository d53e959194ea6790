"""Encoding: a family and its values become text, in the format that a scraper asked for.

prometheus_client's own encoder writes each group of samples once, with a mark in the place of every value;
after that a scrape fills in the values. So the text is prometheus_client's to the letter, in every format and
escaping.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from math import inf
from operator import itemgetter
from typing import Any, NamedTuple
from uuid import uuid4

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.samples import Exemplar, Sample

from exporter.merge.families import Family, Group, GroupText, Template, number

# Stands for a bucket's bound while one line is written for all of them; no label value contains it.
_BOUND = uuid4().hex
_VALUE = 0.5
_PROTOBUF = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"


@dataclass(frozen=True, slots=True)
class Format:
    """The format that a scraper asks for."""

    content_type: str
    openmetrics: bool
    escaping: str
    encode: Callable[[Any], bytes]
    protobuf: bool = False

    @staticmethod
    def negotiate(accept: str | None) -> Format:
        """The format for an Accept header; between texts as prometheus_client negotiates it."""
        offers = _offers(accept or "")
        escaping = _protobuf_escaping(offers)
        if escaping is not None:
            content_type = f"{_PROTOBUF}; escaping={escaping}"
            return Format(content_type, False, escaping, choose_encoder("")[0], protobuf=True)
        try:
            encode, content_type = choose_encoder(_texts(offers))
        except TypeError:  # the version in the header is no number
            encode, content_type = choose_encoder("")
        # Since prometheus_client 0.22 the encoder is a partial with the escaping of names.
        is_openmetrics = getattr(encode, "func", encode) is openmetrics.generate_latest
        escaping = getattr(encode, "keywords", {}).get("escaping", "underscores")
        return Format(content_type, is_openmetrics, escaping, encode)

    def lines(self, metric: Metric) -> list[str]:
        """The text of a metric line by line, without the end; raises if a part of it cannot be written.

        A value of None cannot: Prometheus would refuse the line of OpenMetrics' encoder, and all others.
        """
        for sample in metric.samples:
            if sample.value is None and not getattr(sample, "native_histogram", None):
                raise ValueError(f"{sample.name} has no value")
        lines = self.encode(_MetricList([metric])).decode().split("\n")[:-1]
        return lines[:-1] if self.openmetrics else lines

    def text(self, metric: Metric, selection: Collection[str] = ()) -> str:
        """The text of a metric, or of its samples with these names."""
        if selection:
            metric = metric._restricted_metric(selection)  # type: ignore[no-untyped-call]
        return "" if metric is None else "".join(line + "\n" for line in self.lines(metric))


class _Offer(NamedTuple):
    """One format in an Accept header."""

    media: str
    parameters: dict[str, str]
    quality: float
    text: str


def _offers(accept: str) -> list[_Offer]:
    """The formats that a scraper can read, the preferred one first.

    RFC 9110, section 12.5.1; of several equal ones the first is preferred.
    """
    offers: list[_Offer] = []
    for item in accept.split(","):
        media, *rest = (part.strip() for part in item.split(";"))
        parameters = {
            name.strip(): value.strip().strip('"') for name, _, value in (p.partition("=") for p in rest)
        }
        try:
            quality = float(parameters.get("q", "1"))
        except ValueError:
            quality = 0.0
        if quality > 0.0:
            offers.append(_Offer(media.lower(), parameters, quality, item))
    return sorted(offers, key=lambda offer: -offer.quality)


def _protobuf_escaping(offers: Sequence[_Offer]) -> str | None:
    """The escaping of names that a scraper wants with protobuf; None if it prefers another format."""
    if not offers:
        return None
    media, parameters, *_ = offers[0]
    if (
        media != "application/vnd.google.protobuf"
        or parameters.get("proto") != "io.prometheus.client.MetricFamily"
        or parameters.get("encoding") != "delimited"
    ):
        return None
    escaping = parameters.get("escaping", "underscores")
    return escaping if escaping in ("allow-utf-8", "underscores", "dots", "values") else "underscores"


def _texts(offers: Iterable[_Offer]) -> str:
    """The offers as prometheus_client, which knows no preference, must see them: none after plain text."""
    texts = []
    for offer in offers:
        texts.append(offer.text)
        if offer.media in ("text/plain", "text/*", "*/*"):
            break
    return ",".join(texts)


class _MetricList(NamedTuple):
    """A registry of metrics that were collected before."""

    metrics: list[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.metrics


def writable(metric: Metric, form: Format) -> Metric:
    """The metric without the samples that cannot be written, such as one with None for a label."""

    def part(samples: list[Sample]) -> Metric:
        result = copy(metric)
        result.samples = samples
        return result

    def select(samples: list[Sample]) -> list[Sample]:
        try:
            form.lines(part(samples))
        except Exception:
            half = len(samples) // 2
            return select(samples[:half]) + select(samples[half:]) if half else []
        return samples

    return part(select(list(metric.samples)))


def family_text(
    family: Family, values: Sequence[float], exemplars: Mapping[int, Exemplar], form: Format
) -> str:
    """The text of a family; `exemplars` by line, which only OpenMetrics has."""
    # Between these bounds Python writes a float as Go does; the rest is rare.
    cells: list[Any] = [value if -inf < value < 1e6 else number(value) for value in values]
    if form.openmetrics and exemplars:
        metric = Metric("m", "m", family.type)
        for line, exemplar in exemplars.items():
            suffix = "_total" if family.type == "counter" else "_bucket"
            metric.add_sample("m" + suffix, {}, values[line], None, exemplar)
        texts = (text.partition(" ")[2] for text in form.lines(metric) if not text.startswith("#"))
        for line, text in zip(exemplars, texts, strict=True):
            cells[line] = text
    template = _template(family, form)
    return template.text % template.order(cells)


def _template(family: Family, form: Format) -> Template:
    """The template of a family. In the plain text format the times of creation are a family of their own."""
    key = form.openmetrics, form.escaping
    if key not in family.templates:
        heads = ("", "")
        lines: list[str] = []
        creation_lines: list[str] = []
        order: tuple[list[int], list[int]] = [], []
        line = 0
        for group in family.groups or (Group((), ()),):
            if key not in group.texts:
                group.texts[key] = _group_text(family, group, form)
            text = group.texts[key]
            heads = text.heads
            lines.append(text.lines)
            creation_lines.append(text.creation_lines)
            for name, _ in group.lines:
                order[_is_creation(family, name, form)].append(line)
                line += 1
        family.templates[key] = Template(
            "".join([heads[0], *lines, heads[1], *creation_lines]),
            itemgetter(*order[0], *order[1]) if order[1] else tuple,
        )
    return family.templates[key]


def _group_text(family: Family, group: Group, form: Format) -> GroupText:
    """The text of one group, as prometheus_client's encoder writes it."""
    bounds = [labels["le"] for name, labels in group.lines if name == family.name + "_bucket"]
    metric = Metric(family.name, family.documentation, family.type, family.unit)
    for at, (name, labels) in enumerate(group.lines[max(len(bounds) - 1, 0) :]):
        metric.add_sample(name, {**labels, "le": _BOUND} if bounds and at == 0 else labels, _VALUE)
    apart = [_is_creation(family, sample.name, form) for sample in metric.samples]
    heads, bodies = ["", ""], ["", ""]
    part = count = 0
    for line in form.lines(metric):
        if line.startswith("# "):
            part = int(count == apart.count(False) and any(apart))
            heads[part] += line.replace("%", "%%") + "\n"
        else:
            text = line.removesuffix(str(_VALUE)).replace("%", "%%") + "%s\n"
            bodies[part] += "".join(text.replace(_BOUND, le) for le in bounds) if _BOUND in text else text
            count += 1
    return GroupText((heads[0], heads[1]), bodies[0], bodies[1])


def _is_creation(family: Family, name: str, form: Format) -> bool:
    return not form.openmetrics and name == family.name + "_created"
