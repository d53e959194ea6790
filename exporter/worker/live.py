"""Families whose values are computed at the moment of a scrape, for every worker alike."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.worker.slots import Slots


class Described(Protocol):
    """A collector that can tell its families without computing them."""

    def describe(self) -> Iterable[Metric]: ...

    def collect(self) -> Iterable[Metric]: ...


class Live(Collector):
    """The live collectors of one registry; applications that share the registry share the families.

    It holds them weakly: they belong to their applications, and go with them.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = weakref.ref(registry)  # which knows the worker that holds this collector
        self._sources: list[weakref.ref[Described]] = []

    def add(self, *sources: Described) -> None:
        """Collect from `sources` too. Raises ValueError if one of their families is somebody else's."""
        known = {family.name for family in self.describe()}
        self._sources = [weakref.ref(source) for source in (*self._living(), *sources)]
        if known >= {family.name for family in self.describe()}:
            return
        registry = self._registry()
        if registry is None:
            return
        if known:
            registry.unregister(self)
        registry.register(self)

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
                known = families.setdefault(family.name, family)
                if known is not family:
                    seen = [sample.labels for sample in known.samples]
                    known.samples += [sample for sample in family.samples if sample.labels not in seen]
        return families.values()

    def _living(self) -> list[Described]:
        return [source for source in (reference() for reference in self._sources) if source is not None]


class Facts(Collector):
    """What the exporter says of itself and of the application that it observes."""

    def __init__(self, app_version: str, worker_files: Callable[[], Mapping[str, int]] | None) -> None:
        """`worker_files` counts the worker files by state; None in single-process mode."""
        self._app_version = app_version
        self._worker_files = worker_files

    def describe(self) -> Iterable[Metric]:
        """The families, without samples."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        """The families as they are now."""
        version, mode, files = families = self._families()
        version.add_metric([self._app_version], 1)
        mode.add_metric(["multiprocess" if self._worker_files else "single"], 1)
        counts = self._worker_files() if self._worker_files else {}
        for state in ("live", "archive", "corrupt"):
            files.add_metric([state], counts.get(state, 0))
        return families

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
        return (
            GaugeMetricFamily("flask_app_info", "The observed application's own version", labels=["version"]),
            GaugeMetricFamily("flask_exporter_mode", "Whether one process or several serve", labels=["mode"]),
            GaugeMetricFamily(
                "flask_exporter_worker_files", "Files in the worker directory", labels=["state"]
            ),
        )


class Extremes(Collector):
    """Exact minimum and maximum of the last minute, computed from all workers' slots at a scrape."""

    def __init__(self, slots: Callable[[], Slots], name: str, group: str) -> None:
        self._slots = slots
        self._name = name
        self._group = group

    def describe(self) -> Iterable[Metric]:
        """The two families, without samples."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        """The two families, in seconds, with a sample for each group that was seen in the last minute."""
        shortest, longest = families = self._families()
        for group, (low, high) in self._slots().extremes(time.monotonic()).items():
            shortest.add_metric([group], low)
            longest.add_metric([group], high)
        return families

    def _families(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        shortest = "Shortest request of the last 60 seconds"
        longest = "Longest request of the last 60 seconds"
        return (
            GaugeMetricFamily(f"{self._name}_min_seconds", shortest, labels=[self._group]),
            GaugeMetricFamily(f"{self._name}_max_seconds", longest, labels=[self._group]),
        )
