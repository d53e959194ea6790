"""The worker: the state of this process for one registry.

It refreshes its figures once a second, at the end of the first request of that second.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, cast

from prometheus_client import CollectorRegistry, Counter, Histogram

from exporter import forks
from exporter.worker import inflight, logcounter
from exporter.worker.declared import Declared
from exporter.worker.failures import Failures
from exporter.worker.flightrecorder import FlightRecorder
from exporter.worker.inflight import Busy, Tally
from exporter.worker.live import Live
from exporter.worker.losses import Losses
from exporter.worker.process import ProcessMetrics
from exporter.worker.slots import Slots

# The number of threads that serve requests, if the server's hooks have told it.
_threads = 0

_by_registry: weakref.WeakKeyDictionary[CollectorRegistry, Worker] = weakref.WeakKeyDictionary()


def serve_with(threads: int) -> None:
    """Set the number of threads in which this process, and each child, serves requests."""
    global _threads
    _threads = threads


def capacity() -> int:
    """The number of threads in which this process serves requests; 0 if it is unknown."""
    return _threads


def serve(threads: int) -> None:
    """Count this process as a worker from now on, with this number of threads."""
    serve_with(threads)
    for worker in list(_by_registry.values()):
        worker.start()


class WorkerFiles(Protocol):
    """This process's files in the worker directory."""

    def refusals(self) -> int:
        """The number of writes without a place."""

    def error(self) -> OSError | None:
        """The error of the last of them."""

    def renew(self) -> bool:
        """Begin a new file for each removed one; True if there was one."""


class Worker:
    """The state of this process for one registry, shared by every application on that registry."""

    _slots: Slots | None = None
    _second = -1
    _has_started = False

    def __init__(
        self,
        registry: CollectorRegistry,
        directory: str | None,
        files: WorkerFiles | None = None,
        prefix: str = "flask_",
    ) -> None:
        """`files` are those of this process in the worker directory; `prefix` begins all metric names."""
        self.lock = threading.Lock()
        self.declared = Declared(registry)
        registry = cast("CollectorRegistry", self.declared)
        self.failures = Failures(registry, prefix)
        self.live = Live(self.declared)
        self.instruments: dict[str, Any] = {}
        """The instruments of this registry, by the prefix of their families."""
        self.drops = Counter(
            f"{prefix}exporter_series_dropped",
            'Observations that the series cap folded into url_rule="_other" or a coarser method and status',
            registry=registry,
        )
        self.log_messages = logcounter.family(registry, prefix)
        self.scrapes = Histogram(
            f"{prefix}exporter_scrape_seconds", "Time to merge and write one exposition", registry=registry
        )
        self._process = ProcessMetrics(registry, prefix)
        self.flight_recorders: weakref.WeakSet[FlightRecorder] = weakref.WeakSet()
        """One for each exporter on the registry."""
        self._busy = Busy(self.tallies, prefix)
        self.live.add(self._busy)
        self.losses = Losses(registry, directory, prefix)
        self._directory = directory
        self._files = files
        self._refusals = files.refusals() if files else 0
        self.moves: list[Callable[[], None]] = []
        """Called after other files have taken the place of removed files of this process."""
        self._levels: deque[str] = deque(maxlen=100_000)
        self._notes: deque[tuple[str, BaseException]] = deque(maxlen=10_000)
        forks.forget(self)
        logcounter.tell(self)

    @staticmethod
    def of(
        registry: CollectorRegistry,
        directory: str | None,
        files: WorkerFiles | None = None,
        prefix: str = "flask_",
    ) -> Worker:
        """The worker of this registry; a new one at the first call, and after the registry was emptied."""
        worker = _by_registry.get(registry)
        if worker is not None and not worker.declared.complete:
            worker.declared.withdraw()
            worker = None
        if worker is None:
            worker = _by_registry[registry] = Worker(registry, directory, files, prefix)
        return worker

    def tallies(self) -> list[Tally]:
        """The tallies of all workers of the service."""
        tallies = [tally for flight in self.flight_recorders if (tally := flight.tally()) is not None]
        if self._directory is not None:
            with suppress(OSError):  # without the directory there are no other workers
                tallies += inflight.tallies(self._directory)
        return tallies

    @property
    def slots(self) -> Slots:
        """The slots of this process; without room in the directory, other workers do not see them."""
        if self._slots is None:
            try:
                self._slots = Slots(self._directory)
            except OSError as error:
                self.failures.count("slots", error)
                self._slots = Slots(None)
        return self._slots

    def start(self) -> None:
        """Count this process as a worker, at the first call in it."""
        with self.lock:
            if self._has_started:
                return
            self._has_started = True
        self._process.starts.inc()
        self.tick(int(time.monotonic()))

    def tick(self, second: int) -> None:
        """Refresh the gauges and counters of this process; once a second is enough."""
        with self.lock:
            if self._second == second:
                return
            self._second = second
        try:
            self._settle()
            self._process.refresh(_threads)
            self.count_notes()
        except Exception as error:
            self.failures.count("instruments", error)
        try:
            self.losses.refresh()
        except Exception as error:
            self.failures.count("deaths", error)

    def count_log(self, level: str) -> None:
        """Note a log record, without a lock; the next tick or scrape counts it."""
        self._levels.append(level)

    def note(self, stage: str, error: BaseException) -> None:
        """Note a failure, without a lock; the next tick or scrape counts it."""
        self._notes.append((stage, error))

    def count_notes(self) -> None:
        """Count the log records and failures of the notes, and the writes without a place."""
        with suppress(IndexError):
            while True:
                self.log_messages.labels(self._levels.popleft()).inc()
        with suppress(IndexError):
            while True:
                self.failures.count(*self._notes.popleft())
        if self._files is None:
            return
        refusals = self._files.refusals() - self._refusals
        if refusals:
            self._refusals += refusals
            self.failures.count("worker_file", self._files.error() or OSError(), refusals)

    def _settle(self) -> None:
        """Replace files of this process that have been removed from the directory."""
        removal = False
        if self._directory is not None and self._files is not None:
            removal = self._settle_files(self._directory, self._files)
        for flight in list(self.flight_recorders):
            flight.settle(removal)

    def _settle_files(self, directory: str, files: WorkerFiles) -> bool:
        """Replace the files, and tell whether any had been removed."""
        with self.lock:  # no recorder writes during the copy
            removal = files.renew()
            if self._slots is not None and (removal or not self._slots.is_shared):
                with suppress(OSError):
                    self._slots.move(directory)
            if removal:
                for move in self.moves:
                    move()
        return removal

    def after_fork(self) -> None:
        """Forget the state of the parent process, which still writes its files."""
        self.lock = threading.Lock()
        self._second = -1
        self._has_started = False
        self._levels.clear()
        self._notes.clear()
        if self._slots is not None:
            self._slots.close()
            self._slots = None
        self._refusals = self._files.refusals() if self._files else 0
        self._process.begin()
