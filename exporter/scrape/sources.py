"""Sources: where a scrape finds its families, a registry or a worker directory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from exporter.merge.families import Family
from exporter.scrape.registered import Registered, UnreadableError
from exporter.store.directory import WorkerDirectory


@dataclass(slots=True)
class Part:
    """A family with the value of each line, and exemplars by line."""

    family: Family
    values: Sequence[float]
    exemplars: Mapping[int, Exemplar] = field(default_factory=dict)


class Source(Protocol):
    """Gives all families at one time."""

    def parts(self) -> Iterator[Part | Metric]:
        """Each family as it is now; a Metric where prometheus_client's own form is all that there is."""

    def metrics(self, names: Iterable[str]) -> Iterable[Metric]:
        """The families of which a sample has one of these names, in prometheus_client's form."""


Failed = Callable[[BaseException], None]
"""Is told of a collector that raises, whose samples are then missing."""


class RegistrySource:
    """The metrics of one registry, for a service with one process."""

    def __init__(self, registry: CollectorRegistry, failed: Failed | None = None) -> None:
        """Without `failed` the exception of a collector is the caller's."""
        self._registry = registry
        self._failed = failed
        self._registered: dict[Collector, Registered] = {}

    def parts(self) -> Iterator[Part | Metric]:
        """Each family of the registry as it is now."""
        registry = self._registry
        with registry._lock:
            collectors = list(registry._collector_to_names)
            target = registry._target_info_metric() if registry._target_info else None  # type: ignore[no-untyped-call]
        if target is not None:
            yield target
        former = self._registered
        self._registered = {
            collector: former.get(collector) or Registered(collector) for collector in collectors
        }
        for collector, registered in self._registered.items():
            yield from _collected(partial(_read, registered, collector), self._failed)

    def metrics(self, names: Iterable[str]) -> Iterable[Metric]:
        """The families of which a sample has one of these names."""
        metrics: Iterable[Metric] = self._registry.restricted_registry(list(names)).collect()
        return metrics


class DirectorySource:
    """The metrics of a worker directory, and of what is computed at a scrape."""

    def __init__(
        self, directory: WorkerDirectory, live: Sequence[Collector], failed: Failed | None = None
    ) -> None:
        """`live` are the collectors whose values are in no file; `failed` is as for a registry."""
        self._directory = directory
        self._live = live
        self._failed = failed

    def parts(self) -> Iterator[Part | Metric]:
        """Each family as it is now; raises OSError where the directory cannot be read."""
        for family, values in self._directory.merge():
            yield Part(family, values)
        for collector in self._live:
            yield from _collected(collector.collect, self._failed)

    def metrics(self, names: Iterable[str]) -> Iterable[Metric]:
        """The families of which a sample has one of these names; raises OSError as `parts`."""
        wanted = set(names)
        return [
            family.metric(values)
            for family, values in self._directory.merge()
            if any(name in wanted for group in family.groups[:1] for name, _ in group.lines)
        ]


def _collected(collect: Callable[[], Iterable[Part | Metric]], failed: Failed | None) -> list[Part | Metric]:
    try:
        return list(collect())
    except Exception as error:
        if failed is None:
            raise
        failed(error)
        return []


def _read(registered: Registered, collector: Collector) -> Iterable[Part | Metric]:
    try:
        family, values, exemplars = registered.read()
    except UnreadableError:
        return collector.collect()
    return [Part(family, values, dict(exemplars))]
