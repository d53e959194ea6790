"""The worker: what this process keeps beside its requests.

It refreshes its own figures once a second, with the first request that it finishes in that second.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from prometheus_client import CollectorRegistry, Counter, Histogram

from exporter import forks
from exporter.worker import logcounter
from exporter.worker.declared import Declared
from exporter.worker.failures import Failures
from exporter.worker.live import Live
from exporter.worker.process import ProcessMetrics
from exporter.worker.slots import Slots

# The number of threads that serve requests, where the server's hooks have told it.
_threads = 0

_by_registry: weakref.WeakKeyDictionary[CollectorRegistry, Worker] = weakref.WeakKeyDictionary()


def serve_with(threads: int) -> None:
    """Tell in how many threads this process, and each that it forks, can serve requests."""
    global _threads
    _threads = threads


def serve(threads: int) -> None:
    """Tell that this process serves requests from now on, and in how many threads."""
    serve_with(threads)
    for worker in list(_by_registry.values()):
        worker.start()


class Worker:
    """The state of this process for one registry, shared by every application on that registry."""

    def __init__(
        self, registry: CollectorRegistry, directory: str | None, refused: Callable[[], int] = int
    ) -> None:
        """`refused` gives the number of this process's writes for which the worker directory was too full."""
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
        self._directory = directory
        self._refused = refused
        self._refused_counted = refused()
        self._slots: Slots | None = None
        self._second = -1
        self._started = False
        self._levels: deque[str] = deque(maxlen=100_000)
        forks.forget(self)
        logcounter.tell(self)

    @staticmethod
    def of(registry: CollectorRegistry, directory: str | None, refused: Callable[[], int] = int) -> Worker:
        """The worker of this registry, made when first asked for, and anew where the registry was emptied."""
        worker = _by_registry.get(registry)
        if worker is not None and not worker.declared.complete:
            worker.declared.withdraw()
            worker = None
        if worker is None:
            worker = _by_registry[registry] = Worker(registry, directory, refused)
        return worker

    @property
    def busy(self) -> Any:
        """The gauge of the threads that serve a request right now."""
        return self._process.busy

    @property
    def slots(self) -> Slots:
        """This process's slots; where the directory has no room for them, nobody else sees them."""
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
            self._process.refresh(_threads)
            self.count_noted()
        except Exception as error:
            self.failures.count("instruments", error)

    def count_log(self, level: str) -> None:
        """Note a log record; it is counted at the next tick or scrape, because this may take no lock."""
        self._levels.append(level)

    def count_noted(self) -> None:
        """Count the log records that have been noted, and the writes for which the disk was too full."""
        with suppress(IndexError):
            while True:
                self.log_messages.labels(self._levels.popleft()).inc()
        refused = self._refused() - self._refused_counted
        if refused:
            self._refused_counted += refused
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._directory)
            self.failures.count("worker_file", full, refused)

    def after_fork(self) -> None:
        """Forget what belongs to the parent process; its files go on without us."""
        self.lock = threading.Lock()
        self._second = -1
        self._started = False
        self._levels.clear()
        if self._slots is not None:
            self._slots.close()
            self._slots = None
        self._refused_counted = self._refused()
        self._process.begin()
