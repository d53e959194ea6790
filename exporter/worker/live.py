"""Families whose values are computed at the moment of a scrape, for every worker alike."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Protocol

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from exporter.worker.declared import Declared


class LiveCollector(Protocol):
    """A collector that computes its samples at a scrape, and can tell its families without them."""

    def describe(self) -> Iterable[Metric]: ...

    def collect(self) -> Iterable[Metric]: ...


class Live(Collector):
    """The live collectors of one registry; applications that share the registry share the families.

    The references are weak: the collectors belong to their applications, and disappear with them.
    """

    def __init__(self, registry: Declared) -> None:
        self._registry = registry
        self._references: list[weakref.ref[LiveCollector]] = []

    def add(self, *collectors: LiveCollector) -> None:
        """Add these collectors.

        Raises ValueError if somebody else has registered one of their families; then none is added.
        """
        names = {family.name for family in self.describe()}
        former = self._references
        self._references = [weakref.ref(collector) for collector in (*self._collectors(), *collectors)]
        if names >= {family.name for family in self.describe()}:
            return
        if names:
            self._registry.unregister(self)
        try:
            self._registry.register(self)
        except ValueError:
            self._references = former
            if names:
                self._registry.register(self)
            raise

    def describe(self) -> Iterable[Metric]:
        """The families without samples: a registry learns their names, and nothing is computed."""
        names: dict[str, Metric] = {}
        for collector in self._collectors():
            for family in collector.describe():
                names.setdefault(family.name, family)
        return names.values()

    def collect(self) -> Iterable[Metric]:
        """The families of all collectors; if two have the same series, the first one counts."""
        families: dict[str, Metric] = {}
        for collector in self._collectors():
            for family in collector.collect():
                first = families.setdefault(family.name, family)
                if first is not family:
                    labels = [sample.labels for sample in first.samples]
                    first.samples += [sample for sample in family.samples if sample.labels not in labels]
        return families.values()

    def _collectors(self) -> list[LiveCollector]:
        collectors = (reference() for reference in self._references)
        return [collector for collector in collectors if collector is not None]
