"""Stacks: the calls that a thread stands in."""

from __future__ import annotations

import sys
from threading import get_ident
from types import SimpleNamespace

import pytest

from exporter.worker.stacks import calls, stack


def view(ask: object = None) -> list[str] | None:
    return load(ask)


def load(ask: object) -> list[str] | None:
    return stack(ask) if ask else calls(sys._getframe())


def places(lines: list[str] | None) -> list[str]:
    """The function and the distance from its first line."""
    assert lines is not None
    functions = {function.__name__: function.__code__.co_firstlineno for function in (view, load)}
    found = [line.removeprefix(f"{__name__}:").split(":") for line in lines if line.startswith(__name__)]
    return [f"{name}+{int(line) - functions[name]}" for name, line in found if name in functions]


def test_a_stack_has_every_call_the_innermost_last() -> None:
    assert places(view()) == ["view+1", "load+1"]
    assert places(view(get_ident())) == ["view+1", "load+1"]
    frame = sys._getframe()
    assert stack(SimpleNamespace(gr_frame=frame)) == calls(frame)


@pytest.mark.parametrize("thread", [-1, SimpleNamespace(gr_frame=None), object()])
def test_whoever_is_gone_or_runs_as_a_greenlet_has_none(thread: object) -> None:
    assert stack(thread) is None
    assert calls(None) == []
