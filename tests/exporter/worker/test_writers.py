"""Writers: which request a call is meant for, and what is in a ring after the change to another one."""

from __future__ import annotations

import mmap
import sys
from collections import deque
from threading import get_ident
from types import SimpleNamespace

import pytest

from exporter.observation import Delay, Observation
from exporter.worker import requests
from exporter.worker.requests import COUNTED, Content, Header
from exporter.worker.writers import writers
from tests.rig.exchanges import exchange, keep, opened

DELAY = Delay("orders:load", 12, "", "", {})


class Ring:
    """Three places in anonymous memory."""

    def __init__(self) -> None:
        self.header = Header(4, 5.0, 1, "flask_")
        self.memory = mmap.mmap(-1, self.header.length)
        live: list[Observation | None] = [None] * 4
        self.write = writers(self.header, self.memory, live, deque([1, 2, 3]), set())

    def content(self) -> Content:
        return Content(self.header, self.memory[:])

    def in_progress(self) -> list[tuple[str, str]]:
        """Path and state of each request."""
        return [(one.path, one.state) for one in requests.in_flight(self.content())]

    def answered(self) -> list[str]:
        return [one.path for one in requests.history(self.content(), self.content())]


def test_what_comes_and_goes_during_a_change_to_another_ring_is_in_that_one() -> None:
    """What is copied into it is of a moment before."""
    ring = Ring()
    gone, stays, comes = (exchange(path=path, started=5.0) for path in ("/gone", "/stays", "/comes"))
    ring.write.enter(gone)
    ring.write.enter(stays)
    ring.memory, former = mmap.mmap(-1, ring.header.length), ring.memory
    ring.memory[:] = former[:]
    ring.write.leave(gone)
    ring.write.enter(comes)
    ring.write.switch(ring.memory)

    assert list(ring.content().starts()) == [0.0, 0.0, 5.0, 5.0]
    assert ring.in_progress() == [("/stays", "running"), ("/comes", "running")]
    comes.durations[comes.slot] = COUNTED
    ring.write.record(stays)
    assert ring.in_progress() == [("/stays", "sending"), ("/comes", "sending")]
    ring.write.leave(stays)
    assert (ring.in_progress(), ring.answered()) == ([("/comes", "sending")], ["/stays"])


def test_what_finds_no_place_during_a_change_to_another_ring_is_counted_in_that_one() -> None:
    ring = Ring()
    for _ in range(4):
        ring.write.enter(exchange())
    ring.memory, former = mmap.mmap(-1, ring.header.length), ring.memory
    ring.memory[:] = former[:]
    ring.write.enter(exchange())
    ring.write.switch(ring.memory)

    assert list(ring.content().starts()) == [2.0, 1.0, 1.0, 1.0]


def test_a_stream_is_sending_and_not_answered() -> None:
    """So it is lost if its worker dies; once it has ended, its duration stays."""
    ring, request = Ring(), exchange()
    ring.write.enter(request)
    ring.write.stream(request)
    (stream,) = requests.in_flight(ring.content())
    assert (stream.is_sending, stream.is_answered) == (True, False)

    ring.write.record(request)
    request.recorded = True
    ring.write.stream(request)
    assert ring.answered() == ["/orders/7"]


def test_what_comes_late_does_not_harm_the_next_request_in_its_place() -> None:
    ring, late = Ring(), exchange(path="/late", delay=DELAY)
    ring.write.enter(late)
    ring.write.leave(late)
    others = [exchange(path=f"/{number}") for number in range(3)]
    for other in others:
        ring.write.enter(other)
    assert others[-1].slot == late.slot
    before = ring.memory[:]
    for call in (ring.write.stream, ring.write.record, ring.write.explain, ring.write.leave):
        call(late)

    assert ring.memory[:] == before


def test_a_request_without_a_delay_keeps_its_names() -> None:
    ring, request = Ring(), exchange()
    ring.write.enter(request)
    ring.write.record(request)
    before = ring.memory[:]
    ring.write.explain(request)

    assert ring.memory[:] == before


def test_an_answer_in_no_time_is_an_answer() -> None:
    recorder = opened(1)
    keep(recorder, duration=0.0)

    assert [request.duration for request in recorder.read()] == [pytest.approx(0.0, abs=1e-6)]


def test_a_request_is_named_when_it_is_recorded() -> None:
    """Nobody needs the names of a fast one before."""
    recorder = opened(1)
    keep(recorder, status=0, code="404", method="", matched=SimpleNamespace(rule="/carts", endpoint="carts"))

    assert [(one.status, one.method, one.url_rule, one.endpoint) for one in recorder.read()] == [
        (404, "GET", "/carts", "carts")
    ]


@pytest.mark.parametrize(
    ("modules", "is_greenlet"),
    [
        ({}, False),
        ({"gevent.monkey": SimpleNamespace(is_module_patched=lambda _: False)}, False),
        ({"gevent.monkey": SimpleNamespace(is_module_patched=lambda name: name == "threading")}, True),
        ({"eventlet.patcher": SimpleNamespace(is_monkey_patched=lambda _: False)}, False),
        ({"eventlet.patcher": SimpleNamespace(is_monkey_patched=lambda name: name == "thread")}, True),
    ],
)
def test_a_request_has_the_greenlet_that_answers_it_where_threads_are_greenlets(
    modules: dict[str, object], is_greenlet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not where gevent or eventlet is there for something else."""
    greenlet = object()
    for name in ("gevent.monkey", "eventlet.patcher"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "greenlet", SimpleNamespace(getcurrent=lambda: greenlet))
    ring, request = Ring(), exchange()
    ring.write.enter(request)

    (running,) = requests.in_flight(ring.content())
    assert (request.thread, running.thread) == (
        (greenlet, id(greenlet)) if is_greenlet else (get_ident(), get_ident())
    )
