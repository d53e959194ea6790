"""Forks: who forgets its parent process, and in which order."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry

from exporter import FlaskExporter, forks


class Owner:
    """Something that says when it is told to forget."""

    def __init__(self, tell: Callable[[], object]) -> None:
        self.tell = tell
        forks.forget(self)

    def after_fork(self) -> None:
        self.tell()


def test_everything_that_belongs_to_one_process_is_registered() -> None:
    """In the order in which it must forget: what gives a lock before those that take it."""
    gc.collect()  # the owners of other tests
    before = len(forks.owners())
    exporter = FlaskExporter(Flask("orders"), registry=CollectorRegistry())

    names = [type(owner).__name__ for owner in forks.owners()]
    assert names[:1] == ["_Descriptors"]
    assert "RequestIds" in names
    assert names[before:] == [
        "FlightRecorder",
        "Lock",
        "ErrorGroups",
        "StackRing",
        "Lock",
        "Slowest",
        "Lock",
        "Lock",
        "Checks",
        "Peers",
        "Worker",
        "Natives",
        "ExtendedInstruments",
        "Outcomes",
        "Lock",
        "Middleware",
    ]
    assert exporter.core.worker in forks.owners()


def test_owners_forget_in_the_order_of_their_registration() -> None:
    reading, writing = os.pipe()
    owners = [Owner(lambda number=number: os.write(writing, b"%d" % number)) for number in range(3)]  # type: ignore[misc]
    del owners[1]
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)

    assert os.read(reading, 10) == b"02"
    os.close(reading)


def test_one_that_fails_keeps_no_other_from_forgetting() -> None:
    def fail() -> None:
        raise KeyError

    told: list[int] = []
    owners = [Owner(fail), Owner(lambda: told.append(7))]
    child = os.fork()
    if child == 0:
        os._exit(sum(told))
    del owners

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_lock_that_is_held_at_a_fork_is_free_in_the_child() -> None:
    lock = forks.Lock()
    with lock:
        child = os.fork()
        if child == 0:
            signal.alarm(10)
            with lock:
                os._exit(7)

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_lock_is_the_one_that_threading_has_at_its_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """gevent may put its own there after the import of the application."""
    told: list[str] = []

    class Patched:
        def acquire(self) -> None:
            told.append("acquire")

        def release(self) -> None:
            told.append("release")

    lock = forks.Lock()
    monkeypatch.setattr(threading, "Lock", Patched)
    with lock:
        told.append("inside")

    assert told == ["acquire", "inside", "release"]


def test_a_descriptor_that_came_from_the_parent_is_closed_in_the_child(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Also one that follows another which somebody else has closed."""
    path = tmp_path_factory.mktemp("forks") / "held"
    closed, descriptor = (os.open(path, os.O_CREAT | os.O_RDWR) for _ in range(2))
    forks.keep(closed)
    os.close(closed)
    with forks.hold(descriptor):
        child = os.fork()
        if child == 0:
            try:
                os.fstat(descriptor)
            except OSError:
                os._exit(7)
            os._exit(0)

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    with pytest.raises(OSError, match="Bad file descriptor"):
        forks.give_up(closed)


def test_a_child_keeps_what_has_the_number_of_a_descriptor_that_was_given_up() -> None:
    with forks.hold(os.open(os.devnull, os.O_RDONLY)) as former:
        pass
    descriptor = os.open(os.devnull, os.O_RDONLY)
    child = os.fork()
    if child == 0:
        try:
            os.fstat(descriptor)
        except OSError:
            os._exit(0)
        os._exit(7)
    os.close(descriptor)

    assert descriptor == former
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_grandchild_keeps_what_has_the_number_of_a_descriptor_of_its_grandparent() -> None:
    """The child has closed that one, so the number is its own."""
    with forks.hold(os.open(os.devnull, os.O_RDONLY)) as held:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), held)
            grandchild = os.fork()
            if grandchild == 0:
                try:
                    os.fstat(held)
                except OSError:
                    os._exit(0)
                os._exit(7)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))

        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
