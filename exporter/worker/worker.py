"""The worker: what this process keeps beside its requests.

It refreshes its own figures once a second, with the first request that it finishes in that second.
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

# The number of threads that serve requests, where the server's hooks have told it.
_threads = 0

_by_registry: weakref.WeakKeyDictionary[CollectorRegistry, Worker] = weakref.WeakKeyDictionary()


def serve_with(threads: int) -> None:
    """Tell in how many threads this process, and each that it forks, can serve requests."""
    global _threads
    _threads = threads


def capacity() -> int:
    """In how many threads this process can serve requests; 0 where nobody has told it."""
    return _threads


def serve(threads: int) -> None:
    """Tell that this process serves requests from now on, and in how many threads."""
    serve_with(threads)
    for worker in list(_by_registry.values()):
        worker.start()


class WorkerFiles(Protocol):
    """This process's files in the worker directory."""

    def refused(self) -> int:
        """How many writes found no place."""

    def error(self) -> OSError | None:
        """Why the last of them did not."""

    def renew(self) -> bool:
        """Let the files that have been removed begin anew; whether there was one."""


class Worker:
    """The state of this process for one registry, shared by every application on that registry."""

    _slots: Slots | None = None
    _second = -1
    _started = False

    def __init__(
        self, registry: CollectorRegistry, directory: str | None, files: WorkerFiles | None = None
    ) -> None:
        """`files` tells of this process's files in the worker directory."""
        self.lock = threading.Lock()
        self.declared = Declared(registry)
        registry = cast("CollectorRegistry", self.declared)
        self.failures = Failures(registry)
        self.live = Live(self.declared)
        self.families: dict[str, Any] = {}
        """Whoever counts requests into this registry, by the prefix of the families."""
        self.dropped = Counter(
            "flask_exporter_series_dropped",
            'Observations that the series cap folded into url_rule="_other" or a coarser method and status',
            registry=registry,
        )
        self.log_messages = Counter(
            "flask_log_messages", "Log records, by level", ["level"], registry=registry
        )
        for level in logcounter.LEVELS:
            self.log_messages.labels(level)
        self.scrapes = Histogram(
            "flask_exporter_scrape_seconds", "Time to merge and write one exposition", registry=registry
        )
        self._process = ProcessMetrics(registry)
        self.recorders: weakref.WeakSet[FlightRecorder] = weakref.WeakSet()
        """Who keeps the requests of this process, one for each exporter on the registry."""
        self._busy = Busy(self.tallies)
        self.live.add(self._busy)
        self.losses = Losses(registry, directory)
        self._directory = directory
        self._files = files
        self._refused_counted = files.refused() if files else 0
        self.moves: list[Callable[[], None]] = []
        """Called when the files of this process have been removed, and others are in their place."""
        self._levels: deque[str] = deque(maxlen=100_000)
        self._noted: deque[tuple[str, BaseException]] = deque(maxlen=10_000)
        forks.forget(self)
        logcounter.tell(self)

    @staticmethod
    def of(registry: CollectorRegistry, directory: str | None, files: WorkerFiles | None = None) -> Worker:
        """The worker of this registry, made when first asked for, and anew where the registry was emptied."""
        worker = _by_registry.get(registry)
        if worker is not None and not worker.declared.complete:
            worker.declared.withdraw()
            worker = None
        if worker is None:
            worker = _by_registry[registry] = Worker(registry, directory, files)
        return worker

    def tallies(self) -> list[Tally]:
        """What each worker of the service is answering right now."""
        tallies = [tally for recorder in self.recorders if (tally := recorder.tally()) is not None]
        if self._directory is not None:
            with suppress(OSError):  # where there is no directory, there is nobody else
                tallies += inflight.tallies(self._directory)
        return tallies

    @property
    def slots(self) -> Slots:
        """This process's slots; until the directory has room for them, nobody else sees them."""
        if self._slots is None:
            try:
                self._slots = Slots(self._directory)
            except OSError as error:
                self.failures.count("slots", error)
                self._slots = Slots(None)
        return self._slots

    def start(self) -> None:
        """Count this process; only the first call in each does something."""
        with self.lock:
            if self._started:
                return
            self._started = True
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
            self.count_noted()
        except Exception as error:
            self.failures.count("instruments", error)
        try:
            self.losses.refresh()
        except Exception as error:
            self.failures.count("deaths", error)

    def count_log(self, level: str) -> None:
        """Note a log record; it is counted at the next tick or scrape, because this may take no lock."""
        self._levels.append(level)

    def note(self, stage: str, error: BaseException) -> None:
        """Note a failure in a place that may take no lock; it is counted as log records are."""
        self._noted.append((stage, error))

    def count_noted(self) -> None:
        """Count the log records and failures that have been noted, and the writes that found no place."""
        with suppress(IndexError):
            while True:
                self.log_messages.labels(self._levels.popleft()).inc()
        with suppress(IndexError):
            while True:
                self.failures.count(*self._noted.popleft())
        if self._files is None:
            return
        refused = self._files.refused() - self._refused_counted
        if refused:
            self._refused_counted += refused
            self.failures.count("worker_file", self._files.error() or OSError(), refused)

    def _settle(self) -> None:
        """Begin anew in the directory where something of this process has been removed from it.

        The lock keeps recorders from writing what is about to be copied.
        """
        removed = False
        if self._directory is not None and self._files is not None:
            removed = self._settle_files(self._directory, self._files)
        for recorder in list(self.recorders):
            recorder.settle(removed)

    def _settle_files(self, directory: str, files: WorkerFiles) -> bool:
        """Whether some of them had been removed."""
        with self.lock:
            removed = files.renew()
            if self._slots is not None and (removed or not self._slots.shared):
                with suppress(OSError):
                    self._slots.move(directory)
            if removed:
                for move in self.moves:
                    move()
        return removed

    def after_fork(self) -> None:
        """Forget what belongs to the parent process; its files go on without us."""
        self.lock = threading.Lock()
        self._second = -1
        self._started = False
        self._levels.clear()
        self._noted.clear()
        if self._slots is not None:
            self._slots.close()
            self._slots = None
        self._refused_counted = self._files.refused() if self._files else 0
        self._process.begin()
