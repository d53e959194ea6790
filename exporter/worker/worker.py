"""What a worker process keeps beside its requests: the lock, the slots, and `flask_worker_*`.

`process_*` of prometheus_client vanish under several workers; these families are summed over them. A process
refreshes its own once a second, with the first request that it finishes in that second.
"""

from __future__ import annotations

import errno
import gc
import os
import threading
import time
import warnings
import weakref
from collections import deque
from contextlib import suppress
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values

from exporter.store.workerfile import WorkerFile
from exporter.worker import logcounter
from exporter.worker.failures import Failures
from exporter.worker.live import Live
from exporter.worker.slots import Slots

# The number of threads that serve requests, where the server's hooks have told it.
_threads = 0

_workers: weakref.WeakSet[Worker] = weakref.WeakSet()
_by_registry: weakref.WeakKeyDictionary[CollectorRegistry, Worker] = weakref.WeakKeyDictionary()


def shared_directory() -> str | None:
    """The worker directory, if prometheus_client writes there."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR") or os.environ.get(
        "prometheus_multiproc_dir"  # noqa: SIM112  the old name, which prometheus_client still takes
    )
    if directory and not values.ValueClass._multiprocess:
        warnings.warn(
            f"PROMETHEUS_MULTIPROC_DIR={directory!r} came after the first import of prometheus_client and "
            "has no effect: set it before the process starts",
            stacklevel=3,
        )
        return None
    return directory or None


def serve(threads: int) -> None:
    """Tell that this process serves requests from now on, and in how many threads: its capacity."""
    global _threads
    _threads = threads
    for worker in _workers:
        worker.start()


class _Collections:
    """The time that this process has spent in Python's garbage collector, in seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._started = 0.0

    def __call__(self, phase: str, info: dict[str, Any]) -> None:  # noqa: ARG002  the callback's signature
        if phase == "start":
            self._started = time.perf_counter()
        else:
            self.seconds += time.perf_counter() - self._started


_collections = _Collections()
gc.callbacks.append(_collections)


class Forked(Protocol):
    """Something that must forget its parent process after a fork."""

    def after_fork(self) -> None: ...


class Worker:
    """The state of this process for one registry, shared by every application on that registry."""

    def __init__(self, registry: CollectorRegistry, directory: str | None) -> None:
        self.lock = threading.Lock()
        self.ticked = -1
        self.failures = Failures(registry)
        self.forks: weakref.WeakSet[Forked] = weakref.WeakSet()
        self._directory = directory
        self._slots: Slots | None = None
        self.dropped = Counter(
            "flask_exporter_series_dropped",
            'Observations that the series cap folded into url_rule="_other" or a coarser method and status',
            registry=registry,
        )
        self._threads = Gauge(
            "flask_worker_threads",
            "Threads that serve requests",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.busy = Gauge(
            "flask_worker_threads_busy",
            "Threads that serve a request right now",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._memory = Gauge(
            "flask_worker_resident_memory_bytes",
            "Resident memory of the workers",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._cpu = Counter(
            "flask_worker_cpu_seconds", "CPU time that the workers used, user and system", registry=registry
        )
        self._gc = Counter(
            "flask_worker_gc_seconds",
            "Time that the workers spent in Python's garbage collector",
            registry=registry,
        )
        self._starts = Counter(
            "flask_worker_starts", "Worker processes that began to serve requests", registry=registry
        )
        self.log_messages = Counter(
            "flask_log_messages", "Log records, by level", ["level"], registry=registry
        )
        for level in logcounter.LEVELS:
            self.log_messages.labels(level)
        self._logged: deque[str] = deque(maxlen=100_000)
        logcounter.tell(self)
        self.scrapes = Histogram(
            "flask_exporter_scrape_seconds", "Time to merge and write one exposition", registry=registry
        )
        self.live = Live(registry)
        self._started = False
        self._cpu_counted = 0.0
        self._gc_counted = _collections.seconds
        self._refused_counted = WorkerFile.refused
        _workers.add(self)

    @staticmethod
    def of(registry: CollectorRegistry, directory: str | None) -> Worker:
        """The worker of this registry, made when first asked for."""
        found = _by_registry.get(registry)
        if found is None:
            found = _by_registry[registry] = Worker(registry, directory)
        return found

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
        self._starts.inc()
        self.tick(int(time.monotonic()))

    def tick(self, second: int) -> None:
        """Refresh the gauges and counters of this process; once a second is enough."""
        with self.lock:
            if self.ticked == second:
                return
            self.ticked = second
        try:
            self._threads.set(_threads or threading.active_count())
            self._memory.set(_resident_bytes())
            cpu = time.process_time()
            self._cpu.inc(max(cpu - self._cpu_counted, 0.0))
            self._cpu_counted = cpu
            collected = _collections.seconds
            self._gc.inc(collected - self._gc_counted)
            self._gc_counted = collected
            self.count_noted()
        except Exception as error:
            self.failures.count("instruments", error)

    def count_log(self, level: str) -> None:
        """Note a log record; it is counted at the next tick or scrape, because this may take no lock."""
        self._logged.append(level)

    def count_noted(self) -> None:
        """Count the log records that have been noted, and the writes for which the disk was too full."""
        with suppress(IndexError):
            while True:
                self.log_messages.labels(self._logged.popleft()).inc()
        refused = WorkerFile.refused - self._refused_counted
        if refused:
            self._refused_counted += refused
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._directory)
            self.failures.count("worker_file", full, refused)

    def after_fork(self) -> None:
        """Forget what belongs to the parent process; its files go on without us."""
        self.lock = threading.Lock()
        self.ticked = -1
        if self._slots is not None:
            self._slots.close()
            self._slots = None
        self._started = False
        self._logged.clear()
        self._cpu_counted = 0.0
        self._gc_counted = _collections.seconds
        self._refused_counted = WorkerFile.refused
        for one in list(self.forks):
            one.after_fork()


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:  # no Linux: the peak is the best that the standard library gives
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _after_fork() -> None:
    for worker in _workers:
        worker.after_fork()


os.register_at_fork(after_in_child=_after_fork)
