"""The instruments: the recorder of each label set, and the counters of errors and delays."""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_left
from collections.abc import Iterable

from prometheus_client import Counter, Histogram

from exporter import forks
from exporter.buckets import BOUNDS
from exporter.labels import OTHER, SeriesCap
from exporter.measure.cells import Cell, Cells, Distribution
from exporter.measure.metrics import ExtendedMetrics, Metrics
from exporter.measure.native import Natives
from exporter.measure.recorder import extended_recorder, plain_recorder
from exporter.observation import Delay, Fingerprint, Observation, Recorder
from exporter.worker.errorgroups import ErrorGroups
from exporter.worker.extremes import Extremes
from exporter.worker.inflight import InProgress
from exporter.worker.slots import Slots
from exporter.worker.worker import Worker

LabelSet = tuple[str, ...]

PRIME_LIMIT = 100
"""The label sets that exist at 0 before the first request; the default buckets make them 3,000 series."""

PLACES = 100
"""The label sets of slow requests; a slow endpoint waits in one to three places."""

ALONE = 0.7
"""From this share of a slow request's time on, its first place gets all of the time."""


class Instruments:
    """Counts requests into the families that prometheus_flask_exporter has too."""

    extended = False

    def __init__(self, worker: Worker, metrics: Metrics, *, max_series: int) -> None:
        """`max_series` is the most label sets of a family."""
        shape = metrics.shape
        self.worker = worker
        self.metrics = metrics
        self.lock = worker.lock
        self.cells = Cells()
        self.recorders: dict[LabelSet, Recorder] = {}
        self._coarse_recorders: dict[LabelSet, Recorder] = {}
        self._build_lock = threading.RLock()
        self._cap = SeriesCap(max_series, shape.labels, shape.group)
        self._total_cap = SeriesCap(max_series, ("method", "status", *shape.extra))
        self.followers: weakref.WeakSet[forks.Forgetful] = weakref.WeakSet()
        """Owners of recorders, which forget them as after a fork."""
        metrics.when_cleared(self.begin_anew)
        worker.moves.append(self.move)
        forks.forget(self)

    def begin(self) -> None:
        """Prepare this process, before its first request and again after a fork."""

    def recorder(self, key: LabelSet, own: bool) -> Recorder:
        """The recorder of the label set (method, group, status, …); a coarser one above the series cap.

        `own` says whether the group is the application's own and not a client's invention.
        """
        with self._build_lock:
            recorder = self.recorders.get(key)
            if recorder is not None:
                return recorder
            labels = self._cap.admit(key, own)
            if labels == key:
                recorder = self.recorders[key] = self._build(labels)
                return recorder
            self.worker.drops.inc()
            recorder = self._coarse_recorders.get(labels)
            if recorder is None:
                recorder = self._coarse_recorders[labels] = self._build(labels)
            return recorder

    def error(self, observation: Observation, group: str) -> None:  # noqa: ARG002  for the extended ones
        """Count the error, the exception or the disconnect of a recorded request."""
        if observation.exception is not None:
            # The status is 500, as in prometheus_flask_exporter, even if the body failed after a 200.
            labels = self._total_cap.admit((observation.method, "500", *observation.extra))
            self.metrics.exceptions.labels(*labels).inc()

    def observe_queue(self, seconds: float) -> None:
        """Observe the time that a request waited in front of the application."""

    def slow(self, observation: Observation, delay: Delay) -> None:
        """Count the seconds of a slow request by the place where it waited."""

    def prime(self, rules: Iterable[tuple[str, str]]) -> None:
        """Create the series of these (method, rule) at 0, so that `increase()` sees a first burst.

        `PRIME_LIMIT` keeps the start of a large application small. Half of the cap stays free for real
        requests.
        """
        limit = min(self._cap.limit // 2, PRIME_LIMIT)
        for method, rule in rules:
            for status in ("200", "500"):
                if len(self.recorders) >= limit:
                    return
                self.recorder((method, rule, status), own=True)

    def forget(self) -> None:
        """Forget the places of the values, because series may be gone; the next request finds new ones."""
        self.recorders.clear()
        self._coarse_recorders.clear()
        for follower in self.followers:
            follower.after_fork()

    def begin_anew(self) -> None:
        """Forget everything, because all series of a family are gone, as between two tests."""
        self.forget()
        self._cap.clear()
        self._total_cap.clear()

    def move(self) -> None:
        """Forget the places of the values, because this process has other files now."""
        self.cells.restore()
        self.forget()

    def after_fork(self) -> None:
        """Forget the places of the values of the parent process."""
        self.lock = self.worker.lock
        self._build_lock = threading.RLock()
        self.move()

    def _build(self, labels: LabelSet) -> Recorder:
        return plain_recorder(self.lock, *self._common(labels))

    def _common(self, labels: LabelSet) -> tuple[Distribution, Cell]:
        """The places of the durations and of the total of this label set."""
        method, _, status, *extra = labels
        total = self.metrics.total.labels(*self._total_cap.admit((method, status, *extra)))
        return self.cells.distribution(self.metrics.duration.labels(*labels)), self.cells.single(total)


class ExtendedInstruments(Instruments):
    """Counts requests into all families, and into the one-second slots."""

    extended = True
    metrics: ExtendedMetrics
    slots: Slots
    """Set by `begin`."""

    def __init__(
        self,
        worker: Worker,
        metrics: ExtendedMetrics,
        *,
        max_series: int,
        first: bool,
        groups: ErrorGroups,
        natives: Natives | None = None,
    ) -> None:
        """`groups` counts error groups. `natives` counts native buckets of durations and queue times.

        Only the `first` families of an application write the worker's slots, where a request counts once.
        """
        super().__init__(worker, metrics, max_series=max_series)
        shape = metrics.shape
        labels = ("method", shape.group, "status", "error_type", *shape.extra)
        self.natives = natives
        self._first = first
        self._errors: dict[LabelSet, Cell] = {}
        self._groups = groups
        self._groups_cap = SeriesCap(max_series, Fingerprint._fields)
        self._errors_cap = SeriesCap(max_series, labels, shape.group)
        self._slow_cap = SeriesCap(min(PLACES, max_series), (shape.group, "where"), shape.group)
        self.extremes = Extremes(lambda: worker.slots, f"{shape.prefix}http_request_duration", shape.group)
        """The collector of minimum and maximum. The registry's reference is weak, also to the next one."""
        self.in_progress = InProgress(worker.tallies, shape.prefix, rule=worker.losses.rule)

    def begin(self) -> None:
        """Claim the slots of this process."""
        self.slots = self.worker.slots if self._first else Slots(None)

    def error(self, observation: Observation, group: str) -> None:
        """Count the error, the exception or the disconnect of a recorded request."""
        fingerprint = observation.fingerprint
        if fingerprint is not None:
            # The worker counts a request once, for whatever number of prefixes.
            if self._first:
                fingerprint = self._groups.count(observation, fingerprint)
            else:
                fingerprint = self._groups.admit(fingerprint)
        super().error(observation, group)
        labels = observation.method, group, observation.code, *observation.extra
        if observation.disconnected:
            self.metrics.disconnects.labels(self._cap.admit(labels, observation.own_group)[1]).inc()
        if observation.error_type:
            key = *labels[:3], observation.error_type, *labels[3:]
            self._count(key, self._errors_cap, self.metrics.errors, observation.own_group)
        if fingerprint is not None:
            self._count(fingerprint, self._groups_cap, self.metrics.error_groups, own=False)

    def slow(self, observation: Observation, delay: Delay) -> None:
        """Count the seconds of a slow request by place; all places but the first are `_other`."""
        group, share = observation.group or observation.rule, delay.shares[delay.where]
        first = observation.duration * (1.0 if share >= ALONE else share)
        for where, seconds in (delay.where, first), (OTHER, observation.duration - first):
            if seconds:
                labels = self._slow_cap.admit((group, where), observation.own_group)
                if labels != (group, where):
                    self.worker.drops.inc()
                self.metrics.slow.labels(*labels).inc(seconds)

    def observe_queue(self, seconds: float) -> None:
        """Observe the time that a request waited in front of the application."""
        self.metrics.queue.observe(seconds)
        if self.natives is not None:
            buckets = self.natives.buckets(self.metrics.queue, {})
            with self.lock:
                counts, count = buckets[bisect_left(BOUNDS, seconds)]
                counts[count] += 1.0

    def forget(self) -> None:
        """Forget the places of the values."""
        super().forget()
        self._errors.clear()

    def begin_anew(self) -> None:
        """Forget everything."""
        super().begin_anew()
        self._errors_cap.clear()
        self._groups_cap.clear()
        self._slow_cap.clear()
        if self.natives is not None:
            self.natives.clear()

    def move(self) -> None:
        """Forget the places of the values, because this process has other files now."""
        super().move()
        if self.natives is not None:
            self.natives.move()

    def _count(self, key: LabelSet, cap: SeriesCap, family: Counter, own: bool) -> None:
        """Add one to a counter of errors; label sets of the two families never equal, by their length."""
        cell = self._errors.get(key) or self._error_cell(key, cap, family, own)
        with self.lock:
            cell.doubles[cell.index] += 1.0

    def _error_cell(self, key: LabelSet, cap: SeriesCap, family: Counter, own: bool) -> Cell:
        with self._build_lock:
            labels = cap.admit(key, own)
            if labels != key:
                self.worker.drops.inc()
            cell = self._errors.get(labels)
            if cell is None:
                cell = self._errors[labels] = self.cells.single(family.labels(*labels))
            return cell

    def _build(self, labels: LabelSet) -> Recorder:
        method, group, _, *extra = labels
        duration, total = self._common(labels)
        with self.lock:  # the slots may move to a larger memory
            slot = self.slots.entry(group)
        size_labels = method, group, *extra
        native = None
        if self.natives is not None and isinstance(self.metrics.duration, Histogram):
            names = self.metrics.shape.labels
            native = self.natives.buckets(self.metrics.duration, dict(zip(names, labels, strict=True)))
        return extended_recorder(
            self.lock,
            self.slots,
            slot,
            self.worker.tick,
            duration,
            total,
            self.cells.distribution(self.metrics.request_size.labels(*size_labels)),
            self.cells.distribution(self.metrics.response_size.labels(*size_labels)),
            native,
        )
