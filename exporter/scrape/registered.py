"""Registered metrics: from prometheus_client's own objects to families and values, in one process.

`collect()` makes a sample object with a dict of labels for every value. Here labels become text once, and
a scrape reads the numbers alone. Only objects of prometheus_client's exact classes are read so; any other
has to collect. This is the only module that reads private attributes of prometheus_client's metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import Counter, Gauge, Histogram, Summary, metrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.values import MutexValue

from exporter.merge.families import Family, Group, number

_PLAIN = (Counter, Gauge, Histogram, Summary)
_SUFFIXES = {"counter": ["_total"], "gauge": [""], "summary": ["_count", "_sum"], "histogram": ["_count"]}


class UnreadableError(Exception):
    """This collector cannot be read directly, only by its `collect()`."""


class Registered:
    """One metric of a registry; keeps between scrapes all that depends on its children alone."""

    def __init__(self, collector: Collector) -> None:
        self._collector: Any = collector
        self._plain = type(collector) in _PLAIN and "collect" not in vars(collector)
        self._children: list[Any] = []
        self._readers: list[_Reader] = []
        self._family: Family | None = None
        self._created = False

    def read(self) -> tuple[Family, list[float], list[tuple[int, Exemplar]]]:
        """The family, the values of its lines, and the exemplars as (line, exemplar).

        Raises:
            UnreadableError: it is no plain metric of prometheus_client.
        """
        if not self._plain:
            raise UnreadableError
        collector = self._collector
        # The list is made in one step of the interpreter, so a new child needs no lock.
        children = list(collector._metrics.values()) if collector._is_parent() else [collector]
        family = self._family
        if family is None or children != self._children or metrics._use_created is not self._created:
            family = self._rebuild(children)
        values: list[float] = []
        exemplars: list[tuple[int, Exemplar]] = []
        for reader in self._readers:
            first = len(values)
            values += reader.values()
            exemplars += [(first + line, exemplar) for line, exemplar in reader.exemplars()]
        return family, values, exemplars

    def created(self) -> list[float]:
        """When each child began, in seconds since the epoch; 0.0 if that is unknown."""
        return [getattr(child, "_created", 0.0) for child in self._children]

    def _rebuild(self, children: list[Any]) -> Family:
        is_same_mode = metrics._use_created is self._created
        readers = dict(zip(self._children, self._readers, strict=True)) if is_same_mode else {}
        self._readers = [readers.get(child) or _Reader(child) for child in children]
        self._children, self._created = children, metrics._use_created
        collector = self._collector
        groups = [reader.group for reader in self._readers]
        self._family = family = Family(
            collector._name, collector._documentation, collector._type, groups, collector._unit
        )
        return family


class _Reader:
    """Reads the values of one child, a metric with all its labels, in the order of its lines."""

    def __init__(self, child: Any) -> None:
        self._child = child
        self._sources: Sequence[Any] = ()
        self._slice: tuple[Any, int, int] | None = None
        self._buckets = len(child._buckets) if type(child) is Histogram else 0
        self._with_sum = not self._buckets or child._upper_bounds[0] >= 0
        self._created = metrics._use_created and type(child) is not Gauge
        labels = dict(zip(child._labelnames, child._labelvalues, strict=True))
        suffixes = [*_SUFFIXES[child._type]]
        if self._buckets and self._with_sum:
            suffixes.append("_sum")
        if self._created:
            suffixes.append("_created")
        bounds = child._upper_bounds if self._buckets else ()
        lines = [(child._name + "_bucket", {**labels, "le": number(bound)}) for bound in bounds]
        lines += [(child._name + suffix, labels) for suffix in suffixes]
        self.group = Group(tuple(sorted(labels.items())), lines)

    def values(self) -> list[float]:
        child = self._child
        if "_child_samples" in vars(child):  # Gauge.set_function
            return [float(sample.value) for sample in child._child_samples()]
        if type(child) is Histogram:
            sources = [child._sum, *child._buckets]
        elif type(child) is Summary:
            sources = [child._count, child._sum]
        else:
            sources = [child._value]
        values = self._numbers(sources)
        if self._buckets:
            total, *counts = values
            values = [*accumulate(counts)]
            values.append(values[-1])
            if self._with_sum:
                values.append(total)
        if self._created:
            values.append(child._created)
        return values

    def exemplars(self) -> Iterable[tuple[int, Exemplar]]:
        """The exemplars that prometheus_client keeps: (line, exemplar)."""
        if self._slice is not None or "_child_samples" in vars(self._child):
            return ()
        sources = self._child._buckets if self._buckets else self._sources
        return [(at, value._exemplar) for at, value in enumerate(sources) if value._exemplar]

    def _numbers(self, sources: list[Any]) -> list[float]:
        if sources != self._sources:
            self._sources, self._slice = sources, _slice(sources)
        if self._slice is not None:
            doubles, start, stop = self._slice
            return list(doubles[start:stop])
        return [float(value._value) for value in sources]


def _slice(sources: Sequence[Any]) -> tuple[Any, int, int] | None:
    """The place where the recorder keeps these values side by side; None if they are prometheus_client's.

    Raises:
        UnreadableError: they are neither.
    """
    if all(type(value) is MutexValue for value in sources):
        return None
    try:
        doubles, start = sources[0].doubles, sources[0].index
        if all(v.doubles is doubles and v.index == start + i for i, v in enumerate(sources)):
            return doubles, start, start + len(sources)
    except AttributeError:
        pass
    raise UnreadableError
