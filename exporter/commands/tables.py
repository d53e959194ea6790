"""The tables of `python -m exporter top`: endpoints, requests and types of errors."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from exporter.commands.history import History, number
from exporter.commands.remote import Snapshot
from exporter.commands.view import SORTS, View

# Each column with the width of the terminal from which on there is room for it.
_ENDPOINT_COLUMNS = {
    "endpoint": 0, "requests": 0, "rate": 70, "errors": 0, "mean ms": 100, "p50 ms": 90,
    "p95 ms": 50, "p99 ms": 80, "max ms": 60,
}  # fmt: skip
_REQUEST_COLUMNS = {
    "time": 0, "method": 60, "path": 0, "status": 0, "ms": 50, "error": 90, "request id": 110,
}  # fmt: skip
_WORDS = ("endpoint", "time", "method", "path", "error", "request id")
_FLEXIBLE = ("endpoint", "path")
"""The columns that are cut where the others leave them too little room."""
_NAME_LIMIT = 100
_SELECTED = "reverse"
_FILTER_FIELDS = ("path", "url_rule", "endpoint")

Row = tuple[str, float | None, dict[str, Any]]
"""The name of an endpoint, its requests a second, and its figures."""


def clean(text: object, limit: int) -> str:
    """Text of a client without the characters that move the cursor or colour the terminal."""
    printable = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in str(text)[: limit + 1]
    )
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"


def name_of(request: dict[str, Any]) -> str:
    """The id of a request, or its time where the service gives none."""
    return str(request.get("request_id") or request.get("timestamp"))


def endpoints(snapshot: Snapshot, history: History, view: View) -> list[Row]:
    """The endpoints to show, in their order."""
    rates = history.moments[-1].endpoint_rates
    rows: list[Row] = [
        (name, rates.get(name), figures)
        for name, figures in snapshot.endpoints.items()
        if view.filter.lower() in name.lower() and (figures.get("error_count") or not view.errors_only)
    ]
    rows.sort(key=lambda row: row[0])
    is_number = view.sort != "endpoint"
    rows.sort(key=SORTS[view.sort], reverse=is_number is not view.reverse)
    return rows


def requests(snapshot: Snapshot, view: View) -> list[dict[str, Any]]:
    """The requests to show, the newest first."""
    return [
        request
        for request in (_errors_of(snapshot) if view.errors_only else snapshot.requests)
        if view.filter.lower() in " ".join(str(request.get(name)) for name in _FILTER_FIELDS).lower()
        and view.endpoint in ("", request.get("url_rule"), request.get("endpoint"))
    ]


def _errors_of(snapshot: Snapshot) -> list[dict[str, Any]]:
    """The newest first: an error may come after a good status, or lie behind a hundred good requests."""
    errors = {
        (request.get("timestamp", 0), str(request.get("request_id"))): request
        for request in snapshot.failed + snapshot.requests
        if request.get("error_occurred")
    }
    return [errors[key] for key in sorted(errors, reverse=True)]


def endpoint_table(rows: list[Row], view: View, width: int) -> Table:
    """The figures of the endpoints in so many columns."""
    columns = [name for name, least in _ENDPOINT_COLUMNS.items() if width >= least]
    lines = []
    for name, rate, figures in rows:
        percentiles = figures.get("response_time_percentiles") or {}
        ratio = figures.get("error_rate") or 0.0
        cells: dict[str, Any] = {
            "endpoint": clean(name, _NAME_LIMIT),
            "requests": number(figures.get("request_count"), 0),
            "rate": number(rate),
            "errors": Text(f"{ratio:.1%}", "red" if ratio > 0.05 else ""),
            "mean ms": number(figures.get("average_response_time_ms")),
            **{f"{name} ms": number(percentiles.get(name)) for name in ("p50", "p95", "p99")},
            "max ms": number(figures.get("max_response_time_ms")),
        }
        lines.append((cells, view.selected == ("endpoint", name)))
    return _fill(_table(columns, view), columns, lines, width)


def request_table(rows: Iterable[dict[str, Any]], view: View, width: int) -> Table:
    """The latest requests in so many columns."""
    columns = [name for name, least in _REQUEST_COLUMNS.items() if width >= least]
    lines = []
    for request in rows:
        status = request.get("status_code", 0)
        style = "red" if status >= 500 else "yellow" if status >= 400 else ""
        moment = datetime.fromtimestamp(request.get("timestamp", 0)).astimezone()
        cells: dict[str, Any] = {
            "time": moment.strftime("%H:%M:%S.%f")[: -3 if width >= 60 else -7],
            "method": clean(request.get("method") or "-", 8),
            "path": clean(request.get("path") or "-", _NAME_LIMIT),
            "status": Text(str(status), style),
            "ms": number(request.get("duration_ms")),
            "error": Text(clean(request.get("error_type") or "", 30), style),
            "request id": clean(request.get("request_id") or "", 64),
        }
        lines.append((cells, view.selected == ("request", name_of(request))))
    return _fill(_table(columns), columns, lines, width)


def error_types(snapshot: Snapshot, lines: int) -> Table:
    """The most frequent types of errors."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    types: dict[str, int] = snapshot.stats.get("error_types") or {}
    table.add_row(Text("error types", "bold"), "")
    for name, count in sorted(types.items(), key=lambda item: -item[1])[: lines - 1]:
        table.add_row(clean(name, 40), number(count, 0))
    if not types:
        table.add_row(Text("none", "dim"), "")
    return table


def _table(columns: Iterable[str], sort: View | None = None) -> Table:
    """A table of plain columns, with words to the left and a mark at the column that sorts."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        mark = ""
        if sort is not None and sort.sort == name.removesuffix(" ms"):
            mark = "▲" if (name == "endpoint") is not sort.reverse else "▼"
        table.add_column(name + mark, justify="left" if name in _WORDS else "right", no_wrap=True)
    return table


def _fill(table: Table, columns: list[str], lines: list[tuple[dict[str, Any], bool]], width: int) -> Table:
    """Add the lines, the selected one reversed, with names of a length for which the others leave room."""
    others = sum(
        2 + max([len(name) + 1, *(len(str(cells[name])) for cells, _ in lines)])
        for name in columns
        if name not in _FLEXIBLE
    )
    limit = max(width - others, 10)
    for cells, selected in lines:
        row = [
            Text(clean(cells[name], limit)) if name in _FLEXIBLE else Text.assemble(cells[name])
            for name in columns
        ]
        table.add_row(*row, style=_SELECTED if selected else "")
    return table
