"""The format of worker files, which is prometheus_client's own.

A file is a header (4 bytes used, 4 bytes that prometheus_client leaves alone) and entries: length of the
key (4 bytes), key, padding to 8, value and timestamp (8 each). Entries are only ever appended. A file of ours
says `lock` in the spare 4 bytes: its writer holds a lock on it for as long as it lives.
"""

from __future__ import annotations

import struct

HEADER = struct.Struct("=i4s")
LENGTH = struct.Struct("=i")
LOCK_MARK = b"lock"


class CorruptFileError(ValueError):
    """The content of a file is nothing that a worker would write."""


def promises_lock(data: bytes) -> bool:
    """Whether the writer of this content holds a lock while it lives."""
    return data[4:8] == LOCK_MARK


def split(data: bytes) -> list[bytes]:
    """The length and key of each entry, as they stand in the used part of a file.

    Raises:
        CorruptFileError: an entry does not end where the next one or the file does.
    """
    parts = []
    position, used, unpack = 8, len(data), LENGTH.unpack_from
    while position < used:
        length = unpack(data, position)[0]
        end = position + 4 + length
        if length < 0 or end + 16 > used:
            raise CorruptFileError(f"the entry at {position} says {length} bytes")
        parts.append(data[position:end])
        position = end + padding(length) + 16
    if position > used:
        raise CorruptFileError(f"the last entry ends at {position} of {used} bytes")
    return parts


def head(key: bytes) -> bytes:
    """The length and key of an entry, without its padding."""
    return LENGTH.pack(len(key)) + key


def padding(length: int) -> int:
    """Bytes between a key of `length` bytes and its value."""
    return 8 - (length + 4) % 8
