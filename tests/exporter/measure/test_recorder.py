"""Recorders: what they add to the one-second slots, which those of one rule share, and to the sizes."""

from __future__ import annotations

import dis
import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest
from flask import Response

from exporter import forks
from exporter.measure import outcomes
from exporter.measure.cells import Cell, Distribution
from exporter.measure.instruments import ExtendedInstruments as Extended
from exporter.measure.native import Natives
from exporter.measure.recorder import announced_size, plain_recorder
from exporter.observation import Recorder
from exporter.worker.requests import COUNTED
from tests.rig.exchanges import exchange
from tests.rig.switches import quick_switches
from tests.rig.wsgi import RULE, application, call, counted


@pytest.fixture
def instruments() -> Extended:
    """Ready for the first request."""
    _, exporter = application()
    instruments = exporter.core.worker.instruments["flask_"]
    assert isinstance(instruments, Extended)
    instruments.begin()
    return instruments


def recorder(instruments: Extended, status: str) -> Recorder:
    """That of a status of the rule."""
    return instruments.recorder(("GET", RULE, status), own=True)


def test_minimum_and_maximum_are_those_of_all_statuses_of_a_rule(instruments: Extended) -> None:
    """Each recorder keeps what it saw; another's slower or faster request is not forgotten for it."""
    good, bad = recorder(instruments, "200"), recorder(instruments, "500")
    good(exchange(duration=0.5), 1000.1)
    bad(exchange(duration=0.75, failed=True), 1000.2)
    good(exchange(duration=0.6), 1000.3)
    bad(exchange(duration=0.1, failed=True), 1000.4)
    good(exchange(duration=0.3), 1000.5)

    assert instruments.slots.extremes(1000.9) == {RULE: (0.1, 0.75)}
    assert instruments.slots.totals(1000.9) == (5, 2)


class OwnValue:
    """As an application may give prometheus_client, with what that asks of it in one process."""

    def __init__(self, *_: object, **__: object) -> None:
        self.value = 0.0

    def inc(self, amount: float) -> None:
        self.value += amount

    def set(self, value: float, **_: object) -> None:
        self.value = value

    def get(self) -> float:
        return self.value

    def set_exemplar(self, exemplar: object) -> None:
        """There is none."""

    def get_exemplar(self) -> None:
        """There is none."""


def test_values_of_the_application_s_own_class_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prometheus_client.values.ValueClass", OwnValue)
    app, exporter = application()
    for _ in range(3):
        call(app, "/orders/7")

    assert counted(exporter, "flask_http_request_total") == {("GET", "200"): 3.0}
    assert counted(exporter, "flask_http_response_size_bytes_sum") == {("GET", RULE): 21.0}


def test_each_second_begins_anew(instruments: Extended) -> None:
    """Also where a minute ago the same slot was used."""
    record = recorder(instruments, "200")
    record(exchange(duration=9.0), 1000.9)
    record(exchange(duration=0.2), 1001.0)

    assert instruments.slots.extremes(1001.0) == {RULE: (0.2, 9.0)}

    record(exchange(duration=0.5), 1001.5)
    record(exchange(duration=0.4), 1060.0)

    assert instruments.slots.extremes(1060.0) == {RULE: (0.2, 0.5)}
    assert instruments.slots.totals(1061.0) == (1, 0)


def test_the_first_request_of_a_second_tells_it(
    instruments: Extended, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = list[int]()
    monkeypatch.setattr(instruments.worker, "tick", seconds.append)
    record = recorder(instruments, "202")
    for now in (1000.1, 1000.9, 1001.0, 1003.5, 1003.6):
        record(exchange(), now)

    assert seconds == [1000, 1001, 1003]


def test_a_reader_never_sees_a_second_with_the_values_of_another(
    instruments: Extended, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each write to a slot that begins anew."""
    record, slots, seen = recorder(instruments, "200"), instruments.slots, []

    class Watched:
        def __init__(self) -> None:
            self.view = slots.view

        def __getitem__(self, at: int) -> float:
            return self.view[at]

        def __setitem__(self, at: int, value: float) -> None:
            self.view[at] = value
            seen.append((slots.extremes(1000.9).get(RULE), slots.totals(1000.9)))

    record(exchange(duration=9.0, failed=True), 940.5)
    monkeypatch.setattr(slots, "view", Watched())
    record(exchange(duration=0.2), 1000.5)

    assert seen[0] == (None, (0, 0))
    assert seen[-1] == ((0.2, 0.2), (1, 0))
    assert set(seen) <= {(None, (0, 0)), ((0.2, 0.2), (0, 0)), ((0.2, 0.2), (1, 0))}


def test_threads_that_share_a_slot_lose_no_request(
    instruments: Extended, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four recorders of one rule, where each access to a slot lets another thread run."""
    recorders = [recorder(instruments, status) for status in ("200", "201", "202", "203")]

    class Yielding:
        def __init__(self) -> None:
            self.view = instruments.slots.view

        def __getitem__(self, at: int) -> float:
            time.sleep(0)
            return self.view[at]

        def __setitem__(self, at: int, value: float) -> None:
            time.sleep(0)
            self.view[at] = value

    def answer(number: int) -> None:
        for at in range(100):
            recorders[number](exchange(duration=float(1 + 4 * at + number)), 1000.0 + at // 20)

    monkeypatch.setattr(instruments.slots, "view", Yielding())
    threads = [threading.Thread(target=answer, args=[number]) for number in range(4)]
    with quick_switches():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert instruments.slots.totals(1005.0) == (400, 0)
    assert instruments.slots.extremes(1005.0) == {RULE: (1.0, 400.0)}


def test_a_request_that_another_thread_overtook_counts_in_the_later_second(
    instruments: Extended,
) -> None:
    record = recorder(instruments, "200")
    record(exchange(duration=0.2), 1001.0)
    record(exchange(duration=0.1), 1000.9)

    assert instruments.slots.extremes(1001.0) == {RULE: (0.1, 0.2)}
    assert instruments.slots.totals(1001.0) == (2, 0)


def test_a_native_bucket_that_found_no_room_is_looked_for_again(instruments: Extended) -> None:
    """So that the counts of a disk that was full for a while are not lost for good."""

    class Full(dict[int, tuple[list[float], int]]):
        counts, has_room = [0.0], False

        def __missing__(self, position: int) -> tuple[list[float], int]:
            if not self.has_room:
                return [0.0], 0
            return self.setdefault(position, (self.counts, 0))

    buckets: Any = Full()
    assert isinstance(instruments.natives, Natives)
    instruments.natives.buckets = lambda *_: buckets  # type: ignore[method-assign]
    record = recorder(instruments, "201")
    record(exchange(duration=0.5), 1000.0)
    buckets.has_room = True
    record(exchange(duration=0.5), 1000.0)
    record(exchange(duration=0.5), 1000.0)

    assert buckets.counts == [2.0]


@pytest.mark.parametrize(
    ("length", "size"),
    [("0", 0), ("12", 12), ("", 0), ("-1", 0), ("1e3", 0), ("²", 0), ("9" * 5000, 1 << 40)],
)
def test_the_announced_size_is_a_number_or_nothing(length: str, size: int) -> None:
    assert announced_size(length) == size


def test_status_lines_that_an_application_invents_fill_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is counted under its number, and only so many are remembered."""
    monkeypatch.setattr(outcomes, "LIMIT", 5)
    app, exporter = application()

    @app.get("/invent/<reason>")
    def invent(reason: str) -> Response:
        return Response("x", status=f"299 {reason}")

    for _ in range(2):
        for number in range(20):
            assert call(app, f"/invent/{number}").status == f"299 {number}"
    tables = [owner.table for owner in forks.owners() if isinstance(owner, outcomes.Outcomes)]

    assert len(tables[-1]) == 5
    assert counted(exporter, "flask_http_request_duration_seconds_count") == {
        ("GET", "/invent/<reason>", "299"): 40
    }


def test_no_thread_takes_over_between_the_counters_and_the_mark(instruments: Extended) -> None:
    """It could end the process, whose death would find the request both counted and lost."""
    record, request = recorder(instruments, "200"), exchange(request_size=7)
    request.durations = marks = dict[int, float]()
    states, last = [], ""

    def count() -> float:
        (family,) = instruments.metrics.duration.collect()
        return sum(sample.value for sample in family.samples if sample.name.endswith("_count"))

    def trace(frame: FrameType, event: str, argument: object) -> Any:  # noqa: ARG001  a trace function
        nonlocal last
        if frame.f_code is not record.__code__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            if "CALL" in last:  # here threads take turns
                states.append((count(), dict(marks)))
            last = dis.opname[frame.f_code.co_code[frame.f_lasti]]
        return trace

    former = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 looks for such a frame when a trace begins
    sys.settrace(trace)
    try:
        record(request, 1000.0)
    finally:
        sys.settrace(former)

    assert [state for state in states if state not in ((0.0, {}), (1.0, {0: COUNTED}))] == []
    assert (states[0], states[-1]) == ((0.0, {}), (1.0, {0: COUNTED}))


def test_a_recorder_of_few_families_adds_under_its_lock() -> None:
    lock, is_held = threading.Lock(), list[bool]()

    class Watched(list[float]):
        def __setitem__(self, at: Any, value: Any) -> None:
            is_held.append(lock.locked())
            super().__setitem__(at, value)

    doubles: Any = Watched([0.0] * 4)
    record = plain_recorder(lock, Distribution(doubles, 0, (1, 2), (1.0,)), Cell(None, doubles, 3))
    record(exchange(duration=0.5), 0.0)

    assert (doubles, is_held) == ([0.5, 1.0, 0.0, 1.0], [True] * 3)
    assert not lock.locked()
