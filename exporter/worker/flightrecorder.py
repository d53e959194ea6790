"""Flight recorder: the requests that each worker is answering, and the last ones that it has answered.

It writes the ring that `exporter.worker.requests` describes and reads. Where there is no worker directory, or
no room in it, the ring is private memory.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import threading
from _thread import get_ident
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import attrgetter
from time import monotonic, perf_counter, time
from typing import TYPE_CHECKING, Any, NamedTuple

from exporter import forks, posix
from exporter.observation import Observation
from exporter.worker import crash, inflight, requests, ring
from exporter.worker.inflight import Running, Tally
from exporter.worker.requests import (
    HEAD_AT,
    HEADER,
    KIND,
    LASTING,
    NAMES_LIMIT,
    RECORD,
    Content,
    Header,
    Request,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# Places for requests in progress where nobody has told the number of threads.
_THREADS = 64
# Another worker may have been started with another size: so many records are read of any.
_READ_LIMIT = 10_001
# A request that was answered an hour ago has a server that forgot to close it.
_FORGOTTEN_SECONDS = 3600.0

_NO_TIME = 1e-9  # a duration of 0.0 means that there is none yet
_duration = struct.Struct("<d")
_start = attrgetter("start_time")
_holders = getattr(sys, "getrefcount", lambda _: 4)  # PyPy counts no references


class CrowdedError(Exception):
    """More requests are in progress than there are places for them."""


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
            self.enter, self.lasts, self.record, self.leave, self._turn = _writers(
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
        self.enter = self.lasts = self.record = self.leave = _ignore
        self._turn = _ignore

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
                self.leave(exchange)
        for exchange in list(self._surplus):
            if exchange.recorded and exchange.started < oldest:
                self.leave(exchange)


class _Writers(NamedTuple):
    enter: Callable[[Observation], None]
    lasts: Callable[[Observation], None]
    record: Callable[[Observation], None]
    leave: Callable[[Observation], None]
    turn: Callable[[mmap.mmap], None]


def _writers(  # noqa: C901  five functions
    header: Header,
    memory: mmap.mmap,
    live: list[Observation | None],
    places: deque[int],
    surplus: set[Observation],
) -> _Writers:
    """What writes into a ring: closures, which cost less than methods.

    Places are taken in the order in which they were freed, so a record is overwritten when all others are
    younger, and never while its request is in progress. To take the latest would save 0.5 µs.
    """
    take, give = places.popleft, places.append
    pack_head, pack_tail, pack_duration = (
        requests.head.pack_into,
        requests.tail.pack_into,
        _duration.pack_into,
    )
    records_at, heads_at = header.first, header.first + HEAD_AT
    current, has_greenlets = _current()
    starts = _starts(memory, header)
    lead = time() - perf_counter()
    crowd = threading.Lock()

    def enter(exchange: Observation) -> None:
        try:
            slot = take()
        except IndexError:
            exchange.thread = current()
            with crowd:
                surplus.add(exchange)
                starts[0] = len(surplus)
            return
        exchange.slot = slot
        exchange.thread = thread = current()
        live[slot] = exchange
        environ, path, script = exchange.environ, exchange.path_info, exchange.script_name
        if script:
            path = script + path
        pack_head(
            memory,
            slot * RECORD + heads_at,
            LASTING if "HTTP_UPGRADE" in environ and _is_websocket(environ) else 0.0,
            exchange.request_id.encode(),
            environ["REQUEST_METHOD"].encode(),
            len(script),
            path.encode("latin-1", "replace"),
            id(thread) if has_greenlets else thread,
            lead,
            exchange.started,
        )
        starts[slot] = exchange.started

    def lasts(exchange: Observation) -> None:
        slot = exchange.slot
        if live[slot] is exchange and not exchange.recorded:
            pack_duration(memory, slot * RECORD + heads_at, LASTING)

    def record(exchange: Observation) -> None:
        slot = exchange.slot
        if live[slot] is not exchange:
            if exchange in surplus:
                raise CrowdedError(
                    f"more than {len(live) - 1} requests are in progress: set EXPORTER_RECENT to as many as "
                    "there can be, or some are not listed and not recorded"
                )
            return
        outcome = exchange.outcome
        names = b"" if outcome is None else outcome.packed
        if not names:
            names = _names(exchange)
            if outcome is not None:
                outcome.packed = names
        pack_tail(
            memory,
            slot * RECORD + records_at,
            exchange.trace_id.encode(),
            names,
            exchange.request_size,
            exchange.response_size,
            exchange.duration or _NO_TIME,
        )

    def leave(exchange: Observation) -> None:
        slot = exchange.slot
        if live[slot] is exchange:
            starts[slot] = 0.0
            live[slot] = None
            give(slot)
        elif exchange in surplus:
            with crowd:
                surplus.discard(exchange)
                starts[0] = len(surplus)

    def turn(other: mmap.mmap) -> None:
        """Write into this memory, which has been copied; the wall clock may have been set."""
        nonlocal memory, starts, lead
        lead = time() - perf_counter()
        if other is memory:
            return
        former, memory, starts = memory, other, _starts(other, header)
        for slot, exchange in enumerate(live):  # what came or went while it was copied
            if exchange is not None:
                at = records_at + slot * RECORD
                other[at : at + RECORD] = former[at : at + RECORD]
                starts[slot] = exchange.started
            elif slot:
                starts[slot] = 0.0

    return _Writers(enter, lasts, record, leave, turn)


def _ignore(_: Any) -> None:
    """Stands for the writers where there is no ring yet."""


def _starts(memory: mmap.mmap, header: Header) -> memoryview[float]:
    return memoryview(memory)[HEADER : header.first].cast("d")


def _current() -> tuple[Callable[[], Any], bool]:
    """What tells the thread of a request, or its greenlet; and whether threads are greenlets."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if (gevent and gevent.is_module_patched("threading")) or (
        eventlet and eventlet.is_monkey_patched("thread")
    ):
        return sys.modules["greenlet"].getcurrent, True
    return get_ident, False


def _is_websocket(environ: WSGIEnvironment) -> bool:
    return str(environ["HTTP_UPGRADE"]).lower() == "websocket"  # and not h2c, which clients offer


def _names(observation: Observation) -> bytes:
    """The part of a record that is the same for all requests of a rule with the same outcome."""
    observation.name()
    flags = f"{observation.failed:d}{observation.disconnected:d}"
    names = (observation.method, observation.error_type, observation.endpoint, observation.rule)
    return (f"{observation.status:03d}{flags}" + "\0".join(names)).encode("utf-8", "replace")[:NAMES_LIMIT]
