"""Flight recorder: the last requests of each worker, in rings that all can read and that outlive it.

A worker writes a memory-mapped ring of its own, `recent_<n>.ring`. Readers do not map it: a file that is cut
short would end them with SIGBUS. Each record carries a checksum, so one that is being overwritten, or whose
writer was killed half-way, is never shown.
"""

from __future__ import annotations

import itertools
import mmap
import os
import re
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from zlib import crc32

from exporter import forks, posix
from exporter.observation import Observation
from exporter.worker import ring

_MAGIC = b"flight03"
_HEADER = struct.Struct("<8sIId")  # magic, record size, records, monotonic time at which the writing began
_HEADER_SIZE = 64
_RECORD_SIZE = 640
_CHECKSUM = 4
# Lengths of the names and of the rest of the text, sequence, start, duration, request and response size.
_NUMBERS = struct.Struct("<HHQddqq")
_PATH_LIMIT = 256
_TEXT_LIMIT = 64 + 1 + 32 + 1 + _PATH_LIMIT  # request id, trace id, path
_NAMES_LIMIT = _RECORD_SIZE - _CHECKSUM - _NUMBERS.size - _TEXT_LIMIT
_RETRY_SECONDS = 1.0
# Another worker may have been started with another size: so many records are read of any.
_READ_LIMIT = 10_000

_NAMES = re.compile(r"[0-9]{3}[01]{2}").match  # what names begin with: status, failed, disconnected

_pack = _NUMBERS.pack


@dataclass(frozen=True, slots=True)
class Request:
    """One recorded request: times in seconds (the start since the epoch), sizes in bytes, "" for unknown.

    `failed` is what error ratios count: a status of 500 or more, or an unhandled exception.
    """

    start_time: float
    duration: float
    method: str
    url_rule: str
    endpoint: str
    path: str
    status: int
    failed: bool
    error_type: str
    request_size: int
    response_size: int
    request_id: str
    trace_id: str
    disconnected: bool


class FlightRecorder:
    """Keeps the last `size` requests of this process; with a `directory`, those of all workers can be read.

    Without a directory the ring is private memory. Nothing is opened before the first request, so that
    workers forked from a master that has the application loaded get rings of their own.
    """

    _ring: _Ring | None
    _lock: threading.Lock
    _retry_at: float

    def __init__(self, size: int, directory: str | None = None) -> None:
        self._size = size
        self._directory = directory
        self._born = time.monotonic()
        self.after_fork()
        forks.forget(self)

    def record(self, observation: Observation) -> None:
        """Write one finished request. Raises OSError while the directory cannot be written."""
        current = self._ring or self._claim()
        if current is None:
            return
        sequence = next(current.sequence)
        outcome = observation.outcome
        names = b"" if outcome is None else outcome.packed
        if not names:
            names = _names(observation)
            if outcome is not None:
                outcome.packed = names
        # WSGI hands over the bytes of the path as Latin-1.
        path = observation.path[:_PATH_LIMIT]
        rest = f"{observation.request_id}\0{observation.trace_id}\0{path}".encode("latin-1", "replace")
        body = _pack(
            len(names),
            len(rest),
            sequence,
            observation.start_time,
            observation.duration,
            observation.request_size,
            observation.response_size,
        ) + names + rest  # fmt: skip
        at = _HEADER_SIZE + sequence % self._size * _RECORD_SIZE
        # One assignment: atomic among the threads of this process, which hold the interpreter lock for it.
        current.memory[at : at + _CHECKSUM + len(body)] = crc32(body).to_bytes(_CHECKSUM, "little") + body

    def read(self) -> list[Request]:
        """The recorded requests of all workers, living and dead: newest start first, each once."""
        requests = [request for content in self._contents() for _, request in _requests(content)]
        requests.sort(key=lambda request: request.start_time, reverse=True)
        return requests

    def started(self) -> float:
        """When the service started (monotonic seconds), as the oldest ring or this process knows it."""
        if self._size and self._ring is None:
            with suppress(OSError):
                self._claim()
        beginnings: list[float] = [_HEADER.unpack_from(content)[3] for content in self._contents()]
        # A ring on a disk may be of the time before the machine was started anew.
        return min(born for born in (self._born, *beginnings) if born <= self._born)

    def _contents(self) -> Iterator[bytes]:
        if self._directory is None:
            if self._ring is not None:
                yield self._ring.memory[:]
            return
        limit = _HEADER_SIZE + max(self._size, _READ_LIMIT) * _RECORD_SIZE
        with suppress(OSError):
            yield from filter(_valid, ring.contents(self._directory, "recent", limit))

    def _claim(self) -> _Ring | None:
        with self._lock:
            if self._size == 0:
                return None
            if self._ring is None:
                now = time.monotonic()
                if now < self._retry_at:  # a directory that cannot be written must not cost every request
                    raise OSError(f"{self._directory}: no ring for the flight recorder")
                self._retry_at = now + _RETRY_SECONDS
                self._ring = _open(self._directory, self._size, self._born)
            return self._ring

    def after_fork(self) -> None:
        """Begin without a ring: the copy of the parent's would have two writers."""
        self._ring = None
        self._lock = threading.Lock()
        self._retry_at = 0.0


@dataclass(frozen=True, slots=True)
class _Ring:
    memory: mmap.mmap
    sequence: Iterator[int]  # of itertools.count: next() is atomic among threads


def _open(directory: str | None, size: int, born: float) -> _Ring:
    """A ring that this process alone writes."""
    length = _HEADER_SIZE + size * _RECORD_SIZE
    header = _HEADER.pack(_MAGIC, _RECORD_SIZE, size, born)
    if directory is None:
        memory = mmap.mmap(-1, length)
        memory[: len(header)] = header
        return _Ring(memory, itertools.count())
    file = ring.claim(directory, "recent")
    try:
        content = os.pread(file, length + 1, 0)
        if len(content) != length or not _valid(content):  # new, of another size, or garbage
            os.ftruncate(file, 0)
            posix.reserve(file, length)  # a full disk is an error here, not SIGBUS at a write
            os.pwrite(file, header, 0)
            content = header
        following = max((sequence for sequence, _ in _requests(content)), default=-1) + 1
        # The mapping keeps a duplicate of the descriptor, and with it the lock, until it is dropped.
        return _Ring(mmap.mmap(file, length), itertools.count(following))
    finally:
        os.close(file)


def _valid(content: bytes) -> bool:
    if len(content) < _HEADER_SIZE:
        return False
    magic, record_size, records, _ = _HEADER.unpack_from(content)
    return (magic, record_size, len(content)) == (
        _MAGIC,
        _RECORD_SIZE,
        _HEADER_SIZE + records * _RECORD_SIZE,
    )


def _names(observation: Observation) -> bytes:
    """The part of a record that is the same for all requests of a rule with the same outcome."""
    observation.name()
    flags = f"{observation.failed:d}{observation.disconnected:d}"
    names = (observation.method, observation.error_type, observation.endpoint, observation.rule)
    return (f"{observation.status:03d}{flags}" + "\0".join(names)).encode("utf-8", "replace")[:_NAMES_LIMIT]


def _requests(content: bytes) -> Iterator[tuple[int, Request]]:
    """The whole records of a ring with their sequence numbers, in no order."""
    for at in range(_HEADER_SIZE, len(content), _RECORD_SIZE):
        start = at + _CHECKSUM
        names_length, rest_length, sequence, start_time, duration, request_size, response_size = (
            _NUMBERS.unpack_from(content, start)
        )
        middle = start + _NUMBERS.size + names_length
        end = middle + rest_length
        body = content[start:end]
        if end > at + _RECORD_SIZE or crc32(body) != int.from_bytes(content[at:start], "little"):
            continue
        names = content[start + _NUMBERS.size : middle].decode("utf-8", "ignore")
        texts = content[middle:end].split(b"\0", 2)
        # Never written; or written by somebody who knows the checksum and not the rest.
        if not _NAMES(names) or len(texts) < 3 or not (0 <= start_time < 1e11 and 0 <= duration < 1e11):
            continue
        method, error_type, endpoint, rule = (*names[5:].split("\0", 3), "", "", "")[:4]
        request_id, trace_id, path = (text.decode("utf-8", "replace") for text in texts)
        yield (
            sequence,
            Request(
                start_time=start_time,
                duration=duration,
                method=method,
                url_rule=rule,
                endpoint=endpoint,
                path=path,
                status=int(names[:3]),
                failed=names[3] == "1",
                error_type=error_type,
                request_size=request_size,
                response_size=response_size,
                request_id=request_id,
                trace_id=trace_id,
                disconnected=names[4] == "1",
            ),
        )
