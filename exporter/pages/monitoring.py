"""The pages for insiders: `/monitoring` for people, and below it the service's own figures as JSON.

Every worker gives the same answer: totals come from the merged counters, and times from the rings of all
workers. `openapi.json` beside this module describes the JSON, and is itself `/monitoring/openapi.json`.
"""

from __future__ import annotations

import json
from functools import partial
from importlib.resources import files

from exporter.addresses import Environ
from exporter.pages import errors
from exporter.pages.access import Access
from exporter.pages.answers import Answer, Page, arguments_of, as_json
from exporter.pages.filter import Filter
from exporter.pages.overview.overview import Overview
from exporter.pages.reports import Reports


class Monitoring:
    """The pages of one service."""

    def __init__(self, reports: Reports, overview: Overview, access: Access) -> None:
        self._reports = reports
        self._overview = overview
        self._access = access

    def pages(self) -> dict[str, Page]:
        """The pages by the end of their path, after the path of all of them."""
        reports = self._reports
        pages: dict[str, Page] = {
            **self._overview.pages(),
            "/stats": lambda _: as_json(reports.stats(reports.totals(), reports.history())),
            "/requests": self._requests,
            "/endpoints": lambda _: as_json(reports.endpoints(reports.totals(), reports.history())),
            "/slow": lambda _: as_json(reports.slow()),
            "/inflight": lambda _: as_json(reports.inflight()),
            "/deaths": lambda _: as_json(reports.deaths()),
            "/errors": self._errors,
            "/openapi.json": _openapi,
        }
        return {suffix: partial(self._insiders_only, page) for suffix, page in pages.items()}

    def _requests(self, environ: Environ) -> Answer:
        try:
            selection = Filter.of(arguments_of(environ))
        except ValueError as error:
            return as_json({"error": str(error)}, 400)
        return as_json(self._reports.requests(self._reports.history(), selection))

    def _errors(self, environ: Environ) -> Answer:
        try:
            group = errors.group_of(arguments_of(environ))
        except ValueError as error:
            return as_json({"error": str(error)}, 400)
        return as_json(self._reports.errors(group))

    def _insiders_only(self, page: Page, environ: Environ) -> Answer:
        refusal = self._access.refusal(environ)
        if refusal is not None:
            return refusal.answer()
        return page(environ)


def _openapi(environ: Environ) -> Answer:
    """The description of the pages in OpenAPI 3.1, with their address."""
    document = json.loads(files("exporter.pages").joinpath("openapi.json").read_text("utf-8"))
    path = f"{environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
    document["servers"] = [{"url": path.removesuffix("/openapi.json")}]
    return as_json(document)
