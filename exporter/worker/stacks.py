"""Stacks: where threads and greenlets of this process are right now, without any value."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

# What lies further out is the server's.
_OUTERMOST = "exporter.measure."
_LIMIT = 100


def stack(thread: Any) -> list[str] | None:
    """`module:function:line` of each call of this thread (its ident) or greenlet, the innermost last.

    Of the calls that a request is answered by, beginning below our own; None where that is not known.
    """
    if isinstance(thread, int):
        frame = sys._current_frames().get(thread)
    else:
        frame = getattr(thread, "gr_frame", None)  # None while it runs, which is to say: asks this
    lines = list(_calls(frame))
    return lines[::-1] or None


def _calls(frame: FrameType | None) -> Any:
    for _ in range(_LIMIT):
        if frame is None:
            return
        module = str(frame.f_globals.get("__name__", "?"))
        if module.startswith(_OUTERMOST):
            return
        code = frame.f_code
        yield f"{module}:{getattr(code, 'co_qualname', code.co_name)}:{frame.f_lineno}"
        frame = frame.f_back
