"""`/monitoring/stats`, `/requests` and `/endpoints`: the service's own figures as JSON, for insiders.

The same answer whichever worker is asked: totals come from the merged counters, times from the rings of all
workers. `openapi.json` beside this module describes it and is served as `/monitoring/openapi.json`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.resources import files
from typing import Any

from flask import Blueprint, Response, request
from prometheus_client import Metric

from exporter.pages import figures
from exporter.pages.access import Access
from exporter.worker.flightrecorder import Request

NAME = "flask_exporter_monitoring"
MAX_LIMIT = 10_000
_DEFAULT_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Source:
    """Where the figures come from, each over all workers."""

    recorded: Callable[[], list[Request]]  # newest first
    families: Callable[[], Iterable[Metric]]
    window: Callable[[], tuple[int, int]]  # requests and errors of the last 60 s
    uptime: Callable[[], float]  # seconds since the service started


@dataclass(frozen=True, slots=True)
class Filter:
    """Which requests are asked for; None where it does not matter. `since` in seconds since the epoch."""

    limit: int = _DEFAULT_LIMIT
    endpoint: str | None = None
    status: str | None = None
    since: float | None = None
    request_id: str | None = None

    @classmethod
    def of(cls, arguments: Iterable[tuple[str, str]]) -> Filter:
        """Raises ValueError that names the argument, its value and what is understood."""
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
        """Whether this request is asked for."""
        return (
            (self.endpoint is None or self.endpoint in (candidate.url_rule, candidate.endpoint))
            and (self.status is None or str(candidate.status).startswith(self.status))
            and (self.since is None or candidate.start_time >= self.since)
            and (self.request_id is None or candidate.request_id == self.request_id)
        )


class Monitoring:
    """The views of one application; `prefix` and `group` are those of its request families."""

    def __init__(
        self, source: Source, access: Access, *, prefix: str = "flask_", group: str = "url_rule"
    ) -> None:
        self._source = source
        self._access = access
        self._prefix = prefix
        self._group = group

    def blueprint(self) -> Blueprint:
        """The pages, to be registered under the path of one's choice."""
        pages = Blueprint(NAME, __name__)
        pages.before_request(self._insiders_only)
        pages.add_url_rule("/stats", "stats", self.stats)
        pages.add_url_rule("/requests", "requests", self.requests)
        pages.add_url_rule("/endpoints", "endpoints", self.endpoints)
        pages.add_url_rule("/openapi.json", "openapi", self.openapi)
        return pages

    def stats(self) -> Response:
        """Totals since the start, times over the recorded requests."""
        source = self._source
        return _json(figures.stats(self._totals(), source.recorded(), source.uptime(), source.window()[0]))

    def requests(self) -> Response:
        """The recorded requests that the query asks for, newest first."""
        try:
            wanted = Filter.of(request.args.items(multi=True))
        except ValueError as error:
            return _json({"error": str(error)}, 400)
        found = [one for one in self._source.recorded() if wanted.matches(one)]
        return _json([figures.shown(one) for one in found[: wanted.limit]])

    def endpoints(self) -> Response:
        """The figures of each endpoint, the busiest first."""
        return _json(figures.endpoints(self._totals(), self._source.recorded(), self._group))

    def openapi(self) -> Response:
        """The description of the pages in OpenAPI 3.1, with the address under which they are served."""
        document = json.loads(files("exporter.pages").joinpath("openapi.json").read_text("utf-8"))
        document["servers"] = [{"url": request.script_root + request.path.removesuffix("/openapi.json")}]
        return _json(document)

    def _totals(self) -> figures.Totals:
        return figures.Totals.of(self._source.families(), self._prefix, self._group)

    def _insiders_only(self) -> Response | None:
        refused = self._access.refusal(request.environ)
        return None if refused is None else _json({"error": refused.message}, refused.status, refused.headers)


def _json(body: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Response:
    # Not jsonify: the host application may have a JSON provider of its own.
    return Response(
        json.dumps(body) + "\n",
        status,
        [*headers, ("Cache-Control", "no-store")],
        mimetype="application/json",
    )


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
}
