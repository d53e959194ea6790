"""Flight recorder: the requests that each worker is answering, and the last ones that it has answered.

It writes the ring that `exporter.worker.requests` describes and reads. Where there is no worker directory, or
no room in it, the ring is private memory.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import attrgetter
from time import monotonic, perf_counter

from exporter import forks, posix
from exporter.observation import Observation
from exporter.worker import crash, inflight, requests, ring
from exporter.worker.inflight import Running, Tally
from exporter.worker.requests import HEADER, KIND, Content, Header, Request
from exporter.worker.writers import ignore, writers

# Places for requests in progress where nobody has told the number of threads.
_THREADS = 64
# Another worker may have been started with another size: so many records are read of any.
_READ_LIMIT = 10_001
# A request that was answered an hour ago has a server that forgot to close it.
_FORGOTTEN_SECONDS = 3600.0

_start = attrgetter("start_time")
_holders = getattr(sys, "getrefcount", lambda _: 4)  # PyPy counts no references


class FlightRecorder:
    """Keeps the requests of this process; with a `directory`, those of all workers can be read.

    Each process opens it before its first request, so that workers forked from a master that has the
    application loaded get rings of their own.
    """

    enter: Callable[[Observation], None]
    """Gives a request that came in its place."""
    lasts: Callable[[Observation], None]
    """Notes that the answer has begun, of a stream or websocket that is meant to last."""
    record: Callable[[Observation], None]
    """Completes the record of an answered request; raises CrowdedError if it has none."""
    leave: Callable[[Observation], None]
    """Frees the place: the server has sent everything. Does nothing the second time."""
    live: list[Observation | None]
    """The request in each place; none in the first. Another list after a fork."""

    _memory: mmap.mmap | None
    _shared: bool
    _opening: threading.Lock
    _places: deque[int]
    _surplus: set[Observation]
    _turn: Callable[[mmap.mmap], None]

    def __init__(self, recent: int, directory: str | None = None, prefix: str = "flask_") -> None:
        """`recent` is how many answered requests are read of each ring; `prefix` that of their families."""
        self._recent = recent
        self._directory = directory
        self._prefix = prefix
        self._born = monotonic()
        self._most = max(recent + 1, _READ_LIMIT)
        self.after_fork()
        forks.forget(self)

    @property
    def shared(self) -> bool:
        """Whether the ring is a file, for every worker to see."""
        return self._shared

    def open(self, threads: int = 0) -> None:
        """Begin to keep the requests of this process, which serves so many at once; 0 for nobody knows.

        Raises OSError where the directory has no room; until `settle` finds some, nobody else sees them.
        """
        with self._opening:
            if self._memory is not None:
                return
            records = 1 + max(self._recent, threads or _THREADS)
            self._header = header = Header(records, self._born, os.getpid(), self._prefix)
            self._memory = memory = mmap.mmap(-1, header.length)
            memory[: len(header.packed())] = header.packed()
            self.live = [None] * records
            self._places = deque(range(1, records))
            self.enter, self.lasts, self.record, self.leave, self._turn = writers(
                header, memory, self.live, self._places, self._surplus
            )
            if self._directory is not None:
                self._move(self._directory, new=True)

    def settle(self, removed: bool = False) -> None:
        """Called once a second: free what was forgotten, and find room in the directory where there was none.

        `removed` says that this process's files are gone from it.
        """
        if self._memory is None:
            return
        self._shared = self._shared and not removed
        self._turn(self._memory)
        self._tidy(self._memory)
        if self._directory is not None and not self._shared:
            with suppress(OSError), self._opening:
                self._move(self._directory)

    def read(self) -> list[Request]:
        """The recorded requests of all workers, living and dead: newest start first, each once."""
        recorded: list[Request] = []
        for first, second in self._contents():
            recent = sorted(requests.finished(first, second), key=_start, reverse=True)
            recorded += recent[: self._recent]
        recorded.sort(key=_start, reverse=True)
        return recorded

    def tally(self) -> Tally | None:
        """What this process is answering; None where the ring is a file, which tells it."""
        memory, first = self._memory, self._header.first
        if memory is None or self._shared:
            return None
        self._tidy(memory)
        return inflight.count(0, self._header, memory[HEADER:first], lambda at, size: memory[at : at + size])

    def running(self) -> list[Running]:
        """The requests in progress of all living workers; those of this one with their threads."""
        memory, live, running = self._memory, self.live, list[Running]()
        if memory is not None and not self._shared:
            content = Content(self._header, memory[:])
            running += [Running(0, os.getpid(), request) for request in requests.in_flight(content)]
        if self._directory is not None:
            with suppress(OSError):
                running += inflight.running(self._directory, self._most)
        return [
            one._replace(thread=exchange.thread)
            if one.pid == os.getpid()
            and one.request.slot < len(live)
            and (exchange := live[one.request.slot]) is not None
            and exchange.started == one.request.started
            else one
            for one in running
        ]

    def started(self) -> float:
        """When the service started (monotonic seconds), as the oldest ring or this process knows it."""
        beginnings = [self._born]
        if self._directory is not None:
            with suppress(OSError):
                for _, descriptor in ring.opened(self._directory, KIND):
                    header = Header.of(os.pread(descriptor, HEADER, 0))
                    beginnings += [header.born] if header else []
        # A ring on a disk may be of the time before the machine was started anew.
        return min(born for born in beginnings if born <= self._born)

    def after_fork(self) -> None:
        """Begin without a ring: the parent goes on writing its own."""
        self._memory = None
        self._header = Header(1, self._born, 0, self._prefix)
        self._shared = False
        self._opening = threading.Lock()
        self.live = [None]
        self._places = deque()
        self._surplus = set()
        self.enter = self.lasts = self.record = self.leave = ignore
        self._turn = ignore

    def _contents(self) -> Iterator[tuple[Content, Content]]:
        if self._memory is not None and not self._shared:
            # One copy is enough of what the threads of this process write, which hold the interpreter's lock.
            content = Content(self._header, self._memory[:])
            yield content, content
        if self._directory is not None:
            with suppress(OSError):
                for _, first, second in requests.read(self._directory, self._most):
                    yield first, second

    def _move(self, directory: str, *, new: bool = False) -> None:
        """Go on in a file of this directory, as everything was; raises OSError, and nothing has changed.

        A `new` process has no requests yet: the last ones of the worker that had the file before stay.
        """
        header, old = self._header, self._memory
        assert old is not None  # noqa: S101  the callers have opened it
        number, descriptor = ring.claim(directory, KIND, requests.is_free)
        try:
            former = Content.of(os.pread(descriptor, header.length + 1, 0))
            if former is not None and former.header.records != header.records:
                former = None
            if former is None:  # new, of another size, or garbage
                os.ftruncate(descriptor, 0)
                posix.reserve(
                    descriptor, header.length
                )  # a full disk is an error here, not SIGBUS at a write
            # The mapping keeps a duplicate of the descriptor, and with it the lock, until it is dropped.
            memory = mmap.mmap(descriptor, header.length)
        finally:
            os.close(descriptor)
        if former is not None and former.header.born <= self._born:
            self._header = header = header._replace(born=former.header.born)
        if former is not None and new:
            memory[HEADER : header.first] = bytes(header.first - HEADER)
            oldest = sorted(self._places, key=former.last_starts().__getitem__)
            self._places.clear()
            self._places.extend(oldest)
        else:
            memory[HEADER:] = old[HEADER:]
        self._memory, self._shared = memory, True
        self._turn(memory)
        memory[: len(header.packed())] = header.packed()
        crash.watch(directory, number)

    def _tidy(self, memory: mmap.mmap) -> None:
        """Free the places of requests that were answered, and that no server will ever close.

        Nobody but the table knows these any more, or their time has come long ago.
        """
        size = self._header.first - HEADER
        if memory[HEADER : HEADER + size] == bytes(size):
            return
        live, oldest = self.live, perf_counter() - _FORGOTTEN_SECONDS
        for slot in range(1, len(live)):
            exchange = live[slot]
            if exchange is None or not exchange.recorded:
                continue
            # The table, `exchange` and the argument are three.
            if _holders(live[slot]) <= 3 or exchange.started < oldest:
                exchange.slot = slot
                self.leave(exchange)
        for exchange in list(self._surplus):
            if exchange.recorded and exchange.started < oldest:
                self.leave(exchange)
