"""Spots: what a waiting thread is said to wait for."""

from __future__ import annotations

import gc
import queue
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from flask import Flask, render_template_string

from exporter.places import Places
from exporter.worker import spots
from exporter.worker.process import COLLECTING
from exporter.worker.spots import NOWHERE, Spot, Spots
from tests.rig.deadline import eventually

KNOWS_CALLS = sys.version_info >= (3, 11)
needs_positions = pytest.mark.skipif(not KNOWS_CALLS, reason="Python 3.10 does not know where a call stands")


def spot_of(frame: FrameType | None) -> Spot:
    return Spots(Places()).of(frame)


@contextmanager
def waiting(view: Callable[[], object], inside: Callable[[FrameType], bool]) -> Iterator[Spot]:
    """The spot of a thread that runs the view, as soon as its innermost frame is the right one."""
    with ThreadPoolExecutor(1) as pool:
        ident = pool.submit(threading.get_ident).result()
        pool.submit(view)
        yield eventually(
            lambda: spot_of(frame) if (frame := sys._current_frames().get(ident)) and inside(frame) else None,
            "the thread waits",
        )


def in_function(name: str) -> Callable[[FrameType], bool]:
    return lambda frame: frame.f_code.co_name == name


def function(spot: Spot) -> str:
    return re.split(r"[:.]", spot.where)[-1]


def line_of(view: Callable[[], object], offset: int) -> int:
    return view.__code__.co_firstlineno + offset


def test_a_lock() -> None:
    lock = threading.Lock()

    def refresh() -> None:
        with lock:
            pass

    lock.acquire()
    with waiting(refresh, in_function("refresh")) as spot:
        lock.release()

    assert (function(spot), spot.line, spot.library, spot.call) == ("refresh", line_of(refresh, 1), "", "")


@needs_positions
def test_a_socket() -> None:
    reader, writer = socket.socketpair()

    def read_reply() -> None:
        reader.recv(1)

    with waiting(read_reply, in_function("read_reply")) as spot:
        writer.send(b"x")
    reader.close()
    writer.close()

    assert (function(spot), spot.library, spot.call) == ("read_reply", "", "reader.recv")


@needs_positions
def test_a_library_is_named_by_the_function_that_was_called() -> None:
    """And the call by what the innermost function waits for."""
    tasks: queue.Queue[int] = queue.Queue()

    def next_task() -> None:
        [tasks.get() for _ in range(1)]

    with waiting(next_task, lambda frame: frame.f_code.co_name == "wait") as spot:
        tasks.put(1)

    assert (function(spot), spot.library, spot.call) == ("next_task", "queue:Queue.get", "waiter.acquire")


def test_a_thread_without_own_code_has_the_library_where_it_stands() -> None:
    """A view that is asynchronous runs elsewhere; so does what a pool does."""
    event = threading.Event()

    with waiting(event.wait, lambda frame: frame.f_code.co_name == "wait") as spot:
        event.set()

    library = "threading:Condition.wait" if sys.version_info >= (3, 11) else "threading:wait"
    assert (spot.where, spot.line, spot.library) == ("", 0, library)


def seen_in(run: Callable[[Callable[[], str]], object]) -> Spot:
    """The spot of this thread, as it was when `look` was called."""
    spots: list[Spot] = []

    def look() -> str:
        spots.append(spot_of(sys._getframe(1)))
        return ""

    run(look)
    return spots[-1]


@needs_positions
@pytest.mark.parametrize(
    ("view", "call"),
    [
        (lambda look: look(), "look"),
        (lambda look: {"secret": {"a": look}}["secret"]["a"](), "…[][]"),
        (lambda look: (lambda _: look)("hunter2")(), "…()"),  # a value never leaves
        (lambda look: [look][0](), "…[]"),
        (
            lambda look: str.join(
                "",
                [look()],
            ),
            "look",
        ),
        (
            lambda look: [
                look(  # on two lines
                ).strip()
            ],
            "look",
        ),
        (lambda look: look().strip("ü").strip(), "look"),
        (lambda look: f"ü{look()}", "look"),
    ],
)
def test_a_call_is_shown_without_its_arguments(
    view: Callable[[Callable[[], str]], object], call: str
) -> None:
    assert seen_in(view).call == call


def seen_in_file(file: Path, text: str, **module: str) -> Spot:
    """The spot in this text, which calls `look`, as a file of a module with these variables."""
    file.write_text(text)
    code = compile(text, file, "eval")
    return seen_in(lambda look: eval(code, {"__name__": "shop", "look": look, **module}))


@needs_positions
@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("[0, look(\n   )]", "look"),
        ("look(" + "\n" * 50 + ")", "look"),
        ("look(" + "\n" * 51 + ")", ""),  # nobody reads so much for a name
    ],
)
def test_a_call_has_a_few_lines(text: str, call: str, tmp_path: Path) -> None:
    assert seen_in_file(tmp_path / "shop.py", text).call == call


@needs_positions
@pytest.mark.parametrize(("debug_info", "call"), [("1=1", ""), ("", "look")])
def test_a_template_shows_no_call(debug_info: str, call: str, tmp_path: Path) -> None:
    """The lines of its file are not those of its code."""
    file = tmp_path / "order.html"

    spot = seen_in_file(file, "look()", __name__=str(file), debug_info=debug_info)
    assert (spot.line, spot.call) == (1, call)


def test_a_template_without_a_file_is_its_caller() -> None:
    app = Flask("shop")

    def report(look: Callable[[], str]) -> str:
        with app.app_context():
            return render_template_string("{{ look() }}", look=look)

    spot = seen_in(report)
    assert (function(spot), spot.call) == ("report", "__obj" if KNOWS_CALLS else "")  # Jinja's own
    assert spot.library.startswith("flask.templating:")


def build_tree() -> None:
    gc.collect()


def seen_while_collecting() -> list[Spot]:
    """The spots of this thread at the beginning and at the end of a collection."""
    seen: list[Spot] = []

    def trace(frame: FrameType, event: str, argument: Any) -> None:  # noqa: ARG001  a trace function
        if frame.f_code is COLLECTING:
            seen.append(spot_of(frame))

    former = sys.gettrace()
    gc.disable()  # no other collection is wanted here
    sys.settrace(trace)
    try:
        build_tree()
    finally:
        sys.settrace(former)
        gc.enable()
    return seen


@needs_positions
@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.0, {("gc", ""), ("", "gc.collect")}), (60.0, {("", "gc.collect")})],
)
def test_the_garbage_collector_is_named_where_it_took_long(
    seconds: float, shown: set[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is seen when it begins, where it has taken no time yet, and when it ends."""
    monkeypatch.setattr(spots, "COLLECTION", seconds or sys.float_info.min)
    seen = seen_while_collecting()

    assert {(spot.library, spot.call) for spot in seen} == shown
    assert {(function(spot), spot.line) for spot in seen} == {("build_tree", line_of(build_tree, 1))}


@needs_positions
@pytest.mark.parametrize(("seconds", "shown"), [(0.0099, ("", "gc.collect")), (0.01, ("gc", ""))])
def test_long_is_a_hundredth_of_a_second(
    seconds: float, shown: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spots, "collections", SimpleNamespace(under_way=lambda: seconds))

    assert {(spot.library, spot.call) for spot in seen_while_collecting()} == {shown}


def test_the_same_spot_is_the_same_object() -> None:
    """So a request in a loop has few of them."""
    memory = Spots(Places())

    seen = [memory.of(sys._getframe()) for _ in range(3)]
    assert len({id(spot) for spot in seen}) == 1
    assert memory.of(sys._getframe()) is not seen[0]
    assert memory.of(None) is NOWHERE


def test_of_any_number_of_spots_few_are_remembered() -> None:
    """Templates and generated code have no end."""
    memory, module = Spots(Places()), dict[str, Any](__name__="shop")
    text = "".join(f"def f{number}():\n" + " yield\n" * 40 for number in range(60))
    eval(compile(text, "/shop.py", "exec"), module)
    waiting = module["f0"]()
    next(waiting)
    first = memory.of(waiting.gi_frame)

    steps = (generator for number in range(60) for generator in [module[f"f{number}"]()] for _ in generator)
    assert len({memory.of(generator.gi_frame) for generator in steps}) == 60 * 40
    assert memory.of(waiting.gi_frame) is not first
