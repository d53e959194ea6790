"""Stacks of the threads and greenlets of this process, without the values of variables."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

# Frames further out belong to the server.
_OUTERMOST = "exporter.measure."
_LIMIT = 100


def stack(thread: Any) -> list[str] | None:
    """`module:function:line` of each call of this thread (its ident) or greenlet, the innermost last.

    The stack begins below the exporter's own frames; None if it is unknown.
    """
    if isinstance(thread, int):
        frame = sys._current_frames().get(thread)
    else:
        frame = getattr(thread, "gr_frame", None)  # None while the greenlet runs, and so is the caller
    return calls(frame) or None


def calls(frame: FrameType | None) -> list[str]:
    """The same of the thread with this innermost frame; [] for none."""
    return list(_calls(frame))[::-1]


def _calls(frame: FrameType | None) -> Iterator[str]:
    for _ in range(_LIMIT):
        if frame is None:
            return
        module = str(frame.f_globals.get("__name__", "?"))
        if module.startswith(_OUTERMOST):
            return
        code = frame.f_code
        yield f"{module}:{getattr(code, 'co_qualname', code.co_name)}:{frame.f_lineno}"
        frame = frame.f_back
