"""The view of `python -m exporter top`: what the person at the keyboard has chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SORTS: dict[str, Any] = {
    "requests": lambda row: row[2].get("request_count") or 0,
    "rate": lambda row: row[1] or 0.0,
    "errors": lambda row: row[2].get("error_rate") or 0.0,
    "mean": lambda row: row[2].get("average_response_time_ms") or 0.0,
    "p95": lambda row: (row[2].get("response_time_percentiles") or {}).get("p95") or 0.0,
    "max": lambda row: row[2].get("max_response_time_ms") or 0.0,
    "endpoint": lambda row: row[0],
}
"""The orders of the endpoints, by column."""

_STEPS = {
    "\x1b[A": -1,
    "\x1bOA": -1,
    "k": -1,
    "\x1b[B": 1,
    "\x1bOB": 1,
    "j": 1,
    "\x1b[5~": -10,
    "\x1b[6~": 10,
}
"""Rows up or down, by key."""

Key = tuple[str, str]
"""A row: the name of its table, and its own."""


@dataclass(slots=True)
class View:
    """The choices, and the rows among which they are made."""

    sort: str = "requests"
    reverse: bool = False
    filter: str = ""
    typing: bool = False
    errors_only: bool = False
    endpoint: str = ""
    """The only endpoint whose requests are shown; "" for all."""
    paused: bool = False
    help: bool = False
    selected: Key | None = None
    detail: dict[str, Any] | None = None
    """The request of which everything is shown."""
    rows: dict[Key, dict[str, Any]] = field(default_factory=dict)
    """The rows of both tables, in their order."""
    tops: dict[str, int] = field(default_factory=dict)
    """The first row of each table that is on the screen."""

    @property
    def query(self) -> dict[str, str]:
        """The requests to ask the service for."""
        return {"endpoint": self.endpoint} if self.endpoint else {}

    def window(self, table: str, size: int) -> slice:
        """The rows of a table on the screen, so many at most: they follow the selected row."""
        names = [name for kind, name in self.rows if kind == table]
        top = min(self.tops.get(table, 0), max(len(names) - size, 0)) if self.selected else 0
        if self.selected in self.rows and self.selected[0] == table:
            at = names.index(self.selected[1])
            top = min(max(top, at - size + 1), at)
        self.tops[table] = top
        return slice(top, top + size)

    def press(self, key: str) -> bool:
        """Take one key; False if it means to quit."""
        if self.typing:
            self._type(key)
        elif key in ("q", "Q", "\x03", "\x04"):
            return False
        elif key in _STEPS:
            self._move(_STEPS[key])
        elif key in _ACTIONS:
            _ACTIONS[key](self)
        return True

    def _type(self, key: str) -> None:
        if key in ("\r", "\n"):
            self.typing = False
        elif key in ("\x1b", "\x03"):
            self.typing, self.filter = False, ""
        elif key in ("\x7f", "\b"):
            self.filter = self.filter[:-1]
        elif key.isprintable():
            self.filter += key

    def _back(self) -> None:
        """Leave what was opened last."""
        if self.help or self.detail:
            self.help, self.detail = False, None
        elif self.endpoint:
            self.endpoint = ""
        else:
            self.filter, self.selected = "", None

    def _move(self, step: int) -> None:
        keys = list(self.rows)
        if not keys:
            return
        at = keys.index(self.selected) + step if self.selected in self.rows else 0
        self.selected = keys[min(max(at, 0), len(keys) - 1)]

    def _jump(self) -> None:
        """Go to the first row of the other table."""
        table = self.selected[0] if self.selected else ""
        self.selected = next((key for key in self.rows if key[0] != table), self.selected)

    def _open(self) -> None:
        """Show an endpoint's requests, or everything about a request."""
        row = self.rows.get(self.selected) if self.selected else None
        if self.selected is None or row is None:
            return
        if self.selected[0] == "endpoint":
            self.endpoint = self.selected[1]
        else:
            self.detail = row

    def _sort_by_next(self) -> None:
        names = list(SORTS)
        self.sort = names[(names.index(self.sort) + 1) % len(names)]

    def _begin_filter(self) -> None:
        self.typing, self.filter = True, ""


def _switch(name: str) -> Callable[[View], None]:
    return lambda view: setattr(view, name, not getattr(view, name))


_ACTIONS: dict[str, Callable[[View], None]] = {
    "\x1b": View._back,
    "\t": View._jump,
    "\r": View._open,
    "\n": View._open,
    "s": View._sort_by_next,
    "/": View._begin_filter,
    "?": _switch("help"),
    "h": _switch("help"),
    "r": _switch("reverse"),
    "e": _switch("errors_only"),
    "p": _switch("paused"),
}
