"""Requests in rings: each worker writes `requests_<n>.ring`, which all can read and which outlives it.

A request has one record in one slot. The worker writes it when the request arrives, completes it when the
request has been answered, and keeps it until another request needs the slot: so the flight recorder has both
the requests in progress and the latest ones. Layout, native byte order: a header of 64 bytes; for each slot
the start of its request in monotonic seconds, or 0.0 after its end; the records. The starts stand apart
because counts and ages need nothing else.

A record has a tail, which comes first, a head, and no checksum. The last field that a writer fills in commits
the others: the duration commits the tail, and the start commits the head. Native numbers ("@") are written
at once, those of any other format byte by byte. After a kill half-way the request is still running, or the
record does not exist. Readers do not map the file, because a truncated one would end them with SIGBUS.
"""

from __future__ import annotations

import os
import re
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import NamedTuple

from exporter import guard
from exporter.labels import METHODS, OTHER_METHOD
from exporter.worker import ring

KIND = "requests"
RECORD = 608
HEADER = 64
OWNER_AT = 24
"""The offset of the owner's process id in the header."""
HEAD_AT = 248
"""The offset of the head in a record; the head begins with the duration."""

_MAGIC = b"request1"
_header = struct.Struct("@8sIIdQ32s")
tail = struct.Struct("@32s200sqqd")
"""Trace id, names, sizes of the request and of the response in bytes, duration in seconds or 0.0."""
head = struct.Struct("@d64s8sH254sQdd")
"""The same duration, request id, method, length of the script name, path, thread, the lead of the wall clock
on the monotonic clock in seconds, and the start in monotonic seconds."""

OPEN_STREAM = -1.0
"""Stands for the duration of an open stream or websocket: its answer has begun, and may last."""
COUNTED = -2.0
"""Stands for the duration of a request that is in the counters, and whose record is not complete yet."""
DELAY = "\0\0"
"""Stands between the rule of a slow request, the last of its names, and those of its delay."""
NAMES_AT = 32
"""The offset of the names in a record."""
NAMES_LIMIT = 200
_RECORDS_LIMIT = 1_000_001

_NAMES = re.compile(r"[0-9]{3}[01]{2}").match  # names begin with status, failed, disconnected


@dataclass(frozen=True, slots=True)
class Request:
    """One recorded request: times in seconds (the start since the epoch), sizes in bytes, "" for unknown.

    A request has `failed` if error ratios count it: a status of 500 or more, or an unhandled exception.
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
    where: str = ""
    """The place at which a slow request spent most of its time; the rest of its `Delay` as far as it fits."""
    line: int = 0
    library: str = ""
    call: str = ""

    @property
    def end_time(self) -> float:
        """Seconds since the epoch."""
        return self.start_time + self.duration


@dataclass(frozen=True, slots=True)
class InFlight:
    """One request in progress.

    It `is_sending` if its answer has begun. It `is_answered` if all of the answer has been handed to the
    server, which may still send it.
    """

    slot: int
    started: float
    """Monotonic seconds."""
    start_time: float
    """Seconds since the epoch."""
    request_id: str
    method: str
    script_name: str
    path: str
    """With the script name in front."""
    thread: int
    is_sending: bool
    is_answered: bool

    @classmethod
    def of(cls, slot: int, start: float, data: bytes) -> InFlight | None:
        """The request with this start; None if the record still has the head of another request."""
        if len(data) != head.size:
            return None
        duration, request_id, method, script, path, thread, lead, started = head.unpack(data)
        if started != start or not 0 <= start + lead < 1e11:
            return None
        text = _text(method)
        return cls(
            slot=slot,
            started=start,
            start_time=start + lead,
            request_id=_text(request_id),
            method=text if text in METHODS else OTHER_METHOD,
            script_name=_text(path[:script]),
            path=_text(path),
            thread=thread,
            is_sending=duration != 0.0,
            is_answered=duration > 0.0 or duration == COUNTED,
        )

    @property
    def route(self) -> tuple[str, str]:
        """The method, and the path as the application routes it."""
        return self.method, self.path.removeprefix(self.script_name)

    @property
    def state(self) -> str:
        """`running`, or `sending` once the answer has begun."""
        return "sending" if self.is_sending else "running"


class Header(NamedTuple):
    """The header of a ring."""

    records: int
    """The number of records; the first one stays empty."""
    birth: float
    """The start of the service, in monotonic seconds."""
    owner: int
    """The process that writes the ring; 0 once it is dead and its requests in progress have been read."""
    prefix: str
    """The prefix of the request families."""

    @classmethod
    def of(cls, content: bytes) -> Header | None:
        """The header at the beginning of this content; None if it is not the header of such a ring."""
        if len(content) < HEADER:
            return None
        magic, size, records, birth, owner, prefix = _header.unpack_from(content)
        if (magic, size) != (_MAGIC, RECORD) or not 1 < records <= _RECORDS_LIMIT or not birth >= 0:
            return None
        return cls(records, birth, owner, prefix.rstrip(b"\0").decode("utf-8", "replace"))

    def pack(self) -> bytes:
        """The header as bytes."""
        return _header.pack(_MAGIC, RECORD, self.records, self.birth, self.owner, self.prefix.encode())

    @property
    def first(self) -> int:
        """The offset of the first record."""
        return HEADER + 8 * self.records

    def offsets(self) -> range:
        """The offset of each record."""
        return range(self.first, self.length, RECORD)

    @property
    def length(self) -> int:
        """The length of the ring, in bytes."""
        return self.first + RECORD * self.records


class Content(NamedTuple):
    """The content of a ring at one time."""

    header: Header
    data: bytes

    @classmethod
    def of(cls, data: bytes) -> Content | None:
        """The content from its bytes; None if they are not one whole ring."""
        header = Header.of(data)
        return cls(header, data) if header is not None and header.length == len(data) else None

    def starts(self) -> array[float]:
        """The start of the request in each slot; the first number is the count of requests without a slot."""
        return array("d", self.data[HEADER : self.header.first])

    @property
    def has_lost(self) -> bool:
        """Whether a record may have been overwritten: the last slot is used when all others have been."""
        return self.data[-8:] != bytes(8)

    def last_starts(self) -> list[float]:
        """The start of the latest request in each slot, even if that has ended."""
        return [head.unpack_from(self.data, at + HEAD_AT)[-1] for at in self.header.offsets()]


def durations(memory: mmap, header: Header) -> memoryview[float]:
    """The duration of the request in each slot, to be written."""
    return memoryview(memory)[header.first + HEAD_AT :].cast("d")[:: RECORD // 8]


def history(first: Content, second: Content) -> Iterator[Request]:
    """The requests that have been answered, in no order.

    The ring was read twice while its worker wrote. A record is whole if it was the same both times, because
    one that is being written has no duration.
    """
    header, data = second
    for at in header.offsets()[1:]:
        if first.data[at : at + RECORD] == data[at : at + RECORD]:
            request = _request(data, at)
            if request is not None:
                yield request


def in_flight(content: Content) -> Iterator[InFlight]:
    """The requests in progress; the starts must have been read before the records."""
    header, data = content
    for slot, start in enumerate(content.starts()):
        if slot and 0 < start < 1e11:
            at = header.first + RECORD * slot + HEAD_AT
            request = InFlight.of(slot, start, data[at : at + head.size])
            if request is not None:
                yield request


def _request(data: bytes, at: int) -> Request | None:
    trace_id, names, request_size, response_size, seconds = tail.unpack_from(data, at)
    _, request_id, _, _, path, _, lead, start = head.unpack_from(data, at + HEAD_AT)
    text = _text(names)
    # Without an answer yet, or not written by this package.
    if not (0 < seconds < 1e11 and 0 <= start + lead < 1e11 and _NAMES(text)):
        return None
    method, error_type, endpoint, rest = (*text[5:].split("\0", 3), "", "", "")[:4]
    rule, _, delay = rest.partition(DELAY)
    where, line, library, call = (*delay.split("\0"), "", "", "")[:4]
    return Request(
        start_time=start + lead,
        duration=seconds,
        method=method,
        url_rule=rule,
        endpoint=endpoint,
        path=_text(path),
        status=int(text[:3]),
        failed=text[3] == "1",
        error_type=error_type,
        request_size=request_size,
        response_size=response_size,
        request_id=_text(request_id),
        trace_id=_text(trace_id),
        disconnected=text[4] == "1",
        where=where,
        line=int(line) if line.isdecimal() else 0,
        library=library,
        call=call,
    )


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("utf-8", "replace")


def is_free(descriptor: int) -> bool:
    """Whether another worker may take this ring, which nobody holds: no request in progress would be lost."""
    header = Header.of(os.pread(descriptor, HEADER, 0))
    if header is None or not header.owner:
        return True
    starts = os.pread(descriptor, header.first - HEADER, HEADER)
    return starts == bytes(len(starts))


def read(directory: str, most: int) -> Iterator[tuple[int, Content, Content]]:
    """The number of each ring and its content, read twice; raises OSError if the directory cannot be read.

    Rings with more than `most` records and foreign files are left out.
    """
    for number, descriptor in ring.descriptors(directory, KIND):
        first, second = content(descriptor, most), content(descriptor, most)
        if first is not None and second is not None and first.header.records == second.header.records:
            yield number, first, second


def content(descriptor: int, most: int) -> Content | None:
    """The content of an open ring; None for a ring with more than `most` records or a foreign file."""
    header = Header.of(os.pread(descriptor, HEADER, 0))
    if header is None or header.records > most or os.fstat(descriptor).st_size != header.length:
        return None
    return Content.of(guard.content(descriptor, header.length))
