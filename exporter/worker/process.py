"""The resources of this process: threads, memory, processor time, and time in the garbage collector.

`process_*` of prometheus_client vanish under several workers; these families are summed over them.
"""

from __future__ import annotations

import gc
import math
import os
import sys
import time
import weakref
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge


class _Collections:
    """The time that this process has spent in Python's garbage collector, in seconds."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._start = 0.0

    def __call__(self, phase: str, info: dict[str, Any]) -> None:  # noqa: ARG002  the callback's signature
        if phase == "start":
            self._start = time.perf_counter()
        else:
            self.seconds += time.perf_counter() - self._start
            self._start = 0.0

    def under_way(self) -> float:
        """How long the collection under way has taken, in seconds; 0.0 if it begins only now, or is over."""
        return time.perf_counter() - self._start if self._start else 0.0


COLLECTING = _Collections.__call__.__code__
"""The code that a thread runs when the garbage collector begins or ends in it."""

collections = _Collections()
getattr(gc, "callbacks", []).append(collections)  # PyPy's collector has no callbacks


class ProcessMetrics:
    """The families `…_worker_*` of one registry."""

    def __init__(self, registry: CollectorRegistry, prefix: str = "flask_") -> None:
        self._registry = weakref.ref(registry)  # weak: the registry leads to the worker, which holds these
        self._prefix = prefix
        self._threads: Gauge | None = None
        self._memory = Gauge(
            f"{prefix}worker_resident_memory_bytes",
            "Resident memory of the workers",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._cpu = Counter(
            f"{prefix}worker_cpu_seconds",
            "CPU time that the workers used, user and system",
            registry=registry,
        )
        self._gc = Counter(
            f"{prefix}worker_gc_seconds",
            "Time that the workers spent in Python's garbage collector",
            registry=registry,
        )
        self.starts = Counter(
            f"{prefix}worker_starts", "Worker processes that began to serve requests", registry=registry
        )
        self.begin()

    def begin(self) -> None:
        """Count the use of this process from now on, without that of its parent."""
        self._cpu_total = 0.0
        self._gc_total = collections.seconds

    def refresh(self, threads: int) -> None:
        """Update the metrics; `threads` is the capacity of the process, or 0 if that is unknown.

        Then it has no series: Python knows too few threads of some servers, and too many of others.
        """
        registry = self._registry()
        if threads and registry is not None:
            if self._threads is None:
                self._threads = Gauge(
                    f"{self._prefix}worker_threads",
                    "Threads that serve requests",
                    multiprocess_mode="livesum",
                    registry=registry,
                )
            self._threads.set(threads)
        self._memory.set(_resident_bytes())
        cpu = time.process_time()
        self._cpu.inc(max(cpu - self._cpu_total, 0.0))
        self._cpu_total = cpu
        seconds = collections.seconds
        self._gc.inc(seconds - self._gc_total)
        self._gc_total = seconds


def _resident_bytes() -> float:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return _peak_bytes()


def _peak_bytes() -> float:
    """The most memory that this process has had: the best that the standard library gives without Linux."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows: it has nothing
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
