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

from exporter.merge.families import Family, Group
from exporter.merge.series import Labels
from exporter.scrape.registered import Registered, UnreadableError
from exporter.store.directory import WorkerDirectory

NativeCounts = dict[Labels, dict[int, float]]
"""The counts of a family's native buckets, by labels and index."""


@dataclass(slots=True)
class Part:
    """A family with the value of each line, and exemplars by line."""

    family: Family
    values: Sequence[float]
    exemplars: Mapping[int, Exemplar] = field(default_factory=dict)
    natives: Mapping[Labels, Mapping[int, float]] = field(default_factory=dict)
    """The counts of native buckets, by labels and index."""
    created: Sequence[float] = ()
    """When each group began (seconds since the epoch), 0.0 if that is unknown."""


class Source(Protocol):
    """Gives all families as they are at one time."""

    def parts(self, *, details: bool) -> Iterator[Part | Metric]:
        """Each family as it is now; a Metric if only prometheus_client's own form exists.

        `details` adds native buckets and times of creation to each part.
        """

    def metrics(self, names: Iterable[str]) -> Iterable[Metric]:
        """The families with a sample of one of these names, in prometheus_client's form."""


OnFailure = Callable[[BaseException], None]
"""Called with the exception of a collector, whose samples are then missing."""


class RegistrySource:
    """The metrics of one registry, for a service with one process."""

    def __init__(
        self,
        registry: CollectorRegistry,
        on_failure: OnFailure | None = None,
        natives: Callable[[str], NativeCounts] = lambda _: {},
    ) -> None:
        """Without `on_failure` the caller gets a collector's exception; `natives` gives the native buckets of
        a family.
        """
        self._registry = registry
        self._on_failure = on_failure
        self._natives = natives
        self._registered: dict[Collector, Registered] = {}

    def parts(self, *, details: bool) -> Iterator[Part | Metric]:
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
            for part in _collect(partial(_read, registered, collector), self._on_failure):
                if details and isinstance(part, Part):
                    part.created = registered.created()
                    # Read after the classic buckets, so that their count is never behind.
                    part.natives = _complete(part, self._natives(part.family.name), 1)
                yield part

    def metrics(self, names: Iterable[str]) -> Iterable[Metric]:
        """The families with a sample of one of these names."""
        metrics: Iterable[Metric] = self._registry.restricted_registry(list(names)).collect()
        return metrics


class DirectorySource:
    """The metrics of a worker directory, and of collectors that compute theirs at a scrape."""

    def __init__(
        self, directory: WorkerDirectory, live: Sequence[Collector], on_failure: OnFailure | None = None
    ) -> None:
        """`live` are the collectors whose values are in no file; `on_failure` is as for a registry."""
        self._directory = directory
        self._live = live
        self._on_failure = on_failure

    def parts(self, *, details: bool) -> Iterator[Part | Metric]:
        """Each family as it is now; raises OSError where the directory cannot be read."""
        if not details:
            for family, values in self._directory.merge():
                yield Part(family, values)
        else:
            families, natives, writers = self._directory.merge_with_natives()
            counts = {family.name: _counts(family, values) for family, values in natives}
            for family, values in families:
                part = Part(family, values, created=[group.created for group in family.groups])
                part.natives = _complete(part, counts.get(family.name, {}), writers)
                yield part
        for collector in self._live:
            yield from _collect(collector.collect, self._on_failure)

    def metrics(self, names: Iterable[str]) -> Iterable[Metric]:
        """The families with a sample of one of these names; raises OSError as `parts`."""
        selection = set(names)
        return [
            family.metric(values)
            for family, values in self._directory.merge()
            if any(name in selection for group in family.groups[:1] for name, _ in group.lines)
        ]


def _collect(
    collect: Callable[[], Iterable[Part | Metric]], on_failure: OnFailure | None
) -> list[Part | Metric]:
    try:
        return list(collect())
    except Exception as error:
        if on_failure is None:
            raise
        on_failure(error)
        return []


def _read(registered: Registered, collector: Collector) -> Iterable[Part | Metric]:
    try:
        family, values, exemplars = registered.read()
    except UnreadableError:
        return collector.collect()
    return [Part(family, values, dict(exemplars))]


def _counts(family: Family, values: Sequence[float]) -> NativeCounts:
    """The counts of a family of native buckets, by labels and index."""
    counts: NativeCounts = {}
    line = 0
    for group in family.groups:
        if group.shape is None:
            group.shape = [int(name.rpartition(":")[2]) for name, _ in group.lines]
        end = line + len(group.lines)
        counts[group.labels] = dict(zip(group.shape, values[line:end], strict=True))
        line = end
    return counts


def _complete(
    part: Part, counts: Mapping[Labels, Mapping[int, float]], writers: int
) -> dict[Labels, Mapping[int, float]]:
    """The native buckets of those groups whose every observation is in them.

    Each of the writers may be in the middle of one observation. More are missing after a full disk, or beside
    a worker of another version that counts into classic buckets alone.
    """
    complete: dict[Labels, Mapping[int, float]] = {}
    if part.family.type != "histogram" or not counts:
        return complete
    line = 0
    for group in part.family.groups:
        end = line + len(group.lines)
        native = counts.get(group.labels, {})
        if sum(native.values()) >= _count(group, part.values, line) - writers:
            complete[group.labels] = native
        line = end
    return complete


def _count(group: Group, values: Sequence[float], line: int) -> float:
    """The count of a histogram whose lines begin there. It follows the buckets, and little comes after it."""
    for at in reversed(range(len(group.lines))):
        if group.lines[at][0].endswith("_count"):
            return values[line + at]
    return 0.0
