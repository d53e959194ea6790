"""Sampler: it looks at the threads of long requests, and notes the spot of each.

One thread of the process wakes 20 times a second and samples the requests that are older than 0.1 s, so a
slow request has several samples. This costs a busy worker 0.2 % of its processor time, and a fast request
nothing.
"""

from __future__ import annotations

import _thread
import atexit
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter
from types import FrameType
from typing import Any, Protocol
from weakref import WeakSet

from exporter import forks, posix
from exporter.places import Places
from exporter.worker.samples import Samples, unsampled_seconds
from exporter.worker.spots import Spot, Spots
from exporter.worker.stackring import StackRing
from exporter.worker.stacks import calls

TICK = 0.05
IDLE_TICK = 0.25
AGE = 0.1
"""The age in seconds from which a request is sampled."""
WALKS = 64
"""The most samples of a tick, because thousands of greenlets may wait at once."""

_IDLE_TICKS = 20
_LATE = 0.1
"""A tick that is late by so many seconds had to wait for a thread that held the interpreter."""
# The longest that the end of an interpreter waits for its thread (s).
_END = 1.0


class LiveRequest(Protocol):
    """A request in progress."""

    started: float
    """Seconds of the monotonic clock."""
    thread: Any
    """The ident of the thread that answers it, or its greenlet."""
    recorded: bool
    samples: Samples | None


class Sampler:
    """Takes samples of the requests of one flight recorder."""

    def __init__(
        self,
        live: Callable[[], Sequence[LiveRequest | None]],
        places: Places,
        on_failure: Callable[[BaseException], None],
        stacks: StackRing,
    ) -> None:
        """`live` gives the requests in progress; `on_failure` receives each error and may take no lock.

        `stacks` receives the stack of each sample, for other workers to read.
        """
        self._live = live
        self._spots = Spots(places)
        self._on_failure = on_failure
        self._stacks = stacks
        self._next = 0

    def start(self) -> None:
        """Sample the requests of this process from now on."""
        try:
            _clock.start(self)
        except RuntimeError as error:  # the system has no thread to give
            self._on_failure(error)

    def look(self, now: float) -> bool:
        """Take a sample of every long request, and tell whether there is any request."""
        requests = list(filter(None, self._live()))
        old = [request for request in requests if now - request.started >= AGE]
        due = [request for request in self._batch(old) if _is_due(request, now)]
        if due:
            self._stacks.free({request.started for request in old})
            frames = sys._current_frames()
            for request in due:
                try:
                    self._sample(request, frames, now)
                except Exception as error:
                    self._on_failure(error)
            frames.clear()  # breaks a reference cycle, because this frame is one of them
        return bool(requests)

    def seconds(self, request: LiveRequest, duration: float) -> dict[Spot, float]:
        """The seconds of an answered request by spot."""
        if request.samples is not None:
            return request.samples.total(duration)
        return unsampled_seconds(
            duration, is_blocked=_clock.was_late(request.started, request.started + duration)
        )

    def _batch(self, old: list[LiveRequest]) -> list[LiveRequest]:
        """The requests for one tick, at most `WALKS`; each request has its turn."""
        if len(old) <= WALKS:
            return old
        first = self._next % len(old)
        self._next = first + WALKS
        return (old[first:] + old[:first])[:WALKS]

    def _sample(self, request: LiveRequest, frames: dict[int, FrameType], now: float) -> None:
        if request.recorded:  # its thread may answer another request
            return
        frame = _frame(request.thread, frames)
        spot = self._spots.of(frame)
        if request.samples is None:
            request.samples = Samples(request.started)
        request.samples.add(spot, now)
        if self._stacks.is_due(request.started, now) and (lines := calls(frame)):
            self._stacks.write(request.started, lines, now)


def _is_due(request: LiveRequest, now: float) -> bool:
    return not request.recorded and (request.samples is None or request.samples.is_due(now))


def _frame(thread: Any, frames: dict[int, FrameType]) -> FrameType | None:
    if isinstance(thread, int):
        return frames.get(thread)
    frame: FrameType | None = thread.gr_frame
    # A running greenlet has no frame of its own; its frame is that of its hub's thread.
    return frame or frames.get(getattr(thread.parent, "thread_ident", 0))


class _Clock:
    """The thread that wakes the samplers of this process.

    It is a real thread under gevent, too, because a greenlet cannot watch another that never yields.
    """

    _locks: tuple[Any, Any] | None = None
    """The first one is released to end the thread, the second one by the thread at its end."""
    _is_running: bool

    def __init__(self) -> None:
        self._samplers: WeakSet[Sampler] = WeakSet()
        self._start_lock = forks.Lock()
        self.after_fork()
        forks.forget(self)

    def start(self, sampler: Sampler) -> None:
        """Wake this sampler from now on; the reference to it is weak."""
        with self._start_lock:
            self._samplers.add(sampler)
            if not self._is_running:
                self._is_running = True
                allocate_lock: Callable[[], Any] = _original("allocate_lock")
                start_new_thread: Callable[..., Any] = _original("start_new_thread")
                locks = allocate_lock(), allocate_lock()
                for lock in locks:
                    lock.acquire()
                start_new_thread(self._run, locks)
                self._locks = locks

    def stop(self, *_: object, **__: object) -> None:
        """End the thread, and wait for that: a sub-interpreter that leaves one behind crashes the process."""
        locks, self._locks = self._locks, None
        if locks is not None:
            wake, end = locks
            wake.release()
            end.acquire(timeout=_END)

    def was_late(self, started: float, now: float) -> bool:
        """Whether a tick between these two times was late, or is late now."""
        late = any(due < now and wake > started for due, wake in list(self._late_ticks))
        return late or now - self._due > _LATE

    def after_fork(self) -> None:
        """Begin without a thread, because a fork copies only the thread that forks."""
        self._is_running = False
        self._locks = None
        self._due = float("inf")
        self._late_ticks: deque[tuple[float, float]] = deque(maxlen=16)
        self._samplers.clear()

    def _run(self, wake: Any, end: Any) -> None:
        posix.leave_signals()
        idle = 0
        while True:
            seconds = IDLE_TICK if idle >= _IDLE_TICKS else TICK
            self._due = due = perf_counter() + seconds
            if wake.acquire(timeout=seconds):
                break
            now = perf_counter()
            if now - due > _LATE:
                self._late_ticks.append((due, now))
            with suppress(Exception):  # such as a new sampler in the same moment; the next tick comes soon
                idle = 0 if [sampler for sampler in self._samplers if sampler.look(now)] else idle + 1
        self._due = float("inf")
        end.release()


def _original(name: str) -> Any:
    """The function that `_thread` had before gevent patched it."""
    monkey = sys.modules.get("gevent.monkey")
    return getattr(_thread, name) if monkey is None else monkey.get_original("_thread", name)


_clock = _Clock()
atexit.register(_clock.stop)
if hasattr(sys.modules.get("mod_wsgi"), "subscribe_shutdown"):  # it forgets all threads before `atexit`
    sys.modules["mod_wsgi"].subscribe_shutdown(_clock.stop)
