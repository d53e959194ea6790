"""The metrics that a process has declared in one registry; they are due again after a test empties it."""

from __future__ import annotations

import weakref
from contextlib import suppress

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector


class Declared:
    """Stands in for a registry when a metric is made, and remembers the metric.

    The reference to the registry is weak, because the registry's worker holds this object.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = weakref.ref(registry)
        self.collectors: list[Collector] = []

    def register(self, collector: Collector) -> None:
        """Register as in a registry; raises ValueError if somebody else has one of the names."""
        registry = self._registry()
        if registry is not None:
            registry.register(collector)
        self.collectors.append(collector)

    def unregister(self, collector: Collector) -> None:
        """Unregister as in a registry; a missing collector is no error."""
        registry = self._registry()
        if registry is not None:
            with suppress(KeyError):
                registry.unregister(collector)
        self.collectors.remove(collector)

    @property
    def complete(self) -> bool:
        """Whether the registry still has all of the metrics."""
        registry = self._registry()
        return registry is not None and set(self.collectors) <= registry._collector_to_names.keys()

    def withdraw(self) -> None:
        """Take the metrics out of the registry."""
        for collector in list(self.collectors):
            self.unregister(collector)
