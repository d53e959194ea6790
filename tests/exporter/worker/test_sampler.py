"""The sampler: which requests it looks at, when, and what it makes of them."""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import get_ident
from time import perf_counter
from typing import Any

import pytest

from exporter.places import Places
from exporter.worker import sampler
from exporter.worker.sampler import WALKS, Sampler
from exporter.worker.samples import Samples, delay
from exporter.worker.stackring import RECORDS, StackRing, read_stacks
from tests.rig.deadline import eventually
from tests.rig.users import as_child
from tests.rig.wsgi import Raises


@dataclass
class Request:
    """A request in progress."""

    started: float
    thread: Any = field(default_factory=get_ident)
    recorded: bool = False
    samples: Samples | None = None


class Rig:
    """A sampler, the requests that it sees, and what went wrong with it."""

    def __init__(self, *requests: Request | None, stacks: StackRing | None = None) -> None:
        self.live: list[Request | None] = [None, *requests]
        self.errors: list[BaseException] = []
        self.sampler = Sampler(lambda: self.live, Places(), self.errors.append, stacks or StackRing(None))

    def where(self, request: Request, duration: float) -> str:
        return delay(self.sampler.seconds(request, duration), "view").where


@contextmanager
def answering(started: float) -> Iterator[tuple[Request, threading.Event]]:
    """A request whose thread waits in `wait_for_stock` until it is told to go on."""
    go_on, there = threading.Event(), threading.Event()
    request = Request(started)

    def wait_for_stock() -> None:
        request.thread = get_ident()
        there.set()
        go_on.wait(60)

    thread = threading.Thread(target=wait_for_stock)
    thread.start()
    there.wait(60)
    try:
        yield request, go_on
    finally:
        go_on.set()
        thread.join()


def test_it_looks_at_requests_from_a_tenth_of_a_second_on() -> None:
    young, old, over = Request(99.95), Request(99.85), Request(99.0, recorded=True)
    rig = Rig(young, old, over)

    assert rig.sampler.look(100.0)
    assert [request.samples is not None for request in (young, old, over)] == [False, True, False]
    assert rig.errors == []


def test_a_tenth_of_a_second_is_long() -> None:
    request = Request(0.0)
    Rig(request).sampler.look(0.1)

    assert request.samples is not None


def test_no_thread_is_looked_at_before_a_request_is_due_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(Request(100.0))
    rig.sampler.look(100.2)
    monkeypatch.setattr(sys, "_current_frames", Raises())

    assert rig.sampler.look(100.21)
    with pytest.raises(RuntimeError, match="injected"):
        rig.sampler.look(100.23)


def test_others_read_the_stack_of_a_request_however_many_there_were(tmp_path: Path) -> None:
    """There are places for so many at a time."""
    request = Request(0.0)
    rig = Rig(request, stacks=StackRing(str(tmp_path)))
    for request.started in range(1, 2 * RECORDS):
        request.samples = None
        rig.sampler.look(request.started + 0.5)

    assert rig.errors == []
    latest = read_stacks(str(tmp_path))[os.getpid(), 2.0 * RECORDS - 1]
    assert latest.time == 2.0 * RECORDS - 0.5
    assert any(
        test_others_read_the_stack_of_a_request_however_many_there_were.__name__ in line
        for line in latest.lines
    )


def test_a_request_that_ends_meanwhile_is_not_blamed_for_the_next_one_of_its_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    request, frames = Request(99.0), sys._current_frames

    def end_and_look() -> dict[int, Any]:
        request.recorded = True
        return frames()

    monkeypatch.setattr(sys, "_current_frames", end_and_look)
    assert Rig(request).sampler.look(100.0)

    assert request.recorded
    assert request.samples is None


def test_without_requests_there_is_nothing_to_do() -> None:
    assert not Rig().sampler.look(100.0)
    assert not Rig(None, None).sampler.look(100.0)


def test_a_request_is_seen_where_its_thread_waits() -> None:
    with answering(100.0) as (request, _):
        rig = Rig(request)
        rig.sampler.look(100.2)

    assert rig.where(request, 0.9).endswith("wait_for_stock")
    assert sum(rig.sampler.seconds(request, 0.9).values()) == pytest.approx(0.9)


def test_a_thread_that_is_gone_is_nowhere() -> None:
    with answering(100.0) as (request, _):
        pass
    rig = Rig(request)
    rig.sampler.look(100.2)

    assert rig.where(request, 0.9) == "view"


def test_every_request_of_a_crowd_has_its_turn() -> None:
    crowd = [Request(100.0) for _ in range(10 * WALKS + 1)]
    rig = Rig(*crowd)

    counts = []
    for tick in range(1, 12):
        rig.sampler.look(100.0 + tick)
        counts.append(sum(request.samples is not None for request in crowd))

    assert counts == [min(WALKS * tick, len(crowd)) for tick in range(1, 12)]


def test_a_failure_is_told_and_costs_nobody_else() -> None:
    other = Request(99.0)
    rig = Rig(Request(99.0, thread=object()), other)

    assert rig.sampler.look(100.0)
    assert [type(error) for error in rig.errors] == [AttributeError]
    assert other.samples is not None


@dataclass
class Greenlet:
    """As greenlet and gevent have it: no frame while it runs."""

    gr_frame: Any
    parent: Any = None


def test_a_greenlet_that_runs_is_where_the_thread_of_its_hub_is() -> None:
    with answering(100.0) as (inside, _):
        hub = type("Hub", (), {"thread_ident": inside.thread})()
        waiting = Request(100.0, Greenlet(sys._getframe()))
        running = Request(100.0, Greenlet(None, hub))
        over = Request(100.0, Greenlet(None))
        rig = Rig(waiting, running, over)
        rig.sampler.look(100.2)

    here = test_a_greenlet_that_runs_is_where_the_thread_of_its_hub_is.__name__
    assert rig.where(waiting, 1.0).endswith(here)
    assert rig.where(running, 1.0).endswith("wait_for_stock")
    assert rig.where(over, 1.0) == "view"


def started(rig: Rig) -> None:
    """It looks by itself."""
    rig.sampler.start()
    (request,) = filter(None, rig.live)
    eventually(lambda: request.samples, "it is looked at")
    assert rig.where(request, perf_counter() - request.started).endswith("wait_for_stock")


def test_it_looks_by_itself_and_again_after_a_fork() -> None:
    def child() -> None:
        with answering(perf_counter()) as (request, _):
            started(Rig(request))

    with answering(perf_counter()) as (request, _):
        rig = Rig(request)
        started(rig)
        as_child(child)


def test_without_a_thread_requests_are_measured_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_thread, "start_new_thread", Raises(RuntimeError("can't start new thread")))
    monkeypatch.setattr(sampler, "_clock", sampler._Clock())
    rig = Rig(Request(0.0))
    rig.sampler.start()
    rig.sampler.start()

    assert [str(error) for error in rig.errors] == ["can't start new thread"]
    assert rig.where(Request(0.0), 1.0) == "view"


class Thread:
    """The sampler's thread, run by hand; stands for its locks, and for a clock that moves while it waits."""

    def __init__(self, rig: Rig, on_wait: Callable[[int], float]) -> None:
        """`on_wait` gets the number of each wait, and gives the seconds by which that takes longer."""
        self.rig = rig
        self.on_wait = on_wait
        self.now = 1000.0
        self.pauses: list[float] = []
        self.held = 0

    def run(self, waits: int) -> None:
        """Start the thread, and let it end after so many waits."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_thread, "allocate_lock", lambda: self)
            patch.setattr(_thread, "start_new_thread", lambda *arguments: threads.append(arguments))
            patch.setattr(sampler, "perf_counter", lambda: self.now)
            threads: list[Any] = []
            self.waits = waits
            self.rig.sampler.start()
            ((run, locks),) = threads
            run(*locks)
            assert self.held == 1, "it has told its end"

    def acquire(self, timeout: float | None = None) -> bool:
        if timeout is None:
            self.held += 1
            return True
        self.pauses.append(timeout)
        self.now += timeout
        self.now += self.on_wait(len(self.pauses))
        return len(self.pauses) == self.waits

    def release(self) -> None:
        self.held -= 1


def test_it_looks_twenty_times_a_second_and_less_often_after_a_second_without_requests() -> None:
    def run() -> None:
        rig = Rig()

        def come_and_go(wait: int) -> float:
            rig.live = [Request(1000.0)] if 23 <= wait <= 24 else []
            return 0.0

        thread = Thread(rig, come_and_go)
        thread.run(46)
        assert thread.pauses == [*[0.05] * 20, *[0.25] * 3, *[0.05] * 21, *[0.25] * 2]

    as_child(run)


def test_a_request_was_blocked_if_the_sampler_was_late_meanwhile() -> None:
    """Later than is usual; from the time at which it was due until it looked."""

    def run() -> None:
        pytest.MonkeyPatch().setattr(sampler, "_LATE", 0.125)
        rig, due = Rig(), 0.0

        def blocked(started: float, ended: float) -> bool:
            return rig.where(Request(started), ended - started) == "-"

        def be_late(wait: int) -> float:
            nonlocal due
            if wait == 1:
                assert not blocked(999.0, thread.now + 0.125)
                assert blocked(999.0, thread.now + 0.1875)
                return 0.125
            if wait == 2:
                assert not blocked(999.0, thread.now), "late as usual"
                due = thread.now
                return 0.25
            return 0.0

        thread = Thread(rig, be_late)
        thread.run(4)
        woke = due + 0.25
        assert blocked(due - 0.0625, due + 0.0625)
        assert blocked(woke - 0.0625, woke + 1.0)
        assert not blocked(999.0, due)
        assert not blocked(woke, woke + 1.0)
        assert not blocked(woke, woke + 1000.0), "nobody looks any more"

    as_child(run)


def test_a_forked_child_without_a_sampler_is_not_late() -> None:
    """However long after its parent's last look."""

    def ask() -> None:
        pytest.MonkeyPatch().setattr(sampler, "_LATE", 0.125)
        assert Rig().where(Request(perf_counter()), 1000.0) == "view"

    with answering(perf_counter()) as (request, _):
        started(Rig(request))
        as_child(ask)


def test_several_applications_share_one_thread() -> None:
    with answering(perf_counter()) as (request, _):
        rigs = [Rig(Request(perf_counter(), request.thread)) for _ in range(5)]
        started(rigs[0])
        before = set(sys._current_frames())
        for rig in rigs:
            started(rig)

        assert set(sys._current_frames()) <= before


def test_a_request_that_nobody_could_look_at() -> None:
    """One call kept the interpreter for longer than a tick, and until its own request was over."""
    source = """
import ctypes, sys, threading
from time import perf_counter
from tests.exporter.worker.test_sampler import Request, Rig
from tests.rig.deadline import eventually

rig = Rig(Request(perf_counter()))
rig.sampler.start()
eventually(lambda: rig.live[1].samples, "it runs")
sys.setswitchinterval(100)  # nobody else gets the interpreter when the call is over
request = Request(perf_counter())
ctypes.PyDLL(None).usleep(700_000)
print(rig.where(request, perf_counter() - request.started))
sys.setswitchinterval(0.005)
eventually(lambda: rig.where(Request(perf_counter()), 0.001) == "view", "it looks again")
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)

    assert done.stdout == "-\n"


STARTED = """
from time import perf_counter
from tests.exporter.worker.test_sampler import Request, Rig
from tests.rig.deadline import eventually

rig = Rig(Request(perf_counter()))
rig.sampler.start()
eventually(lambda: rig.live[1].samples, "it runs")
"""


def test_its_thread_takes_no_signal_from_the_main_thread() -> None:
    """A server that waits in accept ends at Ctrl-C: the signal must interrupt the thread that waits."""
    source = f"""
import _thread
import os
from pathlib import Path
{STARTED}
(thread,) = set(os.listdir("/proc/self/task")) - {{str(os.getpid())}}
print(Path(f"/proc/self/task/{{thread}}/status").read_text().split("SigBlk:")[1].split()[0])
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)

    blocked = {number for number in signal.valid_signals() if int(done.stdout, 16) >> number - 1 & 1}
    faults = {signal.SIGSEGV, signal.SIGFPE, signal.SIGBUS, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS}
    faults |= {signal.SIGABRT}
    assert signal.valid_signals() - blocked == faults | {signal.SIGKILL, signal.SIGSTOP}


def test_its_thread_ends_before_its_interpreter() -> None:
    """An interpreter that ends before its threads, as uWSGI's and mod_wsgi's do, crashes the process."""
    pytest.importorskip("_testcapi")
    source = f"import _testcapi\nprint(_testcapi.run_in_subinterp({STARTED!r}))"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)

    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)


def test_its_thread_ends_before_mod_wsgi_forgets_all_threads() -> None:
    """mod_wsgi tells of its end first, and functions of `atexit` come too late."""
    source = f"""
import sys
from types import SimpleNamespace

callbacks = []
sys.modules["mod_wsgi"] = SimpleNamespace(subscribe_shutdown=callbacks.append)
{STARTED}
for callback in callbacks:
    callback("process_stopping", shutdown_reason="maximum_requests")
print(len(sys._current_frames()))
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)

    assert done.stdout == "1\n"


def test_a_forked_child_does_not_wait_for_its_parents_thread() -> None:
    """It has none that could tell its end."""
    source = """
import os, sys
from types import SimpleNamespace

callbacks = []
sys.modules["mod_wsgi"] = SimpleNamespace(subscribe_shutdown=callbacks.append)
from tests.exporter.worker.test_sampler import Rig, Thread

thread = Thread(Rig(), lambda wait: 0.0)
thread.run(1)
if not os.fork():
    callbacks[0]("process_stopping")
    os._exit(len(thread.pauses) - 1)
print(os.wait()[1], len(thread.pauses))
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)

    assert done.stdout == "0 1\n"


def test_a_fault_of_a_thread_is_told() -> None:
    """Its thread leaves signals of its own faults alone: `faulthandler` shows every thread."""
    source = """
import ctypes, faulthandler
from threading import Thread

from exporter import posix

faulthandler.enable()


def crash():
    posix.leave_signals()
    ctypes.string_at(0)


Thread(target=crash).start()
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True)

    assert done.returncode == -signal.SIGSEGV
    assert "in crash" in done.stderr


def test_nothing_of_a_thread_is_kept() -> None:
    """What the variables of a request hold goes with it."""

    def answer(secret: object) -> weakref.ref[object]:
        rig.sampler.look(100.2)
        return weakref.ref(secret)

    request = Request(100.0)
    rig = Rig(request)

    secret = answer(type("Secret", (), {})())
    assert secret() is None
    assert rig.where(request, 1.0).endswith("answer")
