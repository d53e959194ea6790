"""The slots of an errors ring: one error group each.

Layout, native byte order: a header of 64 bytes, then slots of 4 KiB. A slot begins with its constant part: a
checksum, the time of the first error and the texts. The latest requests with their times follow, then the
version, and at last the count. The count commits the rest, because readers copy a slot from its beginning to
its end.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from mmap import mmap
from sys import byteorder
from zlib import crc32

from exporter.observation import Fingerprint

SLOTS = 64
SLOT = 4096
HEADER = 64
SIZE = HEADER + SLOTS * SLOT
"""The bytes of a ring."""
START = struct.pack("=8sII", b"errors01", SLOT, SLOTS).ljust(HEADER, b"\0")
"""The header."""
COUNT_AT = SLOT - 8
"""The offset of the count in a slot, an unsigned 64-bit number."""

# The latest requests of a group for readers. A slot has room for one more, which may be half written.
_REQUESTS_LIMIT = 4

_HEAD = struct.Struct("=IId")  # checksum of the constant part, length of the texts, time of the first error
_REQUEST = struct.Struct("=d64s")
_VERSION = struct.Struct("=64s")
_VERSION_AT = COUNT_AT - _VERSION.size
_REQUESTS_AT = _VERSION_AT - (_REQUESTS_LIMIT + 1) * _REQUEST.size
_TEXTS_LIMIT = _REQUESTS_AT - _HEAD.size
_NAME_LIMIT = 500  # bytes of each text except the last one, the traceback

_GROUP = re.compile("[0-9a-f]{12}|_other").fullmatch
_REQUEST_ID = re.compile("[A-Za-z0-9._-]{0,64}").fullmatch


@dataclass(frozen=True, slots=True)
class Group:
    """Errors with the same fingerprint: times in seconds since the epoch."""

    fingerprint: Fingerprint
    count: int
    first: float
    requests: tuple[tuple[float, str], ...]
    """The time and the id ("" for none) of each, the latest first."""
    url_rule: str
    """The rule of the first error."""
    first_version: str
    version: str
    """The versions of the application at the first and the last error."""
    traceback: str

    @property
    def last(self) -> float:
        """The time of the last error."""
        return self.requests[0][0] if self.requests else self.first


def merge(groups: Sequence[Group]) -> Group:
    """Merge the groups of several workers with the same fingerprint into one."""
    requests = sorted((request for group in groups for request in group.requests), reverse=True)
    return replace(
        min(groups, key=lambda group: group.first),
        count=sum(group.count for group in groups),
        requests=tuple(requests[:_REQUESTS_LIMIT]),
        version=max(groups, key=lambda group: group.last).version,
    )


def pack(group: Group) -> bytes:
    """The slot of a group; long texts are cut."""
    names = (*group.fingerprint, group.url_rule, group.first_version)
    texts = b"".join(_encode(name)[:_NAME_LIMIT] + b"\0" for name in names)
    texts += _last_lines(_encode(group.traceback), _TEXTS_LIMIT - len(texts))
    slot = bytearray(SLOT)
    _HEAD.pack_into(slot, 0, _checksum(group.first, texts), len(texts), group.first)
    slot[_HEAD.size : _HEAD.size + len(texts)] = texts
    for number, (at, request_id) in enumerate(reversed(group.requests), group.count - len(group.requests)):
        pack_request(slot, 0, number, at, request_id)
    pack_version(slot, 0, group.version)
    slot[COUNT_AT:] = group.count.to_bytes(8, byteorder)
    return bytes(slot)


def pack_request(memory: bytearray | mmap, slot: int, number: int, at: float, request_id: str) -> None:
    """Write the time and the id of a group's request of this number; `slot` is the offset of the slot."""
    offset = slot + _REQUESTS_AT + number % (_REQUESTS_LIMIT + 1) * _REQUEST.size
    _REQUEST.pack_into(memory, offset, at, request_id.encode("latin-1", "replace"))


def pack_version(memory: bytearray | mmap, slot: int, version: str) -> None:
    """Write the version of the group's last error."""
    _VERSION.pack_into(memory, slot + _VERSION_AT, _encode(version))


def unpack(content: bytes) -> Iterator[tuple[int, Group]]:
    """The groups of a ring with the numbers of their slots, without damaged ones."""
    if len(content) != SIZE or not content.startswith(START):
        return
    for number in range(SLOTS):
        group = _group(content[HEADER + number * SLOT : HEADER + (number + 1) * SLOT])
        if group is not None:
            yield number, group


def _group(slot: bytes) -> Group | None:
    count = int.from_bytes(slot[COUNT_AT:], byteorder)
    checksum, length, first = _HEAD.unpack_from(slot)
    texts = slot[_HEAD.size : _HEAD.size + length]
    if not 0 < count < 1 << 53 or length > _TEXTS_LIMIT or checksum != _checksum(first, texts):
        return None
    group, error_type, where, rule, first_version, traceback, *_ = (
        *_decode(texts).split("\0", 5),
        *[""] * 5,
    )
    if not _GROUP(group) or not _is_time(first):
        return None
    return Group(
        Fingerprint(group, error_type, where),
        count,
        first,
        tuple(_requests(slot, count)),
        rule,
        first_version,
        _decode(slot[_VERSION_AT:COUNT_AT].rstrip(b"\0")),
        traceback,
    )


def _requests(slot: bytes, count: int) -> Iterator[tuple[float, str]]:
    """The latest requests, the latest first."""
    for number in range(count - 1, max(count - 1 - _REQUESTS_LIMIT, -1), -1):
        at, request_id = _REQUEST.unpack_from(
            slot, _REQUESTS_AT + number % (_REQUESTS_LIMIT + 1) * _REQUEST.size
        )
        text = request_id.rstrip(b"\0").decode("latin-1")
        if _is_time(at) and _REQUEST_ID(text):
            yield at, text


def _last_lines(text: bytes, limit: int) -> bytes:
    """The last lines of a traceback, which matter most."""
    return text if len(text) <= limit else b"...\n" + text[4 - limit :].partition(b"\n")[2]


def _checksum(first: float, texts: bytes) -> int:
    return crc32(texts, crc32(struct.pack("=d", first)))


def _is_time(seconds: float) -> bool:
    return 0 < seconds < 1e11  # not NaN either


def _encode(text: str) -> bytes:
    return text.replace("\0", "").encode("utf-8", "replace")


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "ignore")  # a text may be cut inside a character
