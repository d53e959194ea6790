"""Error groups: what fails, how often and since when, in files that all workers read and that outlive them.

Each worker counts in a file of its own, `errors_<n>.groups`, which the next worker takes over with its
groups, also where the whole service was started anew. Readers do not map it: a file that is cut short would
end them with SIGBUS.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from operator import attrgetter
from time import monotonic, time

from exporter import forks, posix
from exporter.labels import OTHER
from exporter.observation import Fingerprint, Observation
from exporter.worker import ring
from exporter.worker.errorslots import (
    COUNT_AT,
    HEADER,
    SIZE,
    SLOT,
    SLOTS,
    START,
    Group,
    pack,
    pack_request,
    pack_version,
    together,
    unpack,
)

OTHERS = Fingerprint(OTHER, OTHER, OTHER)
"""Takes what finds no room; it has the last slot."""

_LIMIT = SLOTS - 1
_DAY = 86_400.0  # a group that has not happened for so long (s) makes room for a new one
_PAUSE = 1.0  # how long (s) nothing is tried again where there was no room, for a group or for the file


class ErrorGroups:
    """The groups that this process counts, and the sight of those of all workers.

    They are in private memory without a `directory`, and while it has no room. Nothing is opened before the
    first error.
    """

    def __init__(
        self,
        directory: str | None = None,
        version: str = "",
        failed: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        """`version` is the application's own; `failed` is told why the directory cannot be used."""
        self._directory = directory
        self._version = version
        self._failed = failed
        self._lock = forks.Lock()
        self.after_fork()
        forks.forget(self)

    def lacks(self, fingerprint: Fingerprint) -> bool:
        """Whether the traceback of this group is wanted."""
        return fingerprint.error_group not in self._places and monotonic() >= self._full_until

    def admit(self, fingerprint: Fingerprint) -> Fingerprint:
        """What these errors are counted as: `OTHERS` where there is no room for the group."""
        with self._lock:
            return fingerprint if self._place(fingerprint.error_group) is not None else OTHERS

    def count(self, observation: Observation, fingerprint: Fingerprint) -> Fingerprint:
        """Count a failed request, and return what it is counted as: 1 µs for a group that is there."""
        now = time()
        with self._lock:
            number = self._place(fingerprint.error_group)
            if number is None:
                number, fingerprint = _LIMIT, OTHERS
            at = _count_at(number)
            count = self._counts[at]
            if count == 0:
                self._write(number, _first(observation, fingerprint, now, self._version))
                return fingerprint
            slot = HEADER + number * SLOT
            pack_request(self._memory, slot, count, now, observation.request_id)
            if number not in self._renewed:
                self._renewed.add(number)
                pack_version(self._memory, slot, self._version)
            self._counts[at] = count + 1
        return fingerprint

    def read(self) -> list[Group]:
        """The groups of all workers, living and dead, the latest first.

        Raises OSError where the directory cannot be read.
        """
        groups: dict[Fingerprint, list[Group]] = {}
        for content in self._contents():
            for _, group in unpack(content):
                groups.setdefault(group.fingerprint, []).append(group)
        return sorted(map(together, groups.values()), key=attrgetter("last"), reverse=True)

    def move(self) -> None:
        """Give the file up: it has been removed, or this process begins anew."""
        with self._lock:
            self.after_fork()

    def after_fork(self) -> None:
        """Begin without a file: the parent's would have two writers."""
        self._counts = memoryview(b"").cast("Q")
        self._memory = _NONE
        self._places = {OTHER: _LIMIT}  # the slots of the groups that this process counts
        self._renewed: set[int] = set()  # those that have this version
        self._shared = False
        self._retry_at = self._full_until = 0.0

    def _contents(self) -> Iterator[bytes]:
        if not self._shared:
            yield self._memory[:]
        if self._directory is not None:
            yield from ring.contents(self._directory, "errors", SIZE, ending="groups")

    def _place(self, group: str) -> int | None:
        """The number of a group's slot; None where there is no room. The caller has the lock."""
        if not self._counts or not (self._shared or self._directory is None):
            self._settle()
        number = self._places.get(group)
        if number is None and monotonic() >= self._full_until:
            number = self._room(group)
            if number is None:
                self._full_until = monotonic() + _PAUSE
            else:
                self._counts[_count_at(number)] = 0
                self._places[group] = number
        return number

    def _room(self, group: str) -> int | None:
        """A slot for a group that this process has not counted yet.

        Those of all workers count, so that many workers have no more groups than one.
        """
        try:
            last = {other.fingerprint.error_group: other.last for other in self.read()}
        except OSError:  # then this process counts for itself
            last = {}
        last[OTHER] = math.inf
        oldest = time() - _DAY
        if group not in last and sum(at > oldest for at in last.values()) > _LIMIT:
            return None
        free = set(range(_LIMIT)) - set(self._places.values())
        if free:
            return min(free)
        stale = min(self._places, key=lambda own: last.get(own, 0.0))
        return self._places.pop(stale) if last.get(stale, 0.0) <= oldest else None

    def _settle(self) -> None:
        """Take a file, or private memory while there is none."""
        now = monotonic()
        if self._directory is not None and now >= self._retry_at:
            self._retry_at = now + _PAUSE
            try:
                self._take(_claimed(self._directory))
                self._shared = True
            except OSError as error:
                self._failed(error)
        if not self._counts:
            memory = mmap.mmap(-1, SIZE)
            memory[:HEADER] = START
            self._take(memory)

    def _take(self, memory: mmap.mmap) -> None:
        """Go on in another memory: with the groups of the dead worker that had it, and with one's own."""
        own = [group for _, group in unpack(self._memory[:])]
        self._memory, self._counts = memory, memoryview(memory).cast("Q")
        self._places = {OTHER: _LIMIT}
        self._renewed.clear()
        groups: dict[int, Group] = {}
        for number, group in unpack(memory[:]):
            name = group.fingerprint.error_group
            if self._places.get(name, number) == number and (number < _LIMIT or name == OTHER):
                self._places[name] = number
                groups[number] = group
        for number in set(range(SLOTS)) - groups.keys():
            self._counts[_count_at(number)] = 0
        for group in own:
            free = set(range(_LIMIT)) - set(self._places.values())
            number = self._places.get(group.fingerprint.error_group, min(free, default=_LIMIT))
            if number == _LIMIT:
                group = replace(group, fingerprint=OTHERS, traceback="")
            self._places[group.fingerprint.error_group] = number
            groups[number] = together([group, groups[number]]) if number in groups else group
            self._write(number, groups[number])

    def _write(self, number: int, group: Group) -> None:
        """Write a slot anew; a reader sees all of it or nothing."""
        self._counts[_count_at(number)] = 0
        slot = HEADER + number * SLOT
        self._memory[slot : slot + SLOT] = pack(group)


_NONE = mmap.mmap(-1, 1)
"""Stands in for the memory before the first error."""


def _first(observation: Observation, fingerprint: Fingerprint, now: float, version: str) -> Group:
    """A group with its first error."""
    traceback = "" if fingerprint is OTHERS else observation.traceback
    request = (now, observation.request_id)
    return Group(fingerprint, 1, now, (request,), observation.rule, version, version, traceback)


def _count_at(number: int) -> int:
    """The index of a slot's count among the 64-bit numbers of a file."""
    return (HEADER + number * SLOT + COUNT_AT) >> 3


def _claimed(directory: str) -> mmap.mmap:
    """A file of this process alone, as the worker that had it has left it; raises OSError."""
    _, descriptor = ring.claim(directory, "errors", ending="groups")
    try:
        content = os.pread(descriptor, SIZE + 1, 0)
        if len(content) != SIZE or not content.startswith(START):  # new, of another release, or garbage
            os.ftruncate(descriptor, 0)
            posix.reserve(descriptor, SIZE)  # a full disk is an error here, not SIGBUS at a write
            os.pwrite(descriptor, START, 0)
        # The mapping keeps a duplicate of the descriptor, and with it the lock, until it is dropped.
        return mmap.mmap(descriptor, SIZE)
    finally:
        os.close(descriptor)
