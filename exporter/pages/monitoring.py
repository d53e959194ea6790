"""`/monitoring/stats`, `/requests`, `/endpoints` and others: the service's own figures as JSON, for insiders.

Every worker gives the same answer: totals come from the merged counters, and times from the rings of all
workers. `openapi.json` beside this module describes the pages, and is itself `/monitoring/openapi.json`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from importlib.resources import files
from typing import Any

from exporter.addresses import Environ
from exporter.pages import errors, figures
from exporter.pages.access import Access
from exporter.pages.answers import Answer, Page, arguments_of, as_json
from exporter.pages.deaths import deaths
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

MAX_LIMIT = 10_000
_DEFAULT_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Filter:
    """The conditions of a query for requests; None for no condition. `since` is seconds since the epoch."""

    limit: int = _DEFAULT_LIMIT
    endpoint: str | None = None
    status: str | None = None
    since: float | None = None
    request_id: str | None = None
    where: str | None = None

    @classmethod
    def of(cls, arguments: Iterable[tuple[str, str]]) -> Filter:
        """Parse a query; raises ValueError that names the argument, its value and the remedy."""
        values: dict[str, Any] = {}
        for name, text in arguments:
            if name not in _PARSERS:
                raise ValueError(f"{name!r} is no parameter; there are {', '.join(_PARSERS)}")
            if name in values:
                raise ValueError(f"{name}={text!r}: give {name} once")
            try:
                values[name] = _PARSERS[name](text)
            except ValueError as error:
                raise ValueError(f"{name}={text[:100]!r}: {error}") from None
        return cls(**values)

    def matches(self, candidate: Request) -> bool:
        """Whether this request meets all conditions."""
        return (
            (self.endpoint is None or self.endpoint in (candidate.url_rule, candidate.endpoint))
            and (self.status is None or str(candidate.status).startswith(self.status))
            and (self.since is None or candidate.start_time >= self.since)
            and (self.request_id is None or candidate.request_id == self.request_id)
            and (self.where is None or candidate.where == self.where)
        )


class Monitoring:
    """The pages of one service; `prefix` and `group` are those of its request families."""

    def __init__(
        self,
        flight_recorder: FlightRecorder,
        routes: Routes,
        latest_deaths: Callable[[], list[Death]],
        error_groups: Callable[[], list[Group]],
        slowest: Callable[[], Mapping[str, list[SlowRequest]]],
        source: Source,
        vitals: Vitals,
        access: Access,
        *,
        stacks: Callable[[], Stacks],
        prefix: str = "flask_",
        group: str = "url_rule",
    ) -> None:
        """`slowest` gives the slowest requests by rule, `stacks` the stacks of those in progress."""
        self._flight_recorder = flight_recorder
        self._history = flight_recorder.read
        self._routes = routes
        self._deaths = latest_deaths
        self._error_groups = error_groups
        self._slowest = slowest
        self._source = source
        self._vitals = vitals
        self._access = access
        self._stacks = stacks
        self._prefix = prefix
        self._group = group

    def pages(self) -> dict[str, Page]:
        """The pages by the end of their path, after the path of all of them."""
        return {
            "/stats": partial(self._insiders_only, self.stats),
            "/requests": partial(self._insiders_only, self.requests),
            "/endpoints": partial(self._insiders_only, self.endpoints),
            "/slow": partial(self._insiders_only, self.slow),
            "/inflight": partial(self._insiders_only, self.inflight),
            "/deaths": partial(self._insiders_only, self.deaths),
            "/errors": partial(self._insiders_only, self.errors),
            "/openapi.json": partial(self._insiders_only, self.openapi),
        }

    def stats(self, environ: Environ) -> Answer:  # noqa: ARG002  a page
        """Totals since the start, and times over the recorded requests."""
        uptime, (requests, _) = self._vitals.uptime(), self._vitals.window()
        return as_json(figures.stats(self._totals(), self._history(), uptime, requests))

    def requests(self, environ: Environ) -> Answer:
        """The recorded requests that meet the query, newest first."""
        try:
            selection = Filter.of(arguments_of(environ))
        except ValueError as error:
            return as_json({"error": str(error)}, 400)
        requests = [request for request in self._history() if selection.matches(request)]
        return as_json([figures.element(request) for request in requests[: selection.limit]])

    def endpoints(self, environ: Environ) -> Answer:  # noqa: ARG002  a page
        """The figures of each endpoint, the busiest first."""
        return as_json(figures.endpoints(self._totals(), self._history(), self._group))

    def slow(self, environ: Environ) -> Answer:  # noqa: ARG002  a page
        """The slowest requests of each rule within the last hour, with their delays."""
        rules = self._slowest()
        return as_json({rule: [figures.slow_element(slow) for slow in rules[rule]] for rule in rules})

    def inflight(self, environ: Environ) -> Answer:  # noqa: ARG002  a page
        """The requests in progress, the oldest first."""
        return as_json(inflight(self._flight_recorder.in_flight(), self._stacks(), self._routes.rule))

    def deaths(self, environ: Environ) -> Answer:  # noqa: ARG002  a page
        """The latest deaths of workers, the last one first."""
        return as_json(deaths(self._deaths(), self._routes.rule))

    def errors(self, environ: Environ) -> Answer:
        """The error groups, the latest first."""
        try:
            group = errors.group_of(arguments_of(environ))
        except ValueError as error:
            return as_json({"error": str(error)}, 400)
        return as_json(errors.body(self._error_groups(), group))

    def openapi(self, environ: Environ) -> Answer:
        """The description of the pages in OpenAPI 3.1, with their address."""
        document = json.loads(files("exporter.pages").joinpath("openapi.json").read_text("utf-8"))
        path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
        document["servers"] = [{"url": path.removesuffix("/openapi.json")}]
        return as_json(document)

    def _totals(self) -> figures.Totals:
        names = ("total", "errors_total", "duration_seconds_count")
        families = self._source.metrics([f"{self._prefix}http_request_{name}" for name in names])
        return figures.Totals.of(families, self._prefix, self._group)

    def _insiders_only(self, page: Page, environ: Environ) -> Answer:
        refusal = self._access.refusal(environ)
        if refusal is not None:
            return refusal.answer()
        return page(environ)


def _limit(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= MAX_LIMIT:
        raise ValueError(f"give a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _status(text: str) -> str:
    if not re.fullmatch(r"[1-5]([0-9]{2}|xx)", text):
        raise ValueError("give a status such as 404, or a class such as 5xx")
    return text.removesuffix("xx")


def _since(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
        except (ValueError, OverflowError):
            seconds = math.nan
    if not 0 <= seconds <= 1e15:
        raise ValueError("give seconds since the epoch, or a UTC time such as 2026-01-31T12:00:00Z")
    return seconds


_PARSERS: dict[str, Callable[[str], Any]] = {
    "limit": _limit,
    "endpoint": str,
    "status": _status,
    "since": _since,
    "request_id": str,
    "where": str,
}
