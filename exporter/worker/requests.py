"""Requests in rings: each worker writes `requests_<n>.ring`, which all can read and which outlives it.

A request has one record: written when it comes in, completed when it has been answered, and kept until its
place is needed, so a record is an in-flight slot first and part of the flight recorder afterwards. Layout,
little-endian: a header of 64 bytes; for each record the monotonic second at which its request came in, or 0.0
when that is over; the records. These seconds stand apart because counts and ages need nothing else.

There is no checksum. The last field that a writer fills in commits the rest: the duration the tail, which
comes first, and the start the head. A record whose writer was killed half-way is still running, or not there.
Readers do not map the file: one that is cut short would end them with SIGBUS.
"""

from __future__ import annotations

import os
import re
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from exporter import guard
from exporter.labels import METHODS, OTHER_METHOD
from exporter.worker import ring

KIND = "requests"
RECORD = 608
HEADER = 64
OWNER_AT = 24
"""Where in the header the owner's process id lies."""
HEAD_AT = 248
"""Where in a record the duration lies, and with it the head begins."""

_MAGIC = b"request1"
_header = struct.Struct("<8sIIdQ32s")
tail = struct.Struct("<32s200sqqd")
"""Trace id, names, size of the request and of the response in bytes, duration in seconds or 0.0."""
head = struct.Struct("<d64s8sH254sQdd")
"""The duration again, request id, method, length of the script name, path, thread, the wall clock's lead on
the monotonic one in seconds, and the start in monotonic seconds."""

LASTING = -1.0
"""The duration of a stream or a websocket that is open: it has begun its answer, and is meant to last."""
NAMES_LIMIT = 200
_RECORDS_LIMIT = 1_000_001

_NAMES = re.compile(r"[0-9]{3}[01]{2}").match  # what names begin with: status, failed, disconnected


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


@dataclass(frozen=True, slots=True)
class InFlight:
    """One request that is being answered.

    `sending` says whether its answer has begun; `answered` whether all of it was handed to the server, which
    may still be sending it.
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
    sending: bool
    answered: bool

    @classmethod
    def of(cls, slot: int, start: float, data: bytes) -> InFlight | None:
        """The request that came in at `start`; None if the head of its record is not its own."""
        if len(data) != head.size:
            return None
        answered, request_id, method, script, path, thread, lead, started = head.unpack(data)
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
            sending=answered != 0.0,
            answered=answered > 0.0,
        )

    @property
    def route(self) -> tuple[str, str]:
        """The method, and the path as the application routes it."""
        return self.method, self.path.removeprefix(self.script_name)

    @property
    def state(self) -> str:
        """`running`, or `sending` once the answer has begun."""
        return "sending" if self.sending else "running"


class Header(NamedTuple):
    """What a ring says of itself."""

    records: int
    """The first one is nobody's."""
    born: float
    """When its service began, in monotonic seconds."""
    owner: int
    """The process that writes it, or 0 where that is over and its last words have been read."""
    prefix: str
    """That of the request families."""

    @classmethod
    def of(cls, content: bytes) -> Header | None:
        """The header that a content begins with; None where it is none of ours."""
        if len(content) < HEADER:
            return None
        magic, size, records, born, owner, prefix = _header.unpack_from(content)
        if (magic, size) != (_MAGIC, RECORD) or not 1 < records <= _RECORDS_LIMIT or not born >= 0:
            return None
        return cls(records, born, owner, prefix.rstrip(b"\0").decode("utf-8", "replace"))

    def packed(self) -> bytes:
        """As it stands in a ring."""
        return _header.pack(_MAGIC, RECORD, self.records, self.born, self.owner, self.prefix.encode())

    @property
    def first(self) -> int:
        """Where the records begin."""
        return HEADER + 8 * self.records

    def places(self) -> range:
        """Where each record begins."""
        return range(self.first, self.length, RECORD)

    @property
    def length(self) -> int:
        """The length of the ring, in bytes."""
        return self.first + RECORD * self.records


class Content(NamedTuple):
    """A ring that was read once."""

    header: Header
    data: bytes

    @classmethod
    def of(cls, data: bytes) -> Content | None:
        """None where it is no whole ring of ours."""
        header = Header.of(data)
        return cls(header, data) if header is not None and header.length == len(data) else None

    def starts(self) -> array[float]:
        """When the request in each place came in; the first is the number of those without a place."""
        return array("d", self.data[HEADER : self.header.first])

    def last_starts(self) -> list[float]:
        """When the last request in each place came in, which may be over."""
        return [head.unpack_from(self.data, at + HEAD_AT)[-1] for at in self.header.places()]


def finished(first: Content, second: Content) -> Iterator[Request]:
    """The requests that have been answered, in no order.

    The ring was read twice while others wrote it: what is the same before and after holds for what is
    between.
    """
    header, data = second
    for at in header.places()[1:]:
        begin, end = at + HEAD_AT, at + RECORD
        if (
            first.data[begin : begin + 8] == data[begin : begin + 8]
            and first.data[end - 8 : end] == data[end - 8 : end]
        ):
            request = _finished(data, at)
            if request is not None:
                yield request


def in_flight(content: Content) -> Iterator[InFlight]:
    """The requests that are being answered: their starts were read first, and their records afterwards."""
    header, data = content
    for slot, start in enumerate(content.starts()):
        if slot and 0 < start < 1e11:
            at = header.first + RECORD * slot + HEAD_AT
            request = InFlight.of(slot, start, data[at : at + head.size])
            if request is not None:
                yield request


def _finished(data: bytes, at: int) -> Request | None:
    trace_id, names, request_size, response_size, seconds = tail.unpack_from(data, at)
    _, request_id, _, _, path, _, lead, start = head.unpack_from(data, at + HEAD_AT)
    text = _text(names)
    # Not answered, or nobody of ours has written it.
    if not (0 < seconds < 1e11 and 0 <= start + lead < 1e11 and _NAMES(text)):
        return None
    method, error_type, endpoint, rule = (*text[5:].split("\0", 3), "", "", "")[:4]
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
    )


def _text(field: bytes) -> str:
    return field.rstrip(b"\0").decode("utf-8", "replace")


def is_free(descriptor: int) -> bool:
    """Whether another worker may take this ring, which nobody holds: nothing in it is still to be read."""
    header = Header.of(os.pread(descriptor, HEADER, 0))
    if header is None or not header.owner:
        return True
    starts = os.pread(descriptor, header.first - HEADER, HEADER)
    return starts == bytes(len(starts))


def read(directory: str, most: int) -> Iterator[tuple[int, Content, Content]]:
    """The number of each ring and its content, read twice; raises OSError where the directory cannot be read.

    What has more than `most` records, or is no ring of ours, is left out.
    """
    for number, descriptor in ring.opened(directory, KIND):
        first, second = content(descriptor, most), content(descriptor, most)
        if first is not None and second is not None and first.header.records == second.header.records:
            yield number, first, second


def content(descriptor: int, most: int) -> Content | None:
    """What an open ring contains; None where it has more than `most` records, or is none of ours."""
    header = Header.of(os.pread(descriptor, HEADER, 0))
    if header is None or header.records > most or os.fstat(descriptor).st_size != header.length:
        return None
    return Content.of(guard.content(descriptor, header.length))
