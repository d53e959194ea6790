"""Spots: a stack in a few words, which hold no value of a variable."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from types import CodeType, FrameType
from typing import Any

from exporter.places import Kind, Place, Places
from exporter.worker.process import COLLECTING, collections

COLLECTION = 0.01
"""Seconds from which on a garbage collection is worth a word: the shortest lets the sampler in, too."""

_LIMIT = 2000
_TEXT_LIMIT = 100
_LINES_LIMIT = 50


@dataclass(frozen=True, slots=True, eq=False)
class Spot:
    """The point at which a thread stands. Two spots are the same only as objects."""

    where: str
    """The innermost place of the application's own; "" where there is none."""
    line: int
    """Of that place; 0 where it is not known."""
    library: str
    """The function of a library that the place has called; "" for none."""
    call: str
    """The call that is under way, without its arguments; "" where it is not known."""


NOWHERE = Spot("", 0, "", "")
BLOCKED = Spot("-", 0, "interpreter blocked", "")
"""No other thread could run, so nobody has seen whose fault it was."""
SEVERAL = Spot("_other", 0, "", "")
"""A request had more spots than are kept apart."""


class Spots:
    """The spots of one service's threads, each named once; for one thread."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._spots: dict[tuple[Any, ...], Spot] = {}

    def of(self, frame: FrameType | None) -> Spot:
        """The spot of a thread with this innermost frame: 2 to 10 µs for one that has been seen before."""
        inner = own = library = None
        inner_at = own_at = -1
        for place, around in self._places.around(frame):
            if place.code is COLLECTING and collections.under_way() < COLLECTION:
                continue
            if inner is None:
                inner, inner_at = place, around.f_lasti
            if place.kind is Kind.OWN:
                own, own_at = place, around.f_lasti
                break
            if place.kind is Kind.LIBRARY:
                library = place
        if inner is None:
            return NOWHERE
        key = own, own_at, library, inner, inner_at
        spot = self._spots.get(key)
        if spot is None:
            if len(self._spots) >= _LIMIT:
                self._spots.clear()
            spot = self._spots[key] = _spot(own, own_at, library, inner, inner_at)
        return spot


def _spot(own: Place | None, own_at: int, library: Place | None, inner: Place, inner_at: int) -> Spot:
    if own is None:  # then the innermost says more than the server's or Flask's outermost
        library = inner
    where, line = (own.where, own.line(own_at)) if own else ("", 0)
    if inner.code is COLLECTING:
        return Spot(where, line, "gc", "")
    return Spot(where, line, library.where if library else "", _call(inner, inner_at))


def _call(place: Place, instruction: int) -> str:
    """The function that the instruction calls, as the source has it; Python 3.10 does not know where."""
    if place.debug_info or not hasattr(place.code, "co_positions"):  # Jinja's own code has no source
        return ""
    position = next(islice(place.code.co_positions(), max(instruction, 0) // 2, None), (None,) * 4)
    try:
        call: Any = ast.parse(f"({_source(place.code, position)})", mode="eval").body
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return ""
    return _shown(call.func)[:_TEXT_LIMIT] if isinstance(call, ast.Call) else ""


def _source(code: CodeType, position: Sequence[int | None]) -> str:
    """What stands at a position (first and last line, first and last byte); raises TypeError for none."""
    first, last, start, end = position
    if first is None or last is None or last - first > _LINES_LIMIT:
        return ""
    lines = [line.encode() for line in linecache.getlines(code.co_filename)[first - 1 : last]]
    lines[-1:] = [line[:end] for line in lines[-1:]]
    lines[:1] = [line[start:] for line in lines[:1]]
    return b"".join(lines).decode()


def _shown(node: ast.expr) -> str:
    """Names alone: a literal, such as an argument in a chain of calls, may be a secret."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_shown(node.value)}.{node.attr}"
    if isinstance(node, ast.Call):
        return f"{_shown(node.func)}()"
    if isinstance(node, ast.Subscript):
        return f"{_shown(node.value)}[]"
    return "…"
