"""The screen of `python -m exporter top`: one look at a service, and its course since the first look."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.styled import Styled
from rich.table import Table
from rich.text import Text

from exporter.commands import tables
from exporter.commands.alerts import Alerts
from exporter.commands.history import History, number, sparkline
from exporter.commands.remote import Snapshot
from exporter.commands.tables import clean
from exporter.commands.view import View

KEYS = "q quit   ? help   ↑↓ select   Enter open   Esc back   / filter   e errors   s sort   p pause"
HELP = (
    ("↑ ↓, k j", "select a row; PgUp and PgDn move by ten, Tab to the other table"),
    ("Enter", "of an endpoint: its requests alone; of a request: everything about it"),
    ("Esc", "back: closes this, or the request; shows all endpoints; ends the filter"),
    ("/", "filter by a part of the path, rule or endpoint; Enter keeps it"),
    ("e", "failed requests and endpoints only; the service is asked for them"),
    ("s, r", "sort the endpoints by the next column; reverse"),
    ("p", "pause"),
    ("q", "quit"),
)
_HEALTH = {"healthy": "green", "warning": "yellow", "degraded": "dark_orange", "unhealthy": "red"}
_SUMMARY_FROM = 20
"""The lines from which on there is room for the course of the figures."""
_ERRORS_FROM = 100
"""The columns from which on the types of errors stand beside it."""
_FRAME = 3  # lines: head, alerts, keys


class Screen:
    """The screen of one service."""

    def __init__(self, url: str, snapshot: Snapshot, history: History, view: View) -> None:
        self.snapshot = snapshot
        self._url = url
        self._history = history
        self._view = view
        self._lost: tuple[float, str] | None = None

    def show(self, snapshot: Snapshot) -> None:
        """Take a new look; one at other requests comes too early for a rate."""
        if snapshot.query == self.snapshot.query:
            self._history.add(snapshot)
        self.snapshot = snapshot
        self.find()

    def lose(self, reason: str) -> None:
        """Say that the service gives no answer; its old figures stay, dimmed."""
        since = self._lost[0] if self._lost else time.monotonic()
        self._lost = since, reason

    def find(self) -> None:
        """The service answers again."""
        self._lost = None

    def live(self, width: int, height: int) -> RenderableType:
        """The screen in so many columns and lines."""
        view = self._view
        if view.help:
            body: RenderableType = _pairs(HELP, width)
        elif view.detail:
            body = _pairs(((name, _text(value)) for name, value in view.detail.items()), width)
        else:
            body = self._body(width, height - _FRAME)
        keys = Text(f"filter: {view.filter}▏" if view.typing else KEYS, "dim", no_wrap=True, overflow="crop")
        frame = Table.grid()
        frame.add_row(self._head())
        frame.add_row(self._news())
        frame.add_row(Styled(body, "dim") if self._lost else body)
        return Group(frame, keys)

    def once(self, width: int, height: int | None) -> RenderableType:
        """One look, without keys; None shows every endpoint."""
        body = self._body(width, None if height is None else height - _FRAME + 1)
        return Group(self._head(), self._news(), body)

    def _body(self, width: int, height: int | None) -> RenderableType:
        parts: list[RenderableType] = []
        free = height
        if free is None or free >= _SUMMARY_FROM - _FRAME:
            parts += [self._summary(width), Text()]
            free = None if free is None else free - 7
        endpoints = tables.endpoints(self.snapshot, self._history, self._view)
        requests = tables.requests(self.snapshot, self._view)
        self._view.rows = {
            **{("endpoint", name): figures for name, _, figures in endpoints},
            **{("request", tables.name_of(request)): request for request in requests},
        }
        note = Text()
        if free is not None:
            shown = self._view.window("endpoint", max((free - 3) * 2 // 5, 1))
            if len(endpoints) > len(endpoints[shown]):
                last = shown.start + len(endpoints[shown])
                note = Text(f"{shown.start + 1} to {last} of {len(endpoints)} endpoints", "cyan")
            endpoints = endpoints[shown]
            requests = requests[self._view.window("request", max(free - len(endpoints) - 3, 0))]
        else:
            requests = requests[:20]
        parts += [tables.endpoint_table(endpoints, self._view, width), note]
        if requests or free is None:
            parts.append(tables.request_table(requests, self._view, width))
        return Group(*parts)

    def _head(self) -> Text:
        snapshot, view = self.snapshot, self._view
        head = Text(no_wrap=True, overflow="ellipsis")
        head.append(clean(self._url, 80), "bold")
        if self._lost:
            head.append(f"  DOWN {time.monotonic() - self._lost[0]:.0f} s", "bold red")
        else:
            health = snapshot.health
            status = clean("no health page" if health is None else health["status"], 20)
            head.append(f"  {status}", f"bold {_HEALTH.get(status, 'dim')}")
            for name, check in ((health or {}).get("checks") or {}).items():
                state = "up" if check.get("up") else f"down: {clean(check.get('error'), 60)}"
                head.append(f"  {clean(name, 30)} ").append(state, "green" if check.get("up") else "red")
        dim = "dim" if self._lost else ""
        head.append(f"  up {_duration(snapshot.stats.get('uptime_seconds'))}", dim)
        head.append(f"  {number(snapshot.stats.get('total_requests'), 0)} requests", dim)
        if view.endpoint:
            head.append(f"  endpoint: {clean(view.endpoint, 60)}", "cyan")
        if view.errors_only:
            head.append("  errors only", "cyan")
        if view.filter and not view.typing:
            head.append(f"  filter: {view.filter}", "cyan")
        if view.paused:
            head.append("  paused", "bold cyan")
        return head

    def _news(self) -> Text:
        """Why there is no answer, or the alerts."""
        if self._lost:
            return Text(clean(self._lost[1], 300), "bold red", no_wrap=True, overflow="ellipsis")
        alerts = self.snapshot.alerts
        line = Text(no_wrap=True, overflow="ellipsis")
        if alerts is None:
            return line
        if alerts.complaint:
            return line.append(f"alerts unknown: {clean(alerts.complaint, 300)}", "yellow")
        if alerts == Alerts():
            return line.append("no alert fires", "green")
        line.append(f"{len(alerts.critical + alerts.warning)} firing", "bold")
        for names, style in ((alerts.critical, "bold red"), (alerts.warning, "yellow")):
            for name in names:
                line.append("  ").append(clean(name, 80), style)
        return line

    def _summary(self, width: int) -> Table:
        now, moments = self._history.moments[-1], self._history.moments
        with_errors = width >= _ERRORS_FROM
        bars = max(min(width - (70 if with_errors else 26), 160), 1)
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(justify="right", min_width=10, no_wrap=True)
        table.add_column(min_width=bars)

        def row(
            name: str, value: str, values: Iterable[float | None], style: str = "", unit: str = ""
        ) -> None:
            line = sparkline(values, bars, from_zero=not unit)
            table.add_row(name, Text(value + unit, "bold " + style), Text(line, style or "blue"))

        row("requests/s", number(now.rate), (moment.rate for moment in moments))
        bad = "red" if now.error_rate > 0.05 else "green"
        row("errors", f"{now.error_rate:.1%}", (moment.error_rate for moment in moments), bad)
        row("mean", number(now.mean), (moment.mean for moment in moments), unit=" ms")
        row("p50", number(now.p50), (moment.p50 for moment in moments), unit=" ms")
        row("p95", number(now.p95), (moment.p95 for moment in moments), unit=" ms")
        row("p99", number(now.p99), (moment.p99 for moment in moments), unit=" ms")
        if not with_errors:
            return table
        both = Table.grid(padding=(0, 4))
        both.add_row(table, tables.error_types(self.snapshot, 6))
        return both


def _pairs(pairs: Iterable[tuple[str, str]], width: int) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(max_width=max(width - 20, 20), overflow="fold")
    table.add_row()
    for name, value in pairs:
        table.add_row(name, value)
    return table


def _text(value: object) -> str:
    return "-" if value is None else clean(f"{value:.3f}" if isinstance(value, float) else value, 2000)


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return f"{days}d {hour:02}:{minute:02}:{second:02}" if days else f"{hour:02}:{minute:02}:{second:02}"
