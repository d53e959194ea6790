"""Every metric family of a request, under one lock, and the recorders of their label sets."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from mmap import mmap
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

from exporter.labels import SeriesCap
from exporter.measure.cells import Cell, Distribution, Doubles, restore
from exporter.measure.recorder import (
    SIZE_BUCKETS,
    Recorder,
    counter_in_progress,
    full_recorder,
    parents_recorder,
)
from exporter.worker.live import Extremes
from exporter.worker.slots import Slots
from exporter.worker.worker import Worker

if TYPE_CHECKING:
    from exporter.measure.exchange import Exchange


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
        self.count_in_progress: Callable[[float], None] = lambda change: None  # noqa: ARG005
        """1.0 where a request came in, -1.0 where one ended that is not recorded."""
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
        self.extremes = Extremes(lambda: worker.slots, f"{prefix}http_request_duration", group)

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
            self.gauges = cell.doubles, cell.index, [0.0], 0
        self.count_in_progress = counter_in_progress(self.lock, *self.gauges)
        self.ready = True

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
            restore(child)
        for kept in (self.recorders, self._folded, self._errors_cells, self._children, self._views):
            kept.clear()

    def _build(self, labels: tuple[str, ...]) -> Recorder:
        method, group, status, *extra = labels
        counter = self._total.labels(*self._total_cap.admit((method, status, *extra), known=True))
        counter._value = total = self._cells(counter, [counter._value])[0]
        duration = self._distribution(self._duration.labels(*labels))
        if not self.extended:
            return parents_recorder(self.lock, duration, total)
        with self.lock:  # the slots may move to a larger place
            slot = self.slots.entry(group)
        sized = method, group, *extra
        return full_recorder(
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
        return Distribution(cells[0].doubles, cells[0].index, tuple(cell.index for cell in cells[1:]), bounds)

    def _cells(self, child: Any, values: list[Any]) -> list[Cell]:
        """Cells in the place of this child's values."""
        if isinstance(values[0], Cell):
            return values
        if not values[0]._multiprocess:
            doubles = [value.get() for value in values]
            cells = [Cell(value, doubles, index) for index, value in enumerate(values)]
        else:
            cells = self._cells_in_file(values)
        self._children.append(child)
        return cells

    def _cells_in_file(self, values: list[Any]) -> list[Cell]:
        """Cells in this process's worker file; raises OSError where it has no place for the values."""
        for value in values:
            value.get()  # the first call after a fork opens this process's own files
        file = values[0]._file  # the same for all of them; it may have grown for the last one
        if not all(value._key in file._positions for value in values):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file._fname)
        view = self._views.get(file._m)
        if view is None:
            view = self._views[file._m] = memoryview(file._m).cast("d")
        return [Cell(value, view, file._positions[value._key] >> 3) for value in values]
