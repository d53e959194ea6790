"""Descriptors that hold locks in this process, and in none that is forked from it.

A lock belongs to the open file, which a forked child shares: without this, one that lives for long would hold
it on when its parent has let go or has ended.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_descriptors: set[int] = set()


def keep(descriptor: int) -> None:
    """Hold on to it for as long as this process lives."""
    _descriptors.add(descriptor)


def give_up(descriptor: int) -> None:
    """Close it, and drop its locks; nothing where it came from the parent."""
    if descriptor in _descriptors:
        _descriptors.discard(descriptor)
        os.close(descriptor)


@contextmanager
def held(descriptor: int) -> Iterator[None]:
    """Close it at the end."""
    keep(descriptor)
    try:
        yield
    finally:
        give_up(descriptor)


def _after_fork() -> None:
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(after_in_child=_after_fork)
