"""Flight recorder: the requests in progress of each worker, and the last ones that it has answered.

It writes the ring that `exporter.worker.requests` describes and reads. Without a worker directory, or without
room in it, the ring is private memory.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from operator import attrgetter
from time import monotonic, perf_counter

from exporter import forks, posix
from exporter.observation import EXCHANGE, Observation
from exporter.worker import crash, inflight, requests, ring
from exporter.worker.inflight import Tally, WorkerRequest
from exporter.worker.requests import HEADER, KIND, Content, Header, Request
from exporter.worker.writers import ignore, writers

# The slots for requests in progress if the number of threads is unknown.
_THREADS = 64
# The records that are read of any ring, because other workers may have larger rings than this one.
_READ_LIMIT = 10_001
# A server that has not closed an answer after an hour has forgotten it.
_CLOSE_SECONDS = 3600.0

_start, _end = attrgetter("start_time"), attrgetter("end_time")
_holders = getattr(sys, "getrefcount", lambda _: 5)  # PyPy counts no references


class FlightRecorder:
    """Keeps the requests of this process; with a `directory`, reads those of all workers.

    Each process opens it before its first request: so workers that a master forks after it has loaded the
    application get rings of their own.
    """

    enter: Callable[[Observation], None]
    """Gives a new request a slot."""
    stream: Callable[[Observation], None]
    """Notes that the answer has begun, and is a stream, which may last."""
    record: Callable[[Observation], None]
    """Completes the record of an answered request; raises CrowdedError if it has no slot."""
    explain: Callable[[Observation], None]
    """Adds its delay to the record of a slow request."""
    leave: Callable[[Observation], None]
    """Frees the slot, because the server has sent everything; a second call does nothing."""
    live: list[Observation | None]
    """The request in each slot; slot 0 stays empty. A fork replaces the list."""

    _memory: mmap.mmap | None
    _header: Header
    _is_shared: bool
    _open_lock: threading.Lock
    _free_slots: deque[int]
    _surplus: set[Observation]
    """The requests without a slot."""
    _switch: Callable[[mmap.mmap], None]
    _release: weakref.finalize[[int], FlightRecorder]
    """Gives up the ring, also where a request in progress keeps the memory."""

    def __init__(self, recent: int, directory: str | None = None, prefix: str = "flask_") -> None:
        """`recent` answered requests are read of each ring; `prefix` is that of the request families."""
        self._recent = recent
        self._directory = directory
        self._prefix = prefix
        self._birth = monotonic()
        self._most = max(recent + 1, _READ_LIMIT)
        self._release = weakref.finalize(self, forks.give_up, -1)
        self.after_fork()
        forks.forget(self)

    @property
    def is_shared(self) -> bool:
        """Whether the ring is a file, for every worker to read."""
        return self._is_shared

    def open(self, threads: int = 0) -> None:
        """Keep the requests of this process from now on; `threads` is 0 if their number is unknown.

        Raises OSError if the directory has no room; then other workers do not see these requests until
        `settle` finds room.
        """
        with self._open_lock:
            if self._memory is not None:
                return
            records = 1 + max(self._recent, threads or _THREADS)
            self._header = header = Header(records, self._birth, os.getpid(), self._prefix)
            self._memory = memory = mmap.mmap(-1, header.length)
            self.live = [None] * records
            self._free_slots = deque(range(1, records))
            self.enter, self.stream, self.record, self.explain, self.leave, self._switch = writers(
                header, memory, self.live, self._free_slots, self._surplus
            )
            if self._directory is not None:
                self._move(self._directory, new=True)

    def settle(self, removal: bool = False) -> None:
        """Free forgotten slots, and look for room in the directory if there was none; called once a second.

        `removal` says that the files of this process have been removed from the directory.
        """
        if self._memory is None:
            return
        self._is_shared = self._is_shared and not removal
        self._switch(self._memory)
        self._tidy(self._memory)
        if self._directory is not None and not self._is_shared:
            with suppress(OSError), self._open_lock:
                self._move(self._directory)

    def read(self) -> list[Request]:
        """The recorded requests of all workers, living and dead: newest start first, each once."""
        history: list[Request] = []
        for first, second in self._contents():
            recent = sorted(requests.history(first, second), key=_start, reverse=True)
            history += recent[: self._recent]
        history.sort(key=_start, reverse=True)
        return history

    def latest(self) -> list[Request]:
        """The recorded requests since the last one that any ring has lost: newest end first."""
        if not self._recent:
            return []
        return _since_a_loss(
            [(second, [*requests.history(first, second)]) for first, second in self._contents()]
        )

    def tally(self) -> Tally | None:
        """The tally of this process; None if the ring is a file, from which it can be read."""
        memory = self._memory
        if memory is None or self._is_shared:
            return None
        self._tidy(memory)
        header = self._header
        starts = memory[HEADER : header.first]
        return inflight.count(0, header, starts, lambda at, size: memory[at : at + size])

    def in_flight(self) -> list[WorkerRequest]:
        """The requests in progress of all living workers; those of this process with their threads."""
        memory, live, entries = self._memory, self.live, list[WorkerRequest]()
        self._tidy(memory)
        if memory is not None and not self._is_shared:
            content = Content(self._header, memory[:])
            entries += [WorkerRequest(0, os.getpid(), request) for request in requests.in_flight(content)]
        if self._directory is not None:
            with suppress(OSError):
                entries += inflight.in_flight(self._directory, self._most)
        return [_with_thread(entry, live) for entry in entries]

    def birth(self) -> float:
        """The start of the service in monotonic seconds, from the oldest ring or this process."""
        births = [self._birth]
        if self._directory is not None:
            with suppress(OSError):
                for _, descriptor in ring.descriptors(self._directory, KIND):
                    header = Header.of(os.pread(descriptor, HEADER, 0))
                    births += [header.birth] if header else []
        # A ring on a disk may have been written before the machine was restarted.
        return min(birth for birth in births if birth <= self._birth)

    def after_fork(self) -> None:
        """Begin without a ring, because the parent still writes its own."""
        self._release()
        self._memory = None
        self._is_shared = False
        self._open_lock = threading.Lock()
        self.live = [None]
        self._surplus = set()
        self.enter = self.stream = self.record = self.explain = self.leave = ignore
        self._switch = ignore

    def _contents(self) -> Iterator[tuple[Content, Content]]:
        if self._memory is not None and not self._is_shared:
            # One copy suffices: the threads that write hold the interpreter's lock, and so does this one.
            content = Content(self._header, self._memory[:])
            yield content, content
        if self._directory is not None:
            with suppress(OSError):
                for _, first, second in requests.read(self._directory, self._most):
                    yield first, second

    def _move(self, directory: str, *, new: bool = False) -> None:
        """Go on with the same requests in a ring of this directory; an OSError leaves everything as it was.

        A `new` process has no requests yet, so the ring keeps the last ones of its former owner.
        """
        header, old = self._header, self._memory
        assert old is not None  # noqa: S101  the callers have opened it
        number, descriptor, memory, former = _claim(directory, header)
        if former is not None and former.header.birth <= self._birth:
            self._header = header = header._replace(birth=former.header.birth)
        if former is not None and new:
            oldest_first = sorted(self._free_slots, key=former.last_starts().__getitem__)
            self._free_slots.clear()
            self._free_slots.extend(oldest_first)
        elif not new:
            memory[HEADER:] = old[HEADER:]
        self._memory, self._is_shared = memory, True
        self._switch(memory)
        memory[: len(header.pack())] = header.pack()
        self._release()
        self._release = weakref.finalize(self, forks.give_up, descriptor)
        self._release.atexit = False
        crash.watch(directory, number)

    def _tidy(self, memory: mmap.mmap | None) -> None:
        """Free the slots of requests that no server closes: nobody else knows them, or an hour is over."""
        if memory is None or not memory[HEADER : self._header.first].strip(b"\0"):
            return
        live, oldest = self.live, perf_counter() - _CLOSE_SECONDS
        for slot in range(1, len(live)):
            if (exchange := live[slot]) is None:
                continue
            # Three references, `live`, `exchange` and the argument; its environ has one until it is recorded.
            if not exchange.recorded:
                if _holders(live[slot]) <= 3 + _is_in_environ(exchange):
                    exchange.abandon()  # a middleware has answered in its place, and has closed nothing
            elif _holders(live[slot]) <= 3 or exchange.started < oldest:
                exchange.slot = slot
                self.leave(exchange)
        for exchange in list(self._surplus):
            if exchange.recorded and exchange.started < oldest:
                self.leave(exchange)


def _claim(directory: str, header: Header) -> tuple[int, int, mmap.mmap, Content | None]:
    """The number, the descriptor with the lock, the memory and the former content of a ring of this process.

    The content is None for a new file, one of another size, or a damaged one.
    """
    number, descriptor = ring.claim(directory, KIND, requests.is_free)
    try:
        former = Content.of(os.pread(descriptor, header.length + 1, 0))
        if former is not None and former.header.records != header.records:
            former = None
        if former is None:
            os.ftruncate(descriptor, 0)
            # A full disk is an error here, not SIGBUS at a write.
            posix.reserve(descriptor, header.length)
        memory = ring.memory(directory, KIND, number, descriptor, header.length)
    except BaseException:
        os.close(descriptor)
        raise
    forks.keep(descriptor)
    return number, descriptor, memory, former


def _since_a_loss(rings: list[tuple[Content, list[Request]]]) -> list[Request]:
    """So the newest of a kind never gives way to an older one, which another ring still has."""
    since = max((min(map(_end, kept)) for content, kept in rings if kept and content.has_lost), default=0.0)
    latest = [request for _, kept in rings for request in kept if request.end_time >= since]
    return sorted(latest, key=_end, reverse=True)


def _with_thread(entry: WorkerRequest, live: Sequence[Observation | None]) -> WorkerRequest:
    """The entry, with its thread if the request is this process's own and still the same."""
    slot = entry.request.slot
    exchange = live[slot] if entry.pid == os.getpid() and slot < len(live) else None
    if exchange is None or exchange.started != entry.request.started:
        return entry
    return entry._replace(thread=exchange.thread)


def _is_in_environ(exchange: Observation) -> bool:
    # Another thread may record it at this moment, which takes the environ away.
    return getattr(exchange, "environ", {}).get(EXCHANGE) is exchange
