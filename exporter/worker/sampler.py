"""Sampler: looks at the threads of requests that take long, and notes where they stand.

One thread for the process wakes 20 times a second, which costs a busy worker 0.2 % of its processor time, and
requests that are answered at once nothing. It looks at what is older than 0.1 s, so a request that is slow
has been seen several times.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import perf_counter
from types import FrameType
from typing import Any, Protocol
from weakref import WeakSet

from exporter import forks
from exporter.places import Places
from exporter.worker.samples import Samples, unseen
from exporter.worker.spots import Spot, Spots

TICK = 0.05
IDLE_TICK = 0.25
AGE = 0.1
"""Seconds after which a request is looked at."""
WALKS = 64
"""Stacks that are walked in a tick: thousands of greenlets may wait at once."""

_IDLE_TICKS = 20
_LATE = 0.1
"""Seconds by which a tick is late if another thread has kept the interpreter for itself."""


class Watched(Protocol):
    """A request in progress."""

    started: float
    """Seconds of the monotonic clock."""
    thread: Any
    """The ident of the thread that answers it, or its greenlet."""
    recorded: bool
    samples: Samples | None


class Sampler:
    """Takes samples of the requests that one flight recorder has."""

    def __init__(
        self,
        live: Callable[[], Sequence[Watched | None]],
        places: Places,
        failed: Callable[[BaseException], None],
    ) -> None:
        """`live` gives the requests in progress; `failed` is told of errors and may take no lock."""
        self._live = live
        self._spots = Spots(places)
        self._failed = failed
        self._turn = 0

    def start(self) -> None:
        """Look at the requests of this process from now on."""
        try:
            _clock.start(self)
        except RuntimeError as error:  # no thread can be had
            self._failed(error)

    def look(self, now: float) -> bool:
        """Take a sample of every request that takes long; whether there is any request."""
        requests = list(filter(None, self._live()))
        old = [request for request in requests if now - request.started >= AGE]
        due = [request for request in self._next(old) if _is_due(request, now)]
        if due:
            frames = sys._current_frames()
            for request in due:
                try:
                    self._sample(request, frames, now)
                except Exception as error:
                    self._failed(error)
            frames.clear()  # this frame is among them: the garbage collector alone would free them
        return bool(requests)

    def seconds(self, request: Watched, duration: float) -> dict[Spot, float]:
        """The time of a request that has ended, by spot."""
        if request.samples is not None:
            return request.samples.total(duration)
        return unseen(duration, blocked=_clock.was_late(request.started, request.started + duration))

    def _next(self, old: list[Watched]) -> list[Watched]:
        """So many of the requests as one tick has time for: each has its turn."""
        if len(old) <= WALKS:
            return old
        first = self._turn % len(old)
        self._turn = first + WALKS
        return (old[first:] + old[:first])[:WALKS]

    def _sample(self, request: Watched, frames: dict[int, FrameType], now: float) -> None:
        if request.recorded:  # its thread may answer another one
            return
        spot = self._spots.of(_frame(request.thread, frames))
        if request.samples is None:
            request.samples = Samples(request.started)
        request.samples.add(spot, now)


def _is_due(request: Watched, now: float) -> bool:
    return not request.recorded and (request.samples is None or request.samples.is_due(now))


def _frame(thread: Any, frames: dict[int, FrameType]) -> FrameType | None:
    if isinstance(thread, int):
        return frames.get(thread)
    frame: FrameType | None = thread.gr_frame
    # A greenlet that runs has none of its own: it has that of the thread of its hub.
    return frame or frames.get(getattr(thread.parent, "thread_ident", 0))


class _Clock:
    """The thread that wakes the samplers of this process.

    Where gevent is, it is a real thread all the same: a greenlet would not see the one that does not yield.
    """

    def __init__(self) -> None:
        self._samplers: WeakSet[Sampler] = WeakSet()
        self._runs = False
        self._starting = forks.Lock()
        self.after_fork()
        forks.forget(self)

    def start(self, sampler: Sampler) -> None:
        """Wake this sampler too, for as long as somebody else keeps it alive."""
        with self._starting:
            self._samplers.add(sampler)
            if not self._runs:
                self._runs = True
                start_new_thread: Callable[..., Any] = _original("_thread", "start_new_thread")
                start_new_thread(self._run, (_original("time", "sleep"),))

    def was_late(self, started: float, now: float) -> bool:
        """Whether it could not wake for some time between these two, or still cannot."""
        late = any(due < now and woke > started for due, woke in list(self._late))
        return late or now - self._due > _LATE

    def after_fork(self) -> None:
        """Begin without a thread: the child has none but the one that forked."""
        self._runs = False
        self._due = float("inf")
        self._late: deque[tuple[float, float]] = deque(maxlen=16)
        self._samplers.clear()

    def _run(self, sleep: Callable[[float], None]) -> None:
        idle = 0
        while True:
            seconds = IDLE_TICK if idle >= _IDLE_TICKS else TICK
            self._due = due = perf_counter() + seconds
            sleep(seconds)
            now = perf_counter()
            if now - due > _LATE:
                self._late.append((due, now))
            with suppress(Exception):  # another application has just been added, say: one tick is nothing
                idle = 0 if [sampler for sampler in self._samplers if sampler.look(now)] else idle + 1


def _original(module: str, name: str) -> Any:
    """The function that a module had before gevent patched it."""
    monkey = sys.modules.get("gevent.monkey")
    return getattr(sys.modules[module], name) if monkey is None else monkey.get_original(module, name)


_clock = _Clock()
