"""One-second slots of the last minute: requests and errors, and the exact minimum and maximum of each group.

Each process writes a ring of its own, `slots_<n>.ring` in the worker directory, or anonymous memory where
there is none. The next worker inherits the ring with the last minute of a dead one.

Layout, native byte order: used bytes (8), then for each group the length of its name in bytes (8), the name
padded to 8, and 60 slots of five doubles: second, minimum, maximum, requests, errors. Seconds are of the
system-wide monotonic clock.
"""

from __future__ import annotations

import mmap
import os
import struct
from array import array
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from exporter import posix
from exporter.worker import ring

WINDOW = 60
SLOT = 5
_SLOTS_BYTES = WINDOW * SLOT * 8
_INITIAL = 1 << 16
_LENGTH = struct.Struct("q")


class Slots:
    """The slots that this process writes, and the sight of all processes'.

    `view` is the memory as doubles. Writers hold the recorder's lock; readers need none: a slot that begins
    anew gets its values first and its second last.
    """

    def __init__(self, directory: str | None) -> None:
        """Claim a file in `directory`; raises OSError where that is not possible."""
        self._directory = directory
        self._descriptor = -1 if directory is None else ring.claim(directory, "slots")
        size = _INITIAL
        if self._descriptor >= 0:
            size = max(size, os.fstat(self._descriptor).st_size)
            posix.reserve(self._descriptor, size)
        self._map = mmap.mmap(self._descriptor, size)
        self.view = memoryview(self._map).cast("d")
        self._entries: dict[str, int] = {}
        self._used: int = _LENGTH.unpack_from(self._map)[0]
        try:
            for name, start in _walk(self._map[: self._used]):
                self._entries[name] = start >> 3
        except (ValueError, struct.error):
            self._entries.clear()
        if not self._entries:
            self._used = 8
            self._map[:8] = _LENGTH.pack(8)

    def entry(self, name: str) -> int:
        """The index into `view` of the first slot of this group; makes the entry where there is none."""
        place = self._entries.get(name)
        if place is not None:
            return place
        encoded = name.encode(errors="surrogateescape")
        padded = encoded + bytes(-len(encoded) % 8)
        start = self._used + 8 + len(padded)
        self._grow(start + _SLOTS_BYTES)
        self._map[self._used : start + _SLOTS_BYTES] = (
            _LENGTH.pack(len(encoded)) + padded + bytes(_SLOTS_BYTES)
        )
        self._used = start + _SLOTS_BYTES
        self._map[:8] = _LENGTH.pack(self._used)
        self._entries[name] = start >> 3
        return start >> 3

    def close(self) -> None:
        """Give the file up; its content stays for the last minute's sake."""
        with suppress(BufferError):  # somebody still looks at the memory: it goes with the last of them
            self.view.release()
            self._map.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def totals(self, now: float) -> tuple[int, int]:
        """Requests and errors of the last 60 seconds before `now` (monotonic seconds), over all workers."""
        requests = errors = 0.0
        for _, slots in self._read():
            for _, _, _, count, failures in _fresh(slots, now):
                requests += count
                errors += failures
        return round(requests), round(errors)

    def extremes(self, now: float) -> dict[str, tuple[float, float]]:
        """Minimum and maximum duration of each group in the last 60 seconds, over all workers."""
        extremes: dict[str, tuple[float, float]] = {}
        for name, slots in self._read():
            for _, low, high, _, _ in _fresh(slots, now):
                lowest, highest = extremes.get(name, (low, high))
                extremes[name] = min(low, lowest), max(high, highest)
        return extremes

    def _grow(self, needed: int) -> None:
        size = len(self._map)
        if needed <= size:
            return
        size = max(2 * size, needed)
        if self._descriptor >= 0:
            # Reserved, not only extended: a write into a hole of a full disk is SIGBUS.
            posix.reserve(self._descriptor, size)
            larger = mmap.mmap(self._descriptor, size)
        else:
            larger = mmap.mmap(-1, size)
            larger[: self._used] = self._map[: self._used]
        # The old mapping lives as long as somebody holds its view; for a file both show the same bytes.
        self._map = larger
        self.view = memoryview(larger).cast("d")

    def _read(self) -> Iterator[tuple[str, array[float]]]:
        if self._directory is None:
            contents = [self._map[: self._used]]
        else:
            contents = [_content(path) for path in ring.paths(self._directory, "slots")]
        for content in contents:
            try:
                for name, start in _walk(content):
                    yield name, array("d", content[start : start + _SLOTS_BYTES])
            except (ValueError, struct.error):
                continue  # cut short or garbage: it costs its own slots only


def _content(path: Path) -> bytes:
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(8)
            used = _LENGTH.unpack(head)[0] if len(head) == 8 else 0
            return os.pread(file.fileno(), max(0, min(used, 1 << 30)), 0)
    except FileNotFoundError:
        return b""


def _walk(content: bytes) -> Iterator[tuple[str, int]]:
    """The name and the offset in bytes of the slots of each entry."""
    position = 8
    while position < len(content):
        length = _LENGTH.unpack_from(content, position)[0]
        start = position + 8 + length + -length % 8
        if length < 0 or start + _SLOTS_BYTES > len(content):
            raise ValueError("entry out of bounds")
        name = content[position + 8 : position + 8 + length].decode(errors="surrogateescape")
        yield name, start
        position = start + _SLOTS_BYTES


def _fresh(slots: array[float], now: float) -> list[tuple[float, ...]]:
    latest = int(now)
    oldest = latest - WINDOW
    return [
        tuple(slots[start : start + SLOT])
        for start in range(0, len(slots), SLOT)
        if oldest < slots[start] <= latest
    ]
