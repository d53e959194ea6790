"""Every metric family of a request, and the recorder of one label set.

prometheus_client takes a lock, checks the process id and packs bytes for each value, and a request touches
nine of them. A recorder knows where its values lie, as doubles in an array or in the mapped worker file, and
adds to all of them under one lock.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from mmap import mmap
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.labels import SeriesCap
from exporter.slots import SLOT, WINDOW, Slots
from exporter.workers import Worker

if TYPE_CHECKING:
    from exporter.middleware import Exchange

# Sizes span from an empty answer to an upload: one bucket a power of ten is what a person asks for.
SIZE_BUCKETS = (1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)

Doubles = Any  # array[float] | memoryview: what `doubles[index] += amount` works on


class Cell:
    """Stands in for a value of prometheus_client, which then reads what a recorder adds."""

    __slots__ = ("doubles", "index", "origin")

    _multiprocess = False

    def __init__(self, origin: Any, doubles: Doubles, index: int) -> None:
        self.origin = origin
        self.doubles = doubles
        self.index = index

    def get(self) -> float:
        return float(self.doubles[self.index])

    def inc(self, amount: float) -> None:
        self.doubles[self.index] += amount

    def set(self, value: float, timestamp: float | None = None) -> None:  # noqa: ARG002  prometheus_client's signature
        self.doubles[self.index] = value

    def get_exemplar(self) -> None:
        """Exemplars come from the flight recorder, for all workers alike."""


class Distribution(NamedTuple):
    """Where a histogram's or summary's child keeps its sum and its buckets."""

    sums: Doubles
    sum_at: int
    buckets: tuple[tuple[Doubles, int], ...]
    bounds: tuple[float, ...]


Recorder = Callable[["Exchange", float], None]
"""Adds one finished exchange, whose end on the monotonic clock is given in seconds, to every family."""


def _parents_recorder(lock: threading.Lock, duration: Distribution, total: Cell) -> Recorder:
    """A recorder of prometheus_flask_exporter's families alone.

    Closures, and every addition written out: a method for each, on an object, took 1 µs more.
    """
    sums, sum_at, buckets, bounds = duration
    totals, total_at = total.doubles, total.index

    def record(exchange: Exchange, now: float) -> None:  # noqa: ARG001  a Recorder
        amount = exchange.duration
        with lock:
            sums[sum_at] += amount
            doubles, index = buckets[bisect_left(bounds, amount)]
            doubles[index] += 1.0
            totals[total_at] += 1.0

    return record


def _full_recorder(
    instruments: Instruments,
    duration: Distribution,
    total: Cell,
    request_size: Distribution,
    response_size: Distribution,
    slot: int,
) -> Recorder:
    """A recorder of all families; `slot` is where the group's one-second slots begin."""
    lock = instruments.lock
    slots = instruments.slots
    worker = instruments.worker
    sums, sum_at, buckets, bounds = duration
    totals, total_at = total.doubles, total.index
    in_progress, in_progress_at, busy, busy_at = instruments.gauges
    requests, request_at, request_buckets, _ = request_size
    responses, response_at, response_buckets, _ = response_size
    smallest, smallest_at = request_buckets[0]

    def record(exchange: Exchange, now: float) -> None:
        amount = exchange.duration
        length = exchange.environ.get("CONTENT_LENGTH")
        if length and length.isdecimal():
            # A length is the client's word; more than a terabyte would only blur the sum.
            exchange.request_size = min(int(length[:16]), 1 << 40)
        size = exchange.response_size
        second = int(now)
        with lock:
            in_progress[in_progress_at] -= 1.0
            busy[busy_at] -= 1.0
            sums[sum_at] += amount
            doubles, index = buckets[bisect_left(bounds, amount)]
            doubles[index] += 1.0
            totals[total_at] += 1.0
            responses[response_at] += size
            doubles, index = response_buckets[bisect_left(SIZE_BUCKETS, size)]
            doubles[index] += 1.0
            if exchange.request_size:
                size = exchange.request_size
                requests[request_at] += size
                doubles, index = request_buckets[bisect_left(SIZE_BUCKETS, size)]
                doubles[index] += 1.0
            else:
                smallest[smallest_at] += 1.0
            doubles = slots.view
            index = slot + SLOT * (second % WINDOW)
            fresh = doubles[index] != second
            if fresh:
                # The second comes last: until then readers see a slot of a minute ago.
                doubles[index + 1] = doubles[index + 2] = amount
                doubles[index + 3] = 1.0
                doubles[index + 4] = 0.0
                doubles[index] = second
            else:
                doubles[index + 3] += 1.0
                if amount > doubles[index + 2]:
                    doubles[index + 2] = amount
                elif amount < doubles[index + 1]:
                    doubles[index + 1] = amount
            if exchange.failed:
                doubles[index + 4] += 1.0
        if fresh:
            worker.tick(second)

    return record


class Instruments:
    """The families of one prefix on one registry, and the recorders of their label sets."""

    def __init__(
        self,
        worker: Worker,
        registry: CollectorRegistry,
        *,
        prefix: str,
        group: str,
        extra: tuple[str, ...],
        buckets: Sequence[float],
        as_histogram: bool,
        extended: bool,
        max_series: int,
        first: bool,
    ) -> None:
        """`group` names the label that requests are grouped by, `extra` the default labels.

        Where these are not the `first` families of an application, its requests are in the worker's slots and
        busy threads already.
        """
        self.worker = worker
        self.shape = (group, extra)
        self.extended = extended
        self.lock = worker.lock
        self.slots: Slots
        self._first = first
        self.ready = False
        self.recorders: dict[tuple[str, ...], Recorder] = {}
        self._folded: dict[tuple[str, ...], Recorder] = {}
        self._errors_cells: dict[tuple[str, ...], Cell] = {}
        self._children: list[Any] = []
        self._views: dict[mmap, Doubles] = {}
        self._building = threading.RLock()
        labels = ("method", group, "status", *extra)
        self._duration_cap = SeriesCap(max_series, group=1, status=2)
        self._total_cap = SeriesCap(max_series, group=None, status=1)
        self._errors_cap = SeriesCap(max_series, group=1, status=2)
        options: dict[str, Any] = {"registry": registry}
        duration = f"{prefix}http_request_duration_seconds", "Flask HTTP request duration in seconds", labels
        self._duration: Histogram | Summary = (
            Histogram(*duration, buckets=buckets, **options)
            if as_histogram
            else Summary(*duration, **options)
        )
        self._total = Counter(
            f"{prefix}http_request_total",
            "Total number of HTTP requests",
            ("method", "status", *extra),
            **options,
        )
        self._exceptions = Counter(
            f"{prefix}http_request_exceptions_total",
            "Total number of HTTP requests which resulted in an exception",
            ("method", "status", *extra),
            **options,
        )
        worker.forks.add(self)
        if not extended:
            return
        self._errors = Counter(
            f"{prefix}http_request_errors_total",
            "Responses of 400 or more and exceptions, handled or not, by the error's type",
            ("method", group, "status", "error_type", *extra),
            **options,
        )
        self._in_progress = Gauge(
            f"{prefix}http_requests_in_progress",
            "Requests that are being answered right now",
            multiprocess_mode="livesum",
            **options,
        )
        self._request_size = Histogram(
            f"{prefix}http_request_size_bytes",
            "Size of request bodies",
            ("method", group, *extra),
            buckets=SIZE_BUCKETS,
            **options,
        )
        self._response_size = Histogram(
            f"{prefix}http_response_size_bytes",
            "Size of response bodies",
            ("method", group, *extra),
            buckets=SIZE_BUCKETS,
            **options,
        )
        self._queue = Histogram(
            f"{prefix}http_request_queue_seconds",
            "Time from a declared proxy's X-Request-Start until the application took the request",
            buckets=buckets,
            **options,
        )
        self._disconnects = Counter(
            f"{prefix}http_client_disconnects_total",
            "Responses that the client or server gave up before the body had been handed over",
            (group,),
            **options,
        )
        self.extremes = Extremes(worker, f"{prefix}http_request_duration", group)

    def begin(self) -> None:
        """Make ready in this process: before its first request, and again after a fork."""
        if self.ready or not self.extended:
            return
        gauge, threads = self._in_progress, self.worker.busy
        gauge._value = cell = self._cells(gauge, [gauge._value])[0]
        if self._first:
            self.slots = self.worker.slots
            threads._value = busy = self._cells(threads, [threads._value])[0]
            self.gauges = cell.doubles, cell.index, busy.doubles, busy.index
        else:
            self.slots = Slots(None)
            self.gauges = cell.doubles, cell.index, array("d", [0.0]), 0
        self.ready = True

    def enter(self) -> None:
        """A request came in; only with the extended families."""
        with self.lock:
            in_progress, in_progress_at, busy, busy_at = self.gauges
            in_progress[in_progress_at] += 1.0
            busy[busy_at] += 1.0

    def leave(self) -> None:
        """A request that came in has been answered."""
        if not self.extended:
            return
        with self.lock:
            in_progress, in_progress_at, busy, busy_at = self.gauges
            in_progress[in_progress_at] -= 1.0
            busy[busy_at] -= 1.0

    def recorder(self, key: tuple[str, ...], known: bool) -> Recorder:
        """The recorder of the label set (method, group, status, …); a coarser one above the series cap.

        `known` says whether the group is the application's own and not a client's invention.
        """
        with self._building:
            found = self.recorders.get(key)
            if found is not None:
                return found
            labels = self._duration_cap.admit(key, known)
            if labels == key:
                made = self.recorders[key] = self._build(labels)
                return made
            self.worker.dropped.inc()
            found = self._folded.get(labels)
            if found is None:
                found = self._folded[labels] = self._build(labels)
            return found

    def error(self, exchange: Exchange, group: str) -> None:
        """Count what went wrong with a recorded exchange: an error, an exception, a client that left."""
        method, status = exchange.method, exchange.code
        if exchange.exception is not None:
            # The status is 500, as in prometheus_flask_exporter, also where the body broke after a 200.
            labels = self._total_cap.admit((method, "500", *exchange.extra), known=True)
            self._exceptions.labels(*labels).inc()
        if not self.extended:
            return
        if exchange.disconnected:
            group_label = self._duration_cap.admit((method, group, status, *exchange.extra), exchange.known)[
                1
            ]
            self._disconnects.labels(group_label).inc()
        if exchange.error_type:
            key = (method, group, status, exchange.error_type, *exchange.extra)
            cell = self._errors_cells.get(key) or self._errors_cell(key, exchange.known)
            with self.lock:
                cell.doubles[cell.index] += 1.0

    def _errors_cell(self, key: tuple[str, ...], known: bool) -> Cell:
        with self._building:
            labels = self._errors_cap.admit(key, known)
            if labels != key:
                self.worker.dropped.inc()
            cell = self._errors_cells.get(labels)
            if cell is None:
                child: Any = self._errors.labels(*labels)
                child._value = cell = self._errors_cells[labels] = self._cells(child, [child._value])[0]
            return cell

    def queued(self, seconds: float) -> None:
        """Observe the time that a request waited in front of the application."""
        self._queue.observe(seconds)

    def prime(self, rules: Iterable[tuple[str, str]]) -> None:
        """Let the series of these (method, rule) exist at 0, so that `increase()` sees a first burst.

        Half of the cap stays free for what really happens.
        """
        for method, rule in rules:
            for status in ("200", "500"):
                if 2 * len(self.recorders) >= self._duration_cap.limit:
                    return
                self.recorder((method, rule, status), known=True)

    def after_fork(self) -> None:
        """Forget where the parent process keeps its values."""
        self.lock = self.worker.lock
        self._building = threading.RLock()
        self.ready = False
        for child in self._children:
            _restore(child)
        for kept in (self.recorders, self._folded, self._errors_cells, self._children, self._views):
            kept.clear()

    def _build(self, labels: tuple[str, ...]) -> Recorder:
        method, group, status, *extra = labels
        counter = self._total.labels(*self._total_cap.admit((method, status, *extra), known=True))
        counter._value = total = self._cells(counter, [counter._value])[0]
        duration = self._distribution(self._duration.labels(*labels))
        if not self.extended:
            return _parents_recorder(self.lock, duration, total)
        with self.lock:  # the slots may move to a larger place
            slot = self.slots.entry(group)
        sized = method, group, *extra
        return _full_recorder(
            self,
            duration,
            total,
            self._distribution(self._request_size.labels(*sized)),
            self._distribution(self._response_size.labels(*sized)),
            slot,
        )

    def _distribution(self, child: Any) -> Distribution:
        if isinstance(child, Histogram):
            child._sum, *child._buckets = cells = self._cells(child, [child._sum, *child._buckets])
            bounds = tuple(child._upper_bounds[:-1])
        else:
            child._sum, child._count = cells = self._cells(child, [child._sum, child._count])
            bounds = ()
        counts = tuple((cell.doubles, cell.index) for cell in cells[1:])
        return Distribution(cells[0].doubles, cells[0].index, counts, bounds)

    def _cells(self, child: Any, values: list[Any]) -> list[Cell]:
        """Cells in the place of this child's values."""
        if isinstance(values[0], Cell):
            return values
        if not values[0]._multiprocess:
            doubles = array("d", [value.get() for value in values])
            cells = [Cell(value, doubles, index) for index, value in enumerate(values)]
        else:
            cells = [self._cell(value) for value in values]
        self._children.append(child)
        return cells

    def _cell(self, value: Any) -> Cell:
        """A cell in this process's worker file; raises OSError where it has no place for the value."""
        value.get()  # the first call after a fork opens this process's own files
        file = value._file
        position = file._positions.get(value._key)
        if position is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file._fname)
        view = self._views.get(file._m)
        if view is None:
            view = self._views[file._m] = memoryview(file._m).cast("d")
        return Cell(value, view, position >> 3)


class Extremes(Collector):
    """Exact minimum and maximum of the last minute, computed from all workers' slots at a scrape."""

    def __init__(self, worker: Worker, name: str, group: str) -> None:
        self._worker = worker
        self._name = name
        self._group = group

    def describe(self) -> Iterable[Metric]:
        """The two families, without samples."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        """The two families, in seconds, with a sample for each group that was seen in the last minute."""
        shortest, longest = families = self._families()
        for group, (low, high) in self._worker.slots.extremes(time.monotonic()).items():
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


def _restore(child: Any) -> None:
    """Give a child prometheus_client's own values back."""
    for name in ("_value", "_sum", "_count"):
        if hasattr(child, name):
            setattr(child, name, _origin(getattr(child, name)))
    if hasattr(child, "_buckets"):
        child._buckets = [_origin(value) for value in child._buckets]


def _origin(value: Any) -> Any:
    if not isinstance(value, Cell):
        return value
    if not value.origin._multiprocess:
        value.origin.set(value.get())
    return value.origin
