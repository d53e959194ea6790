"""The slowest requests of each rule within the last hour, in rings that all workers can read.

Each worker writes a ring of its own, `slow_<n>.ring`. A fast request replaces a slower one only if that is an
hour old. Each record carries a checksum: readers skip a record that is half written.

Layout: the magic bytes, padded to 64, then records of 2 KiB: checksum (4), length of the text (4), and the
fields of `SlowRequest` as JSON.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from operator import attrgetter
from typing import Any
from zlib import crc32

from exporter import forks, guard, posix
from exporter.worker import ring

EACH = 10
HOUR = 3600.0
RECORDS = 200
"""The records of a worker; many rules share them, with fewer records for each."""

_MAGIC = b"slow0001"
_HEADER_SIZE = 64
_RECORD_SIZE = 2048
_NUMBERS = struct.Struct("<II")
_LENGTH = _HEADER_SIZE + RECORDS * _RECORD_SIZE
_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SlowRequest:
    """One slow request and its delay: times in seconds (the start since the epoch), "" for unknown."""

    start_time: float
    duration: float
    method: str
    url_rule: str
    endpoint: str
    path: str
    status: int
    request_id: str
    trace_id: str
    where: str
    line: int
    library: str
    call: str
    shares: Mapping[str, float]

    @property
    def end(self) -> float:
        """Seconds since the epoch."""
        return self.start_time + self.duration


class Slowest:
    """Keeps the slowest requests of this process; with a `directory`, reads those of all workers."""

    def __init__(self, directory: str | None) -> None:
        self._directory = directory
        self._lock = forks.Lock()
        self.after_fork()
        forks.forget(self)

    def keep(self, request: SlowRequest) -> None:
        """Keep one of the slowest requests; costs 40 µs. Raises OSError if the directory has no room."""
        with self._lock:
            memory = self._memory or self._open()
            slot = self._slot(request)
            if slot is not None:
                record = _pack(request)
                at = _HEADER_SIZE + slot * _RECORD_SIZE
                memory[at : at + len(record)] = record
                self._records[slot] = request

    def read(self) -> dict[str, list[SlowRequest]]:
        """The slowest requests of each rule in all workers, living and dead; the slowest rule comes first."""
        rules: dict[str, list[SlowRequest]] = {}
        since = time.time() - HOUR
        recent = [request for content in self._contents() for _, request in _requests(content)]
        for request in sorted(recent, key=attrgetter("duration"), reverse=True):
            if request.end > since:
                rules.setdefault(request.url_rule, []).append(request)
        return {rule: requests[:EACH] for rule, requests in rules.items()}

    def after_fork(self) -> None:
        """Begin without a ring, because the parent still writes its own."""
        self._memory: mmap.mmap | None = None
        self._records: dict[int, SlowRequest] = {}
        self._retry_at = 0.0

    def _contents(self) -> Iterable[bytes]:
        if self._directory is None:
            return [] if self._memory is None else [self._memory[:]]
        with suppress(OSError):
            return list(ring.contents(self._directory, "slow", _LENGTH))
        return []

    def _open(self) -> mmap.mmap:
        if self._directory is None:
            self._memory = mmap.mmap(-1, _LENGTH)
            self._memory[: len(_MAGIC)] = _MAGIC
            return self._memory
        now = time.monotonic()
        if now < self._retry_at:
            raise OSError(f"{self._directory}: no ring for slow requests")
        self._retry_at = now + _RETRY_SECONDS
        _, file = ring.claim(self._directory, "slow")
        try:
            content = guard.content(file, _LENGTH)
            if len(content) != _LENGTH or not content.startswith(_MAGIC):  # a new file, or a damaged one
                os.ftruncate(file, 0)
                posix.reserve(file, _LENGTH)  # a full disk is an error here, not SIGBUS at a write
                os.pwrite(file, _MAGIC, 0)
                content = b""
            # The mapping keeps a duplicate of the descriptor, and with it the lock, until it is dropped.
            self._memory = mmap.mmap(file, _LENGTH)
        finally:
            os.close(file)
        self._records = dict(_requests(content))
        return self._memory

    def _slot(self, request: SlowRequest) -> int | None:
        """The slot for the request; None if all others are slower."""
        since = request.end - HOUR
        recent = {slot: record for slot, record in self._records.items() if record.end > since}
        counts = Counter(record.url_rule for record in recent.values())
        own = counts[request.url_rule]
        if own < EACH and len(recent) < RECORDS:
            return next(slot for slot in range(RECORDS) if slot not in recent)
        # Otherwise replace a request of the same rule, or one of a rule with more requests.
        most = max(counts.values())
        full = own == most
        rivals = [
            slot
            for slot, record in recent.items()
            if (record.url_rule == request.url_rule if full else counts[record.url_rule] == most)
        ]
        fastest = min(rivals, key=lambda slot: recent[slot].duration)
        return None if full and recent[fastest].duration >= request.duration else fastest


def _pack(request: SlowRequest) -> bytes:
    """The record of a request; raises ValueError if the names do not fit."""
    for shares in (request.shares, {}):
        text = json.dumps(asdict(replace(request, shares=shares)), ensure_ascii=False).encode(
            "utf-8", "replace"
        )
        if len(text) <= _RECORD_SIZE - _NUMBERS.size:
            body = len(text).to_bytes(4, "little") + text
            return crc32(body).to_bytes(4, "little") + body
    raise ValueError(f"a slow request of {request.url_rule[:100]} has names too long to be kept")


def _requests(content: bytes) -> Iterator[tuple[int, SlowRequest]]:
    """The slots of a ring with their requests, without damaged records."""
    if not content.startswith(_MAGIC):
        return
    for slot in range((len(content) - _HEADER_SIZE) // _RECORD_SIZE):
        at = _HEADER_SIZE + slot * _RECORD_SIZE
        checksum, length = _NUMBERS.unpack_from(content, at)
        text = content[at + _NUMBERS.size : at + _RECORD_SIZE][:length]
        if length and crc32(content[at + 4 : at + _NUMBERS.size] + text) == checksum:
            request = _request(text)
            if request is not None:
                yield slot, request


def _request(text: bytes) -> SlowRequest | None:
    """The request in a text; None if the text has a right checksum and a wrong content."""
    try:
        values: dict[str, Any] = json.loads(text)
        request = SlowRequest(**values)
    except (ValueError, TypeError, RecursionError):
        return None
    if not all(isinstance(getattr(request, name), kind) for name, kind in _TYPES.items()):
        return None
    if not (0 <= request.start_time < 1e11 and 0 <= request.duration < 1e11):
        return None
    is_valid = all(isinstance(share, float) and 0 <= share <= 1 for share in request.shares.values())
    return request if is_valid else None


_KINDS: dict[str, Any] = {"start_time": float, "duration": float, "status": int, "line": int, "shares": dict}
_TYPES = {field.name: _KINDS.get(field.name, str) for field in fields(SlowRequest)}
