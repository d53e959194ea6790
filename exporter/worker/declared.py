"""What this process has declared in one registry: tests empty registries, and then it is declared anew."""

from __future__ import annotations

import weakref
from contextlib import suppress

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector


class Declared:
    """Stands in for a registry where a metric is made, and remembers the metric.

    It holds the registry weakly, because the registry's worker holds this.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = weakref.ref(registry)
        self.collectors: list[Collector] = []

    def register(self, collector: Collector) -> None:
        """As a registry does it; raises ValueError if one of the names is somebody else's."""
        registry = self._registry()
        if registry is not None:
            registry.register(collector)
        self.collectors.append(collector)

    def unregister(self, collector: Collector) -> None:
        """As a registry does it, but for one that is not there."""
        registry = self._registry()
        if registry is not None:
            with suppress(KeyError):
                registry.unregister(collector)
        self.collectors.remove(collector)

    @property
    def complete(self) -> bool:
        """Whether the registry has all of it still."""
        registry = self._registry()
        return registry is not None and set(self.collectors) <= registry._collector_to_names.keys()

    def withdraw(self) -> None:
        """Take what is left of it from the registry."""
        for collector in list(self.collectors):
            self.unregister(collector)
