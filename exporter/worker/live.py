"""Families whose values are computed at the moment of a scrape, for every worker alike."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Protocol

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from exporter.worker.declared import Declared


class Described(Protocol):
    """A collector that can tell its families without computing them."""

    def describe(self) -> Iterable[Metric]: ...

    def collect(self) -> Iterable[Metric]: ...


class Live(Collector):
    """The live collectors of one registry; applications that share the registry share the families.

    It holds them weakly: they belong to their applications, and go with them.
    """

    def __init__(self, registry: Declared) -> None:
        self._registry = registry
        self._sources: list[weakref.ref[Described]] = []

    def add(self, *sources: Described) -> None:
        """Collect from `sources` too. Raises ValueError if one of their families is somebody else's."""
        names = {family.name for family in self.describe()}
        self._sources = [weakref.ref(source) for source in (*self._living(), *sources)]
        if names >= {family.name for family in self.describe()}:
            return
        if names:
            self._registry.unregister(self)
        self._registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """The families without samples, so that a registry learns the names without computing anything."""
        names: dict[str, Metric] = {}
        for source in self._living():
            for family in source.describe():
                names.setdefault(family.name, family)
        return names.values()

    def collect(self) -> Iterable[Metric]:
        """The families of all sources; where two give the same series, the first one counts."""
        families: dict[str, Metric] = {}
        for source in self._living():
            for family in source.collect():
                first = families.setdefault(family.name, family)
                if first is not family:
                    labels = [sample.labels for sample in first.samples]
                    first.samples += [sample for sample in family.samples if sample.labels not in labels]
        return families.values()

    def _living(self) -> list[Described]:
        return [source for source in (reference() for reference in self._sources) if source is not None]
