"""Error groups: the kinds of errors with counts and times, in rings that all workers can read.

Each worker counts in a ring of its own, `errors_<n>.groups`. The next worker takes the ring over with its
groups, even after a restart of the whole service. Readers do not map a ring, because a truncated one would
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
    merge,
    pack,
    pack_request,
    pack_version,
    unpack,
)

OTHERS = Fingerprint(OTHER, OTHER, OTHER)
"""The group of all errors whose own group finds no room; it has the last slot."""

_LIMIT = SLOTS - 1
_DAY = 86_400.0  # a group without an error for so long (s) makes room for a new one
_PAUSE = 1.0  # the time (s) between two attempts to find room, for a group or for the ring


class ErrorGroups:
    """Counts the groups of this process, and reads those of all workers.

    Without a `directory`, or without room in it, the ring is private memory. It is opened at the first error.
    """

    def __init__(
        self,
        directory: str | None = None,
        version: str = "",
        on_failure: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        """`version` is that of the application; `on_failure` is called with each error of the directory."""
        self._directory = directory
        self._version = version
        self._on_failure = on_failure
        self._lock = forks.Lock()
        self.after_fork()
        forks.forget(self)

    def lacks(self, fingerprint: Fingerprint) -> bool:
        """Whether this process needs a traceback of this group."""
        return fingerprint.error_group not in self._slots and monotonic() >= self._full_until

    def admit(self, fingerprint: Fingerprint) -> Fingerprint:
        """The group under which these errors are counted; `OTHERS` if this one finds no room."""
        with self._lock:
            return fingerprint if self._slot(fingerprint.error_group) is not None else OTHERS

    def count(self, observation: Observation, fingerprint: Fingerprint) -> Fingerprint:
        """Count a failed request, and return its group as `admit`; costs 1 µs if the group has a slot."""
        now = time()
        with self._lock:
            number = self._slot(fingerprint.error_group)
            if number is None:
                number, fingerprint = _LIMIT, OTHERS
            at = _count_at(number)
            count = self._counts[at]
            if count == 0:
                self._write(number, _first(observation, fingerprint, now, self._version))
                return fingerprint
            slot = HEADER + number * SLOT
            pack_request(self._memory, slot, count, now, observation.request_id)
            if number not in self._current_slots:
                self._current_slots.add(number)
                pack_version(self._memory, slot, self._version)
            self._counts[at] = count + 1
        return fingerprint

    def read(self) -> list[Group]:
        """The groups of all workers, living and dead, the latest first.

        Raises OSError if the directory cannot be read.
        """
        groups: dict[Fingerprint, list[Group]] = {}
        for content in self._contents():
            for _, group in unpack(content):
                groups.setdefault(group.fingerprint, []).append(group)
        return sorted(map(merge, groups.values()), key=attrgetter("last"), reverse=True)

    def move(self) -> None:
        """Give the ring up, because its file has been removed."""
        with self._lock:
            self.after_fork()

    def after_fork(self) -> None:
        """Begin without a ring, because the parent still writes its own."""
        self._counts = memoryview(b"").cast("Q")
        self._memory = _NONE
        self._slots = {OTHER: _LIMIT}  # the slot of each group of this process
        self._current_slots: set[int] = set()  # slots with the version of this process
        self._is_shared = False
        self._retry_at = self._full_until = 0.0

    def _contents(self) -> Iterator[bytes]:
        if not self._is_shared:
            yield self._memory[:]
        if self._directory is not None:
            yield from ring.contents(self._directory, "errors", SIZE, suffix="groups")

    def _slot(self, group: str) -> int | None:
        """The slot of a group; None if there is no room. The caller holds the lock."""
        if not self._counts or not (self._is_shared or self._directory is None):
            self._settle()
        number = self._slots.get(group)
        if number is None and monotonic() >= self._full_until:
            number = self._room(group)
            if number is None:
                self._full_until = monotonic() + _PAUSE
            else:
                self._counts[_count_at(number)] = 0
                self._slots[group] = number
        return number

    def _room(self, group: str) -> int | None:
        """A slot for a group that is new to this process.

        The limit holds for the groups of all workers together.
        """
        try:
            last = {other.fingerprint.error_group: other.last for other in self.read()}
        except OSError:  # without the others, the limit holds for this process alone
            last = {}
        last[OTHER] = math.inf
        oldest = time() - _DAY
        if group not in last and sum(at > oldest for at in last.values()) > _LIMIT:
            return None
        free = set(range(_LIMIT)) - set(self._slots.values())
        if free:
            return min(free)
        stale = min(self._slots, key=lambda own: last.get(own, 0.0))
        return self._slots.pop(stale) if last.get(stale, 0.0) <= oldest else None

    def _settle(self) -> None:
        """Claim a ring, or use private memory until there is one."""
        now = monotonic()
        if self._directory is not None and now >= self._retry_at:
            self._retry_at = now + _PAUSE
            try:
                self._take(_claim(self._directory))
                self._is_shared = True
            except OSError as error:
                self._on_failure(error)
        if not self._counts:
            memory = mmap.mmap(-1, SIZE)
            memory[:HEADER] = START
            self._take(memory)

    def _take(self, memory: mmap.mmap) -> None:
        """Go on in another memory, with the groups of its former owner and those of this process."""
        own = [group for _, group in unpack(self._memory[:])]
        self._memory, self._counts = memory, memoryview(memory).cast("Q")
        self._slots = {OTHER: _LIMIT}
        self._current_slots.clear()
        groups: dict[int, Group] = {}
        for number, group in unpack(memory[:]):
            name = group.fingerprint.error_group
            if self._slots.get(name, number) == number and (number < _LIMIT or name == OTHER):
                self._slots[name] = number
                groups[number] = group
        for number in set(range(SLOTS)) - groups.keys():
            self._counts[_count_at(number)] = 0
        for group in own:
            free = set(range(_LIMIT)) - set(self._slots.values())
            number = self._slots.get(group.fingerprint.error_group, min(free, default=_LIMIT))
            if number == _LIMIT:
                group = replace(group, fingerprint=OTHERS, traceback="")
            self._slots[group.fingerprint.error_group] = number
            groups[number] = merge([group, groups[number]]) if number in groups else group
            self._write(number, groups[number])

    def _write(self, number: int, group: Group) -> None:
        """Write a whole slot; a reader that meets half of it finds a wrong checksum."""
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


def _claim(directory: str) -> mmap.mmap:
    """A ring for this process, with the content of its former owner; raises OSError."""
    _, descriptor = ring.claim(directory, "errors", suffix="groups")
    try:
        content = os.pread(descriptor, SIZE + 1, 0)
        if len(content) != SIZE or not content.startswith(START):  # new or damaged
            os.ftruncate(descriptor, 0)
            posix.reserve(descriptor, SIZE)  # a full disk is an error here, not SIGBUS at a write
            os.pwrite(descriptor, START, 0)
        # The mapping keeps a duplicate of the descriptor, and with it the lock, until it is dropped.
        return mmap.mmap(descriptor, SIZE)
    finally:
        os.close(descriptor)
