"""A plugin of pytest: notes what each test calls, or runs the chosen tests in their order."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path
from types import CodeType, FrameType

import pytest

Calls = dict[str, tuple[float, list[str]]]
"""By test its seconds, and the functions that it calls, each as its file and first line."""

CALLS = "MUTATE_CALLS"
"""A file for the calls of the tests that pass, and the names of those that fail."""
CHOICE = "MUTATE_CHOICE"
"""A file with the tests to be run, in their order, and the seconds that each may take."""
RUNNING = "MUTATE_RUNNING"
"""A file for the name of the test that runs."""

_choice: dict[str, float] = {}
_calls: Calls = {}
_failed: set[str] = set()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the chosen tests, in their order."""
    if CHOICE in os.environ:
        _choice.update(json.loads(Path(os.environ[CHOICE]).read_text()))
        order = {name: at for at, name in enumerate(_choice)}
        items[:] = sorted(
            (item for item in items if item.nodeid in order), key=lambda item: order[item.nodeid]
        )
        signal.signal(signal.SIGALRM, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note the chosen test and limit its time, or note what a test calls, in all of its threads."""
    if RUNNING in os.environ:
        Path(os.environ[RUNNING]).write_text(item.nodeid)
        signal.setitimer(signal.ITIMER_REAL, _choice[item.nodeid])
    if CALLS not in os.environ:
        return (yield)
    root = f"{item.config.rootpath}{os.sep}"
    codes: dict[int, CodeType] = {}

    def trace(frame: FrameType, _: str, __: object) -> None:
        code = frame.f_code
        if code.co_filename.startswith(root):
            codes[id(code)] = code

    start = time.monotonic()
    threading.settrace(trace)
    sys.settrace(trace)
    try:
        return (yield)
    finally:
        sys.settrace(None)
        threading.settrace(None)
        places = {f"{code.co_filename.removeprefix(root)}:{code.co_firstlineno}" for code in codes.values()}
        _calls[item.nodeid] = time.monotonic() - start, sorted(places)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note the failure."""
    if report.failed:
        _failed.add(report.nodeid)


def pytest_sessionfinish() -> None:
    """Write down what was noted."""
    if CALLS in os.environ:
        calls = {test: call for test, call in _calls.items() if test not in _failed}
        Path(os.environ[CALLS]).write_text(json.dumps([calls, sorted(_failed)]))
