"""Forks: a child forgets the locks, the open files and the values of its parent.

Only this module hooks into `os.fork`. Objects with such state register with `forget`; descriptors with file
locks are kept here.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from typing import Protocol
from weakref import WeakValueDictionary


class Forgetful(Protocol):
    """An object whose state belongs to one process alone."""

    def after_fork(self) -> None:
        """Start over; called in the child before any other code runs there."""


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
    """A lock for code that may wait while it holds it; each process creates its own at the first use.

    So the lock is free after a fork. It is also gevent's lock if gevent patches `threading` after the import
    of the application (gunicorn with a preloaded one): a waiting greenlet with an older lock would stop all.
    """

    def __init__(self) -> None:
        self.after_fork()
        forget(self)

    def __enter__(self) -> None:
        self._box.setdefault("lock", threading.Lock()).acquire()

    def __exit__(self, *_: object) -> None:
        if "lock" in self._box:  # gone if this process was forked in between
            self._box["lock"].release()

    def after_fork(self) -> None:
        """Drop the lock: its holder may be a thread that the child does not have."""
        self._box: dict[str, threading.Lock] = {}


class _Descriptors:
    """Descriptors whose file locks belong to this process and not to its children.

    A lock belongs to the open file, which a forked child shares: a long-lived child would keep a lock that
    its parent has given up.
    """

    def __init__(self) -> None:
        self.open: set[int] = set()
        forget(self)

    def after_fork(self) -> None:
        for descriptor in self.open:
            with suppress(OSError):  # somebody has closed all descriptors of the process, as daemons do
                os.close(descriptor)
        self.open.clear()


_descriptors = _Descriptors()


def keep(descriptor: int) -> None:
    """Keep this descriptor for as long as the process lives."""
    _descriptors.open.add(descriptor)


def give_up(descriptor: int) -> None:
    """Close the descriptor and drop its locks; does nothing to a descriptor of the parent process."""
    if descriptor in _descriptors.open:
        _descriptors.open.discard(descriptor)
        os.close(descriptor)


@contextmanager
def hold(descriptor: int) -> Iterator[int]:
    """Keep the descriptor inside the context, and close it at the end."""
    keep(descriptor)
    try:
        yield descriptor
    finally:
        give_up(descriptor)


def _after_fork() -> None:
    with ExitStack() as stack:  # one that fails keeps no other from forgetting
        for owner in reversed(owners()):
            stack.callback(owner.after_fork)


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
