"""One-second slots of the last minute: requests and errors, and the exact minimum and maximum of each group.

Each process writes a ring of its own, `slots_<n>.ring` in the worker directory, or anonymous memory if there
is no directory. The next worker takes over the ring of a dead one, with its last minute.

Layout, native byte order: the end of the entries (8 bytes), then an entry for each group: the length of its
name in bytes (8), the name padded to a multiple of 8, and 60 slots of five doubles: second, minimum, maximum,
requests, errors. Seconds are those of the system-wide monotonic clock.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import time
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from operator import itemgetter

from exporter import guard, posix
from exporter.worker import ring

WINDOW = 60
SLOT = 5
_SLOTS_BYTES = WINDOW * SLOT * 8
_INITIAL = 1 << 16
_LENGTH = struct.Struct("q")
# The most groups of a dead worker that are taken over; the latest ones.
_GROUPS_LIMIT = 1000


class Slots:
    """Writes the slots of this process, and reads those of all processes.

    `view` is the memory as doubles. Writers hold the lock of the recorders. Readers need no lock, because a
    reused slot gets its values first and its second last.
    """

    def __init__(self, directory: str | None) -> None:
        """Claim a ring in `directory`; raises OSError if none can be claimed."""
        self._directory: str | None = None
        self._descriptor = -1
        self._map = mmap.mmap(-1, _INITIAL)
        self.view = memoryview(self._map).cast("d")
        self._entries: dict[str, int] = {}
        self._end = 8
        if directory is not None:
            self.move(directory)

    @property
    def is_shared(self) -> bool:
        """Whether the slots lie in a file, for every worker to read."""
        return self._directory is not None

    def move(self, directory: str) -> None:
        """Go on in a ring of this directory; an OSError leaves everything as it was.

        A process without groups takes over those of the ring's last owner, as far as they are of the last
        minute. A process with groups keeps its own, at their offsets.
        """
        _, descriptor = ring.claim(directory, "slots")
        try:
            content = self._map[: self._end]
            if not self._entries:
                content = _recent(guard.content(descriptor))
            size = max(_INITIAL, 1 << (len(content) - 1).bit_length())
            os.ftruncate(descriptor, 0)  # readers see nothing until the new content is there
            posix.reserve(descriptor, size)
            memory = mmap.mmap(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
        memory[8 : len(content)] = content[8:]
        memory[:8] = _LENGTH.pack(len(content))
        self.close()
        self._directory, self._descriptor = directory, descriptor
        self._map, self._end = memory, len(content)
        self.view = memoryview(memory).cast("d")
        self._entries = {name: start >> 3 for name, start in _walk(content)}

    def entry(self, name: str) -> int:
        """The index into `view` of the first slot of this group; a new group gets an entry."""
        index = self._entries.get(name)
        if index is not None:
            return index
        text = name.encode(errors="surrogatepass")
        padding = bytes(-len(text) % 8)
        start = self._end + 8 + len(text) + len(padding)
        self._grow(start + _SLOTS_BYTES)
        self._map[self._end : start + _SLOTS_BYTES] = (
            _LENGTH.pack(len(text)) + text + padding + bytes(_SLOTS_BYTES)
        )
        self._end = start + _SLOTS_BYTES
        self._map[:8] = _LENGTH.pack(self._end)
        self._entries[name] = start >> 3
        return start >> 3

    def close(self) -> None:
        """Give the ring up; the last minute in it stays readable."""
        with suppress(BufferError):  # a recorder still has a view, and the memory is freed with that
            self.view.release()
            self._map.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def totals(self, now: float) -> tuple[int, int]:
        """Requests and errors of the last 60 seconds before `now` (monotonic seconds), over all workers."""
        requests = errors = 0.0
        for _, slots in self._read():
            for _, _, _, count, failures in _last_minute(slots, now):
                requests += count
                errors += failures
        return round(requests), round(errors)

    def extremes(self, now: float) -> dict[str, tuple[float, float]]:
        """Minimum and maximum duration of each group in the last 60 seconds, over all workers."""
        extremes: dict[str, tuple[float, float]] = {}
        for name, slots in self._read():
            for _, low, high, _, _ in _last_minute(slots, now):
                lowest, highest = extremes.get(name, (low, high))
                extremes[name] = min(low, lowest), max(high, highest)
        return extremes

    def _grow(self, end: int) -> None:
        size = len(self._map)
        if end <= size:
            return
        size = max(2 * size, end)
        if size > guard.LIMIT:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        if self._descriptor >= 0:
            # Reserved, not only extended: a write into a hole of a full disk is SIGBUS.
            posix.reserve(self._descriptor, size)
            memory = mmap.mmap(self._descriptor, size)
        else:
            memory = mmap.mmap(-1, size)
            memory[: self._end] = self._map[: self._end]
        # The old mapping lives as long as a recorder holds its view; both mappings of a file show the same.
        self._map = memory
        self.view = memoryview(memory).cast("d")

    def _read(self) -> Iterator[tuple[str, array[float]]]:
        if self._directory is None:
            contents: Iterable[bytes] = [self._map[: self._end]]
        else:
            contents = ring.contents(self._directory, "slots", guard.LIMIT)
        for content in contents:
            try:
                for name, start in _walk(_entries(content)):
                    yield name, array("d", content[start : start + _SLOTS_BYTES])
            except (ValueError, struct.error):
                continue  # a truncated or damaged ring costs its own slots only


def _entries(content: bytes) -> bytes:
    return content[: _LENGTH.unpack_from(content)[0]] if len(content) >= 8 else b""


def _recent(content: bytes) -> bytes:
    """The content with the groups of its last minute alone, because clients may invent groups."""
    groups = []
    with suppress(ValueError, struct.error):
        position, entries = 8, _entries(content)
        for _, start in _walk(entries):
            end = start + _SLOTS_BYTES
            # Seconds in the future were written before the machine was restarted.
            latest = max(s for s in (0.0, *array("d", entries[start:end])[::SLOT]) if s <= time.monotonic())
            groups.append((latest, entries[position:end]))
            position = end
    groups.sort(key=itemgetter(0))
    oldest = max(groups[-1][0] - WINDOW, 0.0) if groups else 0.0
    return bytes(8) + b"".join(group for latest, group in groups[-_GROUPS_LIMIT:] if latest > oldest)


def _walk(content: bytes) -> Iterator[tuple[str, int]]:
    """The name of each entry, and the offset of its slots in bytes."""
    position = 8
    while position < len(content):
        length = _LENGTH.unpack_from(content, position)[0]
        start = position + 8 + length + -length % 8
        if length < 0 or start + _SLOTS_BYTES > len(content):
            raise ValueError("entry out of bounds")
        name = content[position + 8 : position + 8 + length].decode(errors="surrogatepass")
        yield name, start
        position = start + _SLOTS_BYTES


def _last_minute(slots: array[float], now: float) -> list[tuple[float, ...]]:
    latest = int(now)
    oldest = latest - WINDOW
    return [
        tuple(slots[start : start + SLOT])
        for start in range(0, len(slots), SLOT)
        if oldest < slots[start] <= latest
    ]
