"""Stacks of requests that take long, in rings that all workers can read: whoever is asked tells of all.

The sampler of each worker writes a ring of its own, `samples_<n>.ring`, when it looks at such a request.
While one call keeps the interpreter for itself it looks at none, and the last stack stays with its time.

Layout, little-endian: the magic bytes and the owner's process id, padded to 64 bytes, then records of 4 KiB:
checksum (4), length of the text (4), start of the request and time of the sample in monotonic seconds, and
the lines of the stack. What is being overwritten does not fit its checksum and is not shown.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Container, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple
from zlib import crc32

from exporter import forks
from exporter.worker import ring

RECORDS = 64
"""So many requests of a worker have a stack that others can read."""

_KIND = "samples"
_MAGIC = b"sample01"
_SIZE = 4096
_header = struct.Struct("<8sQ48s")
_checksum = struct.Struct("<I")
_numbers = struct.Struct("<Idd")
_TEXT_AT = _checksum.size + _numbers.size
_LENGTH = _header.size + RECORDS * _SIZE
_RETRY_SECONDS = 1.0
_INTERVAL = 0.5


class Sample(NamedTuple):
    """The stack of a request at the time of its last sample."""

    time: float
    """Monotonic seconds."""
    lines: list[str]


Stacks = Mapping[tuple[int, float], Sample]
"""Stacks by the process that answers the request, and the request's start."""


class StackRing:
    """The stacks that the sampler of this process has taken, for one thread; none without a directory."""

    _places: dict[float, tuple[int, float]]
    """The place of each request by its start, and the time of the last sample in it."""
    _retry_at: float

    def __init__(self, directory: str | None) -> None:
        self._directory = directory
        self.after_fork()
        forks.forget(self)

    def free(self, living: Container[float]) -> None:
        """Give up the places of requests that are over: of those that started at none of these times."""
        for started in [started for started in self._places if started not in living]:
            del self._places[started]

    def is_due(self, started: float, now: float) -> bool:
        """Whether the stack of a request is worth its 6 µs: there is room, and none is recent."""
        if self._directory is None or now < self._retry_at:
            return False
        if started in self._places:
            return now - self._places[started][1] >= _INTERVAL
        return len(self._places) < RECORDS

    def write(self, started: float, lines: Sequence[str], now: float) -> None:
        """Keep the stack of a request that is due. Raises OSError where there is no directory, or no room."""
        used = {place for place, _ in self._places.values()}
        place, _ = self._places.get(started) or (min({*range(RECORDS)} - used), now)
        try:
            if self._descriptor < 0:
                self._open()
            os.pwrite(self._descriptor, _packed(started, lines, now), _header.size + place * _SIZE)
        except OSError:
            self._retry_at = now + _RETRY_SECONDS
            raise
        self._places[started] = place, now

    def after_fork(self) -> None:
        """Begin without a ring: the parent goes on writing its own."""
        self._descriptor = -1
        self._places = {}
        self._retry_at = 0.0

    def _open(self) -> None:
        assert self._directory is not None  # noqa: S101  nothing is due without one
        _, descriptor = ring.claim(self._directory, _KIND)
        forks.keep(descriptor)
        self._descriptor = descriptor
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, _header.pack(_MAGIC, os.getpid(), b""), 0)


def read_stacks(directory: str | None) -> Stacks:
    """The stacks in all rings, also of requests that are over and of dead workers."""
    stacks: dict[tuple[int, float], Sample] = {}
    if directory is not None:
        with suppress(OSError):
            for content in ring.contents(directory, _KIND, _LENGTH):
                stacks |= _stacks(content)
    return stacks


def _packed(started: float, lines: Sequence[str], now: float) -> bytes:
    text = "\n".join(lines).encode("utf-8", "replace")
    if len(text) > _SIZE - _TEXT_AT:  # then the outermost calls are left out
        text = text[_TEXT_AT - _SIZE :].partition(b"\n")[2]
    body = _numbers.pack(len(text), started, now) + text
    return _checksum.pack(crc32(body)) + body


def _stacks(content: bytes) -> Stacks:
    stacks: dict[tuple[int, float], Sample] = {}
    if len(content) < _header.size or not content.startswith(_MAGIC):
        return stacks
    _, owner, _ = _header.unpack_from(content)
    for at in range(_header.size, len(content) - _TEXT_AT, _SIZE):
        (checksum,) = _checksum.unpack_from(content, at)
        length, started, moment = _numbers.unpack_from(content, at + _checksum.size)
        end = at + _TEXT_AT + length
        if length <= _SIZE - _TEXT_AT and crc32(content[at + _checksum.size : end]) == checksum and length:
            lines = content[at + _TEXT_AT : end].decode("utf-8", "replace").split("\n")
            stacks[owner, started] = Sample(moment, lines)
    return stacks
