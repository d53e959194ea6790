"""Worker files: where their entries end."""

from __future__ import annotations

import pytest

from exporter.merge.format import LENGTH, CorruptFileError, split


def content(length: int) -> bytes:
    """A file of 64 bytes whose only entry says that its key has this length."""
    return bytes(8) + LENGTH.pack(length) + bytes(52)


def test_an_entry_may_end_where_the_file_does() -> None:
    assert split(content(35)) == [content(35)[8:47]]


@pytest.mark.parametrize(
    ("length", "complaint"),
    [
        (-1, "the entry at 8 says -1 bytes"),
        (36, "the last entry ends at 72 of 64 bytes"),
        (37, "the entry at 8 says 37 bytes"),
    ],
)
def test_an_entry_that_ends_elsewhere_is_corrupt(length: int, complaint: str) -> None:
    with pytest.raises(CorruptFileError, match=complaint):
        split(content(length))
