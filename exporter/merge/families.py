"""Families of samples between their sources (worker files, registry) and their exposition.

The objects stay the same from scrape to scrape for as long as the series do: the texts that an exposition
makes of their names and labels are kept on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from exporter.merge.series import Labels, Series

_NONE: Mapping[int, Exemplar] = MappingProxyType({})


class Group:
    """The samples of one family that share their labels, in their order: (name, labels)."""

    __slots__ = ("labels", "lines", "texts")

    def __init__(self, labels: Labels, lines: Sequence[tuple[str, dict[str, str]]]) -> None:
        self.labels = labels
        self.lines = tuple(lines)
        self.texts: dict[Any, Any] = {}

    @staticmethod
    def of(series: Sequence[Series]) -> Group:
        """The group of these series: buckets by ascending bound first, their `_count` after the last."""
        labels = dict(series[0].labels)
        lines = [
            (one.family + one.suffix, labels if one.le is None else {**labels, "le": number(one.le)})
            for one in series
        ]
        buckets = sum(one.le is not None for one in series)
        if buckets:
            lines.insert(buckets, (series[0].family + "_count", labels))
        return Group(series[0].labels, lines)


class Family:
    """A metric's name, type, help text and groups."""

    __slots__ = ("documentation", "groups", "name", "texts", "type", "unit")

    def __init__(
        self, name: str, documentation: str, kind: str, groups: Sequence[Group], unit: str = ""
    ) -> None:
        self.name = name
        self.documentation = documentation
        self.type = kind
        self.unit = unit
        self.groups = tuple(groups)
        self.texts: dict[Any, Any] = {}

    def metric(self, values: Sequence[float], exemplars: Mapping[int, Exemplar] = _NONE) -> Metric:
        """prometheus_client's form of this family with a value, and maybe an exemplar, for each line."""
        metric = Metric(self.name, self.documentation, self.type, self.unit)
        lines = (line for group in self.groups for line in group.lines)
        for at, ((name, labels), value) in enumerate(zip(lines, values, strict=True)):
            metric.add_sample(name, labels, value, None, exemplars.get(at))
        return metric


def number(value: float) -> str:
    """A number as Prometheus' Go code writes it."""
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]
