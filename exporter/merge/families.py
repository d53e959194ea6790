"""Families of samples between their sources (worker files, registry) and their exposition.

The objects stay the same from scrape to scrape for as long as the series do, because they keep the texts that
an exposition makes of their names and labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from sys import intern
from types import MappingProxyType
from typing import Any, NamedTuple

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from exporter.merge.series import Entry, Labels, Series

FormatKey = tuple[bool, str]
"""The form of a family's text: whether it is OpenMetrics, and the escaping of names."""

_created = attrgetter("created")
_NO_EXEMPLARS: Mapping[int, Exemplar] = MappingProxyType({})


class GroupText(NamedTuple):
    """The text of one group with `%s` for each value; its times of creation are separate."""

    heads: tuple[str, str]
    """The comment lines of the family, and those above its times of creation."""
    lines: str
    creation_lines: str


class Template(NamedTuple):
    """The text of a family with `%s` for each value, and the function that puts values into that order."""

    text: str
    order: Callable[[Sequence[Any]], tuple[Any, ...]]


class Group:
    """The samples of one family that share their labels, in their order: (name, labels)."""

    __slots__ = ("_entries", "label_messages", "labels", "lines", "shape", "texts")

    def __init__(
        self,
        labels: Labels,
        lines: Sequence[tuple[str, dict[str, str]]],
        entries: Sequence[Entry] = (),
    ) -> None:
        """`entries` are the series of worker files that are in the group."""
        self.labels = labels
        self.lines = tuple(lines)
        self.texts: dict[FormatKey, GroupText] = {}
        self.label_messages: dict[str, bytes] = {}
        """The labels as protobuf, by the escaping of names."""
        self.shape: Any = None
        """What its messages have in common, kept by the module that reads or writes them."""
        self._entries = entries

    @property
    def created(self) -> float:
        """When the group began, in seconds since the epoch; 0.0 if that is unknown."""
        created = min(map(_created, self._entries), default=math.inf)
        return created if created < math.inf else 0.0

    @staticmethod
    def of(members: Sequence[Series], entries: Sequence[Entry] = ()) -> Group:
        """The group of these series: buckets by ascending bound first, their `_count` after the last."""
        labels = dict(members[0].labels)
        lines = [
            (
                intern(series.family + series.suffix),
                labels if series.le is None else {**labels, "le": intern(number(series.le))},
            )
            for series in members
        ]
        buckets = sum(series.le is not None for series in members)
        if buckets:
            lines.insert(buckets, (members[0].family + "_count", labels))
        return Group(members[0].labels, lines, entries)


class Place(NamedTuple):
    """The first line of a group in its family, and the upper bounds of its buckets."""

    line: int
    bounds: list[float]


class Family:
    """A metric's name, type, help text and groups."""

    __slots__ = ("_places", "documentation", "groups", "name", "templates", "type", "unit")

    def __init__(
        self, name: str, documentation: str, kind: str, groups: Sequence[Group], unit: str = ""
    ) -> None:
        self.name = name
        self.documentation = documentation
        self.type = kind
        self.unit = unit
        self.groups = tuple(groups)
        self.templates: dict[FormatKey, Template] = {}
        self._places: dict[frozenset[tuple[str, str]], Place] | None = None

    @property
    def places(self) -> Mapping[frozenset[tuple[str, str]], Place]:
        """The place of each group, by its labels."""
        if self._places is None:
            self._places = {}
            line = 0
            for group in self.groups:
                bounds = [
                    float(labels["le"]) for name, labels in group.lines if name == self.name + "_bucket"
                ]
                self._places[frozenset(group.labels)] = Place(line, bounds)
                line += len(group.lines)
        return self._places

    def metric(self, values: Sequence[float], exemplars: Mapping[int, Exemplar] = _NO_EXEMPLARS) -> Metric:
        """prometheus_client's form of this family with a value, and maybe an exemplar, for each line."""
        metric = Metric(self.name, self.documentation, self.type, self.unit)
        lines = (line for group in self.groups for line in group.lines)
        for at, ((name, labels), value) in enumerate(zip(lines, values, strict=True)):
            metric.add_sample(name, labels, value, None, exemplars.get(at))
        return metric


def number(value: float) -> str:
    """A number as Prometheus' Go code writes it."""
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]
