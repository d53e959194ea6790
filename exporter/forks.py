"""What a forked child must forget: the locks, the open files and the values of its parent.

The one place that hooks into `os.fork`. Objects that hold such things register with `forget`; descriptors
that hold file locks are kept here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Protocol
from weakref import WeakValueDictionary


class Forgetful(Protocol):
    """Something that holds what belongs to this process alone."""

    def after_fork(self) -> None:
        """Begin anew; called in the child, before anything else runs there."""


_owners: WeakValueDictionary[int, Forgetful] = WeakValueDictionary()
_numbers = count()


def forget(owner: Forgetful) -> None:
    """Call `owner.after_fork()` in each child that is forked from now on, for as long as `owner` lives.

    Owners are called in the order of their registration.
    """
    _owners[next(_numbers)] = owner


def owners() -> list[Forgetful]:
    """All living owners, in the order of their registration."""
    return list(_owners.values())


class Lock:
    """A lock that each process makes when it first takes it, for what may wait while it is held.

    So it is free after a fork, and it is gevent's where gevent patches `threading` after the import of the
    application (gunicorn with a preloaded one): an older lock, held by a greenlet that waits, would stop all.
    """

    def __init__(self) -> None:
        self.after_fork()
        forget(self)

    def __enter__(self) -> None:
        self._made.setdefault("lock", threading.Lock()).acquire()

    def __exit__(self, *_: object) -> None:
        if "lock" in self._made:  # not where this process was forked in between
            self._made["lock"].release()

    def after_fork(self) -> None:
        """Make another one: this one may be held by a thread that the child does not have."""
        self._made: dict[str, threading.Lock] = {}


class _Descriptors:
    """Descriptors that hold locks in this process, and in none that is forked from it.

    A lock belongs to the open file, which a forked child shares: without this a long-lived child would hold
    on to a lock that its parent has given up.
    """

    def __init__(self) -> None:
        self.open: set[int] = set()
        forget(self)

    def after_fork(self) -> None:
        for descriptor in self.open:
            os.close(descriptor)
        self.open.clear()


_descriptors = _Descriptors()


def keep(descriptor: int) -> None:
    """Hold on to this descriptor for as long as the process lives."""
    _descriptors.open.add(descriptor)


def give_up(descriptor: int) -> None:
    """Close the descriptor and drop its locks; does nothing to one that came from the parent process."""
    if descriptor in _descriptors.open:
        _descriptors.open.discard(descriptor)
        os.close(descriptor)


@contextmanager
def held(descriptor: int) -> Iterator[int]:
    """Keep the descriptor inside the context, and close it at the end."""
    keep(descriptor)
    try:
        yield descriptor
    finally:
        give_up(descriptor)


def _after_fork() -> None:
    for owner in owners():
        owner.after_fork()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
