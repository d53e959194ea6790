"""`/monitoring`: what happens now, as a page for people. History is Grafana's.

The page needs no JavaScript; its script only loads it again and again.
"""

from __future__ import annotations

import time
from functools import cache, partial
from importlib.resources import files
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from exporter.addresses import Environ
from exporter.pages.answers import Answer, Page, arguments_of, as_file, as_html
from exporter.pages.filter import Filter
from exporter.pages.health import Health
from exporter.pages.overview import wording
from exporter.pages.overview.neighbours import neighbours, policy
from exporter.pages.reports import Reports
from exporter.settings import Settings

if TYPE_CHECKING:
    from jinja2 import Template

_LIMIT = 25
"""Requests that are shown, if the query does not say how many."""
_LIMITS = {"inflight": 100, "errors": 25, "slow": 25, "endpoints": 100, "deaths": 25}
"""Rows of the other tables."""
_OWN_GROUPS = ("url_rule", "endpoint")


class Overview:
    """The page of one service."""

    def __init__(self, reports: Reports, health: Health, settings: Settings) -> None:
        self._reports = reports
        self._health = health
        self._settings = settings

    def pages(self) -> dict[str, Page]:
        """The page and its files, by the end of their path."""
        return {
            "": self.page,
            "/page.css": partial(_file, "page.css", "text/css"),
            "/page.js": partial(_file, "page.js", "text/javascript"),
        }

    def page(self, environ: Environ) -> Answer:
        """The page; with status 400 if the query for requests cannot be used."""
        arguments = [(name, value) for name, value in arguments_of(environ) if value]
        complaint = ""
        try:
            selection = Filter.of([*arguments, *_default_limit(arguments)])
        except ValueError as error:
            selection, complaint = Filter(limit=_LIMIT), str(error)
        text = _template().render(
            self._content(selection),
            arguments={} if complaint else dict(arguments),
            complaint=complaint,
            host=environ.get("HTTP_HOST", ""),
            name=quote(environ.get("PATH_INFO", "").rpartition("/")[2].encode("latin-1", "replace")),
        )
        return as_html(text, policy(self._settings), 400 if complaint else 200)

    def _content(self, selection: Filter) -> dict[str, Any]:
        reports, settings = self._reports, self._settings
        totals, history = reports.totals(), reports.history()
        slow = chain.from_iterable(reports.slow().values())
        now = time.time()
        condition = self._health.condition(insider=True)
        return {
            "as_of": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
            "draining": self._health.vitals.draining(),
            "condition": condition,
            "reason": wording.condition_in_words(condition, settings),
            "stats": reports.stats(totals, history),
            "inflight": reports.inflight(),
            "requests": reports.requests(history, selection),
            "rules": sorted({request.url_rule for request in history}),
            "codes": sorted(totals.statuses),
            "slow": sorted(slow, key=lambda request: -request["duration_ms"]),
            "errors": reports.tracebacks(),
            "endpoints": reports.endpoints(totals, history),
            "can_filter": reports.group in _OWN_GROUPS,
            "deaths": reports.deaths(),
            "neighbours": neighbours(settings),
            "limits": _LIMITS,
            "settings": settings,
        }


def _default_limit(arguments: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [] if any(name == "limit" for name, _ in arguments) else [("limit", str(_LIMIT))]


def _file(name: str, kind: str, environ: Environ) -> Answer:  # noqa: ARG001  a page
    return as_file(files("exporter.pages.overview").joinpath(name).read_bytes(), kind)


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined  # Flask has it; a worker that nobody asks needs it not

    environment = Environment(
        autoescape=True,
        finalize=wording.printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(wording, name) for name in ("percent", "milliseconds", "span", "clock", "day")
    }
    return environment.from_string(files("exporter.pages.overview").joinpath("page.html").read_text("utf-8"))
