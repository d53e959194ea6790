"""Native buckets: what this process counts into exponential buckets, beside the classic ones."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client import Histogram
from prometheus_client.mmap_dict import mmap_key

from exporter import forks
from exporter.buckets import ZERO
from exporter.measure.cells import Doubles
from exporter.store.workerfile import WorkerFile, place
from exporter.worker.failures import Failures

if TYPE_CHECKING:
    from exporter.merge.series import Labels

_RETRY_SECONDS = 1.0

Place = tuple[Doubles, int]
"""Where a count lies: `doubles[index] += 1.0` counts."""


class NativeBuckets(dict[int, Place]):
    """The buckets of one label set, by their position in `exporter.buckets.BOUNDS`.

    One that is missing is made when it is first asked for. `buckets[bisect_left(BOUNDS, seconds)]` takes
    0.1 µs; `frexp` and a table of eight bounds took 0.3.
    """

    __slots__ = ("_counts", "_family", "_indexes", "_labels", "_natives")

    def __init__(self, natives: Natives, family: Histogram, labels: Mapping[str, str]) -> None:
        self._natives = natives
        self._family = family
        self._labels = labels
        self._indexes: list[int] = []
        self._counts: list[float] = []

    def __missing__(self, position: int) -> Place:
        place: Place | None
        if self._natives.directory is None:
            place = self._counts, len(self._counts)
            self._counts.append(0.0)
            self._indexes.append(position + ZERO)
        else:
            place = self._natives.place(self._family, self._labels, position + ZERO)
        if place is None:  # a scrape leaves the native form out where not everything is counted
            return [0.0], 0
        self[position] = place
        return place

    def counts(self) -> dict[int, float]:
        """The count of each bucket in memory, by its index."""
        return dict(zip(self._indexes, self._counts, strict=False))  # one may be added right now


class Natives:
    """The native buckets of this process: in memory, or in a worker file of their own in `directory`."""

    def __init__(self, directory: str | None, failures: Failures) -> None:
        self.directory = directory
        self._failures = failures
        self._retry_at = 0.0
        self._file: WorkerFile | None = None
        self._histograms: dict[str, dict[Labels, NativeBuckets]] = {}
        forks.forget(self)

    def buckets(self, family: Histogram, labels: Mapping[str, str]) -> NativeBuckets:
        """The buckets of this label set."""
        children = self._histograms.setdefault(family._name, {})
        key = tuple(sorted(labels.items()))
        if key not in children:
            children[key] = NativeBuckets(self, family, labels)
        return children[key]

    def counts(self, family: str) -> dict[Labels, dict[int, float]]:
        """The counts of a family in memory, by labels and index."""
        children = self._histograms.get(family, {})
        return {labels: buckets.counts() for labels, buckets in list(children.items())}

    def place(self, family: Histogram, labels: Mapping[str, str], index: int) -> Place | None:
        """A place in the file for the count of one bucket; None while the worker directory takes no more."""
        assert self.directory is not None  # noqa: S101  in memory it is not asked
        now = time.monotonic()
        if self._file is None and now < self._retry_at:
            return None
        try:
            if self._file is None:
                self._retry_at = now + _RETRY_SECONDS
                self._file = WorkerFile(os.path.join(self.directory, f"native_{os.getpid()}.buckets"))
            return self._place(self._file, family, labels, index)
        except Exception as error:
            self._failures.count("worker_file", error)
            return None

    @staticmethod
    def _place(file: WorkerFile, family: Histogram, labels: Mapping[str, str], index: int) -> Place | None:
        name = family._name
        key = mmap_key(name, f"{name}:{index}", [*labels], [*labels.values()], family._documentation)
        file.read_value(key)
        return place(file, key)

    def clear(self) -> None:
        """Forget the counts in memory."""
        self._histograms.clear()

    def move(self) -> None:
        """Forget where the counts lie in the files, because this process has others now."""
        if self.directory is not None:
            self._histograms.clear()

    def after_fork(self) -> None:
        """Forget the parent's file; what it has counted in memory goes on, as in the classic buckets."""
        if self.directory is not None:
            self._file = None
            self._retry_at = 0.0
            self._histograms.clear()
