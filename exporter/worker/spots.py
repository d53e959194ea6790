"""Spots: stacks in a few words, without the values of variables."""

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
"""The seconds from which a garbage collection is a spot: the sampler meets the shortest ones, too."""

_LIMIT = 2000
_TEXT_LIMIT = 100
_LINES_LIMIT = 50


@dataclass(frozen=True, slots=True, eq=False)
class Spot:
    """The point at which a thread stands. Two spots are the same only as objects."""

    where: str
    """The innermost place of the application's own code; "" for none."""
    line: int
    """The line of that place; 0 if it is unknown."""
    library: str
    """The function of a library that the place has called; "" for none."""
    call: str
    """The current call, without its arguments; "" if it is unknown."""


NOWHERE = Spot("", 0, "", "")
BLOCKED = Spot("-", 0, "interpreter blocked", "")
"""Another thread held the interpreter, so the sampler could not look."""
SEVERAL = Spot("_other", 0, "", "")
"""The rest, for a request with too many spots."""


class Spots:
    """The spots of one service's threads, one object each; only one thread may use it."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._spots: dict[tuple[Any, ...], Spot] = {}

    def of(self, frame: FrameType | None) -> Spot:
        """The spot of a thread with this innermost frame; costs 2 to 10 µs for a spot that exists."""
        inner = own = library = None
        inner_at = own_at = -1
        for place, caller in self._places.around(frame):
            if place.code is COLLECTING and collections.under_way() < COLLECTION:
                continue
            if inner is None:
                inner, inner_at = place, caller.f_lasti
            if place.kind is Kind.OWN:
                own, own_at = place, caller.f_lasti
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
    if own is None:  # the innermost function says more than the server's or Flask's outermost
        library = inner
    where, line = (own.where, own.line(own_at)) if own else ("", 0)
    if inner.code is COLLECTING:
        return Spot(where, line, "gc", "")
    return Spot(where, line, library.where if library else "", _call(inner, inner_at))


def _call(place: Place, instruction: int) -> str:
    """The function that this instruction calls, in the words of the code; "" in Python 3.10."""
    if place.debug_info or not hasattr(place.code, "co_positions"):  # compiled templates have no Python text
        return ""
    position = next(islice(place.code.co_positions(), max(instruction, 0) // 2, None), (None,) * 4)
    try:
        call: Any = ast.parse(f"({_text(place.code, position)})", mode="eval").body
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return ""
    return _names(call.func)[:_TEXT_LIMIT] if isinstance(call, ast.Call) else ""


def _text(code: CodeType, position: Sequence[int | None]) -> str:
    """The text at a position (first and last line, first and last byte); may raise TypeError."""
    first, last, start, end = position
    if first is None or last is None or last - first > _LINES_LIMIT:
        return ""
    lines = [line.encode() for line in linecache.getlines(code.co_filename)[first - 1 : last]]
    lines[-1:] = [line[:end] for line in lines[-1:]]
    lines[:1] = [line[start:] for line in lines[:1]]
    return b"".join(lines).decode()


def _names(node: ast.expr) -> str:
    """The names in an expression, without literals and arguments, which may be secret."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_names(node.value)}.{node.attr}"
    if isinstance(node, ast.Call):
        return f"{_names(node.func)}()"
    if isinstance(node, ast.Subscript):
        return f"{_names(node.value)}[]"
    return "…"
