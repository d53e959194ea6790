"""The wire format of protobuf, and two messages that others contain.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct

from prometheus_client.samples import Exemplar

double = struct.Struct("<d").pack
_SMALL: list[bytes] = []


def varint(number: int) -> bytes:
    """A whole number from 0 on, seven bits a byte, the lowest first."""
    if number < len(_SMALL):
        return _SMALL[number]
    if 128 <= number < 16_384:
        return bytes((number & 127 | 128, number >> 7))
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


_SMALL += [varint(number) for number in range(1024)]


def zigzag(number: int) -> bytes:
    """A whole number of either sign."""
    return varint(number << 1 if number >= 0 else (-number << 1) - 1)


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, text or a message."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def exemplar_message(exemplar: Exemplar) -> bytes:
    """Labels, value and time of an exemplar, without the field that they stand in."""
    content = b"".join(
        field(1, field(1, name.encode()) + field(2, value.encode()))
        for name, value in exemplar.labels.items()
    )
    content += b"\x11" + double(exemplar.value)
    return content + timestamp(3, float(exemplar.timestamp) if exemplar.timestamp else 0.0)


def timestamp(number: int, seconds: float) -> bytes:
    """A google.protobuf.Timestamp; nothing if it is unknown."""
    if not seconds:
        return b""
    whole = int(seconds)
    nanoseconds = int((seconds - whole) * 1e9)
    return field(number, b"\x08" + varint(whole) + (b"\x10" + varint(nanoseconds) if nanoseconds else b""))
