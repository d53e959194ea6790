"""The screen of `python -m exporter top`: one look at a service, and its course since the first look."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from exporter.commands.history import History, number, sparkline
from exporter.commands.remote import Snapshot

KEYS = "q quit   s sort   r reverse   / filter   e errors only   p pause"
_HEALTH = {"healthy": "green", "warning": "yellow", "degraded": "dark_orange", "unhealthy": "red"}
_SPARKLINE = 40
_FILTER_FIELDS = ("path", "url_rule", "endpoint")

Row = tuple[str, float | None, dict[str, Any]]


@dataclass(slots=True)
class View:
    """The choices of the person at the keyboard."""

    sort: str = "requests"
    reverse: bool = False
    filter: str = ""
    typing: bool = False
    errors_only: bool = False
    paused: bool = False
    complaint: str = ""

    def press(self, key: str) -> bool:
        """Take one key; False if it means to quit."""
        if self.typing:
            self._type(key)
        elif key in ("q", "Q", "\x03", "\x04"):
            return False
        elif key == "s":
            names = list(_SORTS)
            self.sort = names[(names.index(self.sort) + 1) % len(names)]
        elif key == "r":
            self.reverse = not self.reverse
        elif key == "e":
            self.errors_only = not self.errors_only
        elif key == "p":
            self.paused = not self.paused
        elif key == "/":
            self.typing, self.filter = True, ""
        elif key == "\x1b":
            self.filter = ""
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


def screen(url: str, snapshot: Snapshot, history: History, view: View, height: int | None) -> RenderableType:
    """The whole screen in `height` lines; None shows every endpoint."""
    errors = _errors(snapshot, 7)
    upper = Table.grid(padding=(0, 4))
    upper.add_row(_summary(history), errors)
    free = 40 if height is None else max(height - 15, 8)
    endpoint_rows = None if height is None else max(free * 2 // 5, 3)
    rows = _endpoints(snapshot, history, view)
    parts: list[RenderableType] = [_header(url, snapshot, view), Text(), upper, Text()]
    parts += [_endpoint_table(rows[:endpoint_rows], view), Text()]
    parts.append(_request_table(snapshot, view, max(free - min(len(rows), endpoint_rows or 20), 3)))
    if height is not None:
        parts.append(Text(f"filter: {view.filter}▏" if view.typing else KEYS, style="dim"))
    return Group(*parts)


def clean(text: object, limit: int) -> str:
    """Text of a client without the characters that move the cursor or colour the terminal."""
    printable = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in str(text)[: limit + 1]
    )
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"


def _header(url: str, snapshot: Snapshot, view: View) -> Text:
    header = Text(no_wrap=True, overflow="ellipsis")
    header.append(clean(url, 80), "bold")
    health = snapshot.health
    status = clean("no health page" if health is None else health["status"], 20)
    header.append(f"  {status}", f"bold {_HEALTH.get(status, 'dim')}")
    checks: dict[str, dict[str, Any]] = (health or {}).get("checks", {})
    for name, check in checks.items():
        state = "up" if check.get("up") else f"down: {clean(check.get('error'), 60)}"
        header.append(f"  {clean(name, 30)} ").append(state, "green" if check.get("up") else "red")
    header.append(f"  up {_duration(snapshot.stats.get('uptime_seconds'))}")
    header.append(f"  {number(snapshot.stats.get('total_requests'), 0)} requests")
    if view.filter and not view.typing:
        header.append(f"  filter: {view.filter}", "cyan")
    if view.paused:
        header.append("  paused", "bold cyan")
    if view.complaint:
        header.append(f"  {clean(view.complaint, 300)}", "bold red")
    return header


def _summary(history: History) -> Table:
    now, moments = history.moments[-1], history.moments
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right", min_width=10)
    table.add_column(min_width=_SPARKLINE)

    def row(name: str, value: str, values: Iterable[float | None], style: str = "") -> None:
        table.add_row(
            name, Text(value, "bold " + style), Text(sparkline(values, _SPARKLINE), style or "blue")
        )

    row("requests/s", number(now.rate), (moment.rate for moment in moments))
    bad = "red" if now.error_rate > 0.05 else "green"
    row("errors", f"{now.error_rate:.1%}", (moment.error_rate for moment in moments), bad)
    row("mean", f"{number(now.mean)} ms", (moment.mean for moment in moments))
    row("p50", f"{number(now.p50)} ms", (moment.p50 for moment in moments))
    row("p95", f"{number(now.p95)} ms", (moment.p95 for moment in moments))
    row("p99", f"{number(now.p99)} ms", (moment.p99 for moment in moments))
    return table


def _errors(snapshot: Snapshot, rows: int) -> Table:
    table = Table.grid(padding=(0, 2))
    types: dict[str, int] = snapshot.stats.get("error_types") or {}
    table.add_row(Text("error types", "bold"), "")
    for name, count in sorted(types.items(), key=lambda item: -item[1])[: rows - 1]:
        table.add_row(clean(name, 40), Text(number(count, 0), justify="right"))
    if not types:
        table.add_row(Text("none", "dim"), "")
    return table


def _endpoints(snapshot: Snapshot, history: History, view: View) -> list[Row]:
    """(name, requests a second, figures) of the endpoints to show, in their order."""
    rates = history.moments[-1].endpoint_rates
    rows: list[Row] = [
        (name, rates.get(name), figures)
        for name, figures in snapshot.endpoints.items()
        if view.filter.lower() in name.lower() and (figures.get("error_count") or not view.errors_only)
    ]
    rows.sort(key=lambda row: row[0])
    is_number = view.sort != "endpoint"
    rows.sort(key=_SORTS[view.sort], reverse=is_number is not view.reverse)
    return rows


def _endpoint_table(rows: list[Row], view: View) -> Table:
    table = _table("endpoint", "requests", "rate", "errors", "mean", "p50", "p95", "p99", "max", sort=view)
    for name, rate, figures in rows:
        percentiles = figures.get("response_time_percentiles") or {}
        ratio = figures.get("error_rate") or 0.0
        table.add_row(
            Text(clean(name, 60)),
            number(figures.get("request_count"), 0),
            number(rate),
            Text(f"{ratio:.1%}", "red" if ratio > 0.05 else ""),
            number(figures.get("average_response_time_ms")),
            *(number(percentiles.get(name)) for name in ("p50", "p95", "p99")),
            number(figures.get("max_response_time_ms")),
        )
    return table


def _errors_of(snapshot: Snapshot) -> list[dict[str, Any]]:
    """The newest first: an error may come after a good status, or lie behind a hundred good requests."""
    errors = {
        (request.get("timestamp", 0), str(request.get("request_id"))): request
        for request in snapshot.failed + snapshot.requests
        if request.get("error_occurred")
    }
    return [errors[key] for key in sorted(errors, reverse=True)]


def _request_table(snapshot: Snapshot, view: View, rows: int) -> Table:
    table = _table("time", "method", "path", "status", "ms", "error", "request id")
    requests = [
        request
        for request in (_errors_of(snapshot) if view.errors_only else snapshot.requests)
        if view.filter.lower() in " ".join(str(request.get(name)) for name in _FILTER_FIELDS).lower()
    ]
    for request in requests[:rows]:
        status = request.get("status_code", 0)
        style = "red" if status >= 500 else "yellow" if status >= 400 else ""
        table.add_row(
            datetime.fromtimestamp(request.get("timestamp", 0)).astimezone().strftime("%H:%M:%S.%f")[:-3],
            clean(request.get("method"), 8),
            Text(clean(request.get("path"), 60)),
            Text(str(status), style),
            number(request.get("duration_ms")),
            Text(clean(request.get("error_type") or "", 30), style),
            clean(request.get("request_id") or "", 64),
        )
    return table


def _table(*columns: str, sort: View | None = None) -> Table:
    """A table of plain columns, with words to the left and a mark at the column that sorts."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    words = ("endpoint", "time", "method", "path", "error", "request id")
    for name in columns:
        mark = ""
        if sort is not None and sort.sort == name:
            mark = "▲" if (name == "endpoint") is not sort.reverse else "▼"
        table.add_column(name + mark, justify="left" if name in words else "right", no_wrap=True)
    return table


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days}d {hour:02}:{minute:02}:{second:02}" if days else f"{hour:02}:{minute:02}:{second:02}"


_SORTS: dict[str, Any] = {
    "requests": lambda row: row[2].get("request_count") or 0,
    "rate": lambda row: row[1] or 0.0,
    "errors": lambda row: row[2].get("error_rate") or 0.0,
    "mean": lambda row: row[2].get("average_response_time_ms") or 0.0,
    "p95": lambda row: (row[2].get("response_time_percentiles") or {}).get("p95") or 0.0,
    "max": lambda row: row[2].get("max_response_time_ms") or 0.0,
    "endpoint": lambda row: row[0],
}
