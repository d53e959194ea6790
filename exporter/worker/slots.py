"""One-second slots of the last minute: requests and errors, and the exact minimum and maximum of each group.

Each process writes a ring of its own, `slots_<n>.ring` in the worker directory, or anonymous memory where
there is none. The next worker inherits the ring with the last minute of a dead one.

Layout, native byte order: used bytes (8), then for each group the length of its name in bytes (8), the name
padded to 8, and 60 slots of five doubles: second, minimum, maximum, requests, errors. Seconds are of the
system-wide monotonic clock.
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
# So many groups of a dead worker are taken over, the latest ones.
_INHERITED = 1000


class Slots:
    """The slots that this process writes, and the sight of all processes'.

    `view` is the memory as doubles. Writers hold the recorder's lock; readers need none: a slot that begins
    anew gets its values first and its second last.
    """

    def __init__(self, directory: str | None) -> None:
        """Claim a file in `directory`; raises OSError where that is not possible."""
        self._directory: str | None = None
        self._descriptor = -1
        self._map = mmap.mmap(-1, _INITIAL)
        self.view = memoryview(self._map).cast("d")
        self._entries: dict[str, int] = {}
        self._used = 8
        self._map[:8] = _LENGTH.pack(8)
        if directory is not None:
            self.move(directory)

    @property
    def shared(self) -> bool:
        """Whether they lie in a file, for every worker to see."""
        return self._directory is not None

    def move(self, directory: str) -> None:
        """Go on in a file of this directory; raises OSError, with everything as it was.

        Of the worker that had the file before, the groups of the last minute are taken over. Where there are
        groups already, they keep their places.
        """
        _, descriptor = ring.claim(directory, "slots")
        try:
            content = self._map[: self._used]
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
        self._map, self._used = memory, len(content)
        self.view = memoryview(memory).cast("d")
        self._entries = {name: start >> 3 for name, start in _walk(content)}

    def entry(self, name: str) -> int:
        """The index into `view` of the first slot of this group; makes the entry where there is none."""
        place = self._entries.get(name)
        if place is not None:
            return place
        encoded = name.encode(errors="surrogatepass")
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
        if size > guard.LIMIT:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
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
            contents: Iterable[bytes] = [self._map[: self._used]]
        else:
            contents = ring.contents(self._directory, "slots", guard.LIMIT)
        for content in contents:
            try:
                for name, start in _walk(_used(content)):
                    yield name, array("d", content[start : start + _SLOTS_BYTES])
            except (ValueError, struct.error):
                continue  # cut short or garbage: it costs its own slots only


def _used(content: bytes) -> bytes:
    return content[: _LENGTH.unpack_from(content)[0]] if len(content) >= 8 else b""


def _recent(content: bytes) -> bytes:
    """The part of a content that its last minute is in: what clients make up must not outlive them all."""
    entries = []
    with suppress(ValueError, struct.error):
        position, used = 8, _used(content)
        for _, start in _walk(used):
            end = start + _SLOTS_BYTES
            # Later seconds are of the time before the machine was started anew.
            seen = max(s for s in (0.0, *array("d", used[start:end])[::SLOT]) if s <= time.monotonic())
            entries.append((seen, used[position:end]))
            position = end
    entries.sort(key=itemgetter(0))
    oldest = max(entries[-1][0] - WINDOW, 0.0) if entries else 0.0
    return bytes(8) + b"".join(entry for seen, entry in entries[-_INHERITED:] if seen > oldest)


def _walk(content: bytes) -> Iterator[tuple[str, int]]:
    """The name and the offset in bytes of the slots of each entry."""
    position = 8
    while position < len(content):
        length = _LENGTH.unpack_from(content, position)[0]
        start = position + 8 + length + -length % 8
        if length < 0 or start + _SLOTS_BYTES > len(content):
            raise ValueError("entry out of bounds")
        name = content[position + 8 : position + 8 + length].decode(errors="surrogatepass")
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
