"""Extremes: the exact minimum and maximum of the last minute, from the slots of all workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.worker.slots import Slots


class Extremes(Collector):
    """Computes both families at the moment of a scrape."""

    def __init__(self, slots: Callable[[], Slots], name: str, group: str) -> None:
        self._slots = slots
        self._name = name
        self._group = group

    def describe(self) -> Iterable[Metric]:
        """The two families, without samples."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        """The two families, in seconds, with a sample for each group of the last minute."""
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
