"""Reports: what the pages below `/monitoring` say, before it becomes JSON or HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from exporter.pages import errors, figures
from exporter.pages.deaths import deaths
from exporter.pages.filter import Filter
from exporter.pages.health import Vitals
from exporter.pages.inflight import inflight
from exporter.routes.table import Routes
from exporter.scrape.sources import Source
from exporter.worker.deaths import Death
from exporter.worker.errorslots import Group
from exporter.worker.flightrecorder import FlightRecorder
from exporter.worker.requests import Request
from exporter.worker.slowest import SlowRequest
from exporter.worker.stackring import Stacks


@dataclass(frozen=True, slots=True)
class Reports:
    """The reports of one service; `prefix` and `group` are those of its request families."""

    flight_recorder: FlightRecorder
    routes: Routes
    latest_deaths: Callable[[], list[Death]]
    error_groups: Callable[[], list[Group]]
    slowest: Callable[[], Mapping[str, list[SlowRequest]]]
    """The slowest requests by rule."""
    source: Source
    vitals: Vitals
    _: KW_ONLY
    stacks: Callable[[], Stacks]
    """The stacks of the requests in progress."""
    prefix: str = "flask_"
    group: str = "url_rule"

    def history(self) -> Sequence[Request]:
        """The recorded requests of all workers, the newest first."""
        return self.flight_recorder.read()

    def totals(self) -> figures.Totals:
        """The totals of all workers, living and dead."""
        names = ("total", "errors_total", "duration_seconds_count")
        families = self.source.metrics([f"{self.prefix}http_request_{name}" for name in names])
        return figures.Totals.of(families, self.prefix, self.group)

    def stats(self, totals: figures.Totals, history: Sequence[Request]) -> dict[str, Any]:
        """Totals since the start, and times over the recorded requests."""
        return figures.stats(totals, history, self.vitals.uptime(), self.vitals.window()[0])

    def requests(self, history: Sequence[Request], selection: Filter) -> list[dict[str, Any]]:
        """The recorded requests that the filter selects, newest first."""
        requests = [request for request in history if selection.matches(request)]
        return [figures.element(request) for request in requests[: selection.limit]]

    def endpoints(self, totals: figures.Totals, history: Sequence[Request]) -> dict[str, dict[str, Any]]:
        """The figures of each endpoint, the busiest first."""
        return figures.endpoints(totals, history, self.group)

    def slow(self) -> dict[str, list[dict[str, Any]]]:
        """The slowest requests of each rule within the last hour, with their delays."""
        rules = self.slowest()
        return {rule: [figures.slow_element(slow) for slow in rules[rule]] for rule in rules}

    def inflight(self) -> list[dict[str, Any]]:
        """The requests in progress, the oldest first."""
        return inflight(self.flight_recorder.in_flight(), self.stacks(), self.routes.rule)

    def deaths(self) -> list[dict[str, Any]]:
        """The latest deaths of workers, the last one first."""
        return deaths(self.latest_deaths(), self.routes.rule)

    def errors(self, group: str | None = None) -> list[dict[str, Any]]:
        """The error groups, the latest first; or this one, with its traceback."""
        return errors.body(self.error_groups(), group)

    def tracebacks(self) -> list[dict[str, Any]]:
        """The error groups with their tracebacks, the latest first."""
        return [errors.with_traceback(group) for group in self.error_groups()]
