"""`/metrics`: the exposition for those who may see it, whichever process serves it."""

from __future__ import annotations

import time
from collections.abc import Callable

from exporter.addresses import Environ
from exporter.pages.access import Access
from exporter.pages.answers import Answer, arguments_of, as_text
from exporter.scrape.exposition import Exposition
from exporter.worker.worker import Worker


class MetricsPage:
    """The page of one exposition."""

    def __init__(
        self,
        exposition: Exposition,
        access: Access,
        worker: Worker | None = None,
        problem: Callable[[], str] = str,
    ) -> None:
        """`worker` is that of the answering process, if it serves requests; `problem` tells why the numbers
        would be wrong, or returns "".
        """
        self._exposition = exposition
        self._access = access
        self._worker = worker
        self._problem = problem

    def answer(self, environ: Environ) -> Answer:
        """The metrics in the format and with the names that the request asks for."""
        refusal = self._access.refusal(environ)
        if refusal is not None:
            return refusal.answer()
        problem = self._problem()
        if problem:
            return as_text(problem, 500)
        try:
            return self._measure(environ)
        except Exception as error:
            if self._worker is not None:
                self._worker.failures.count("scrape", error)
            return as_text(f"The metrics cannot be read: {error}", 500)

    def _measure(self, environ: Environ) -> Answer:
        worker = self._worker
        if worker is None:
            return self._render(environ)
        worker.tick(int(time.monotonic()))  # an idle worker's figures would be old
        worker.count_notes()
        with worker.scrapes.time():
            return self._render(environ)

    def _render(self, environ: Environ) -> Answer:
        body, headers = self._exposition.render(
            environ.get("HTTP_ACCEPT"),
            [value for name, value in arguments_of(environ) if name == "name[]"],
            environ.get("HTTP_ACCEPT_ENCODING"),
        )
        return Answer(200, [*headers, ("Cache-Control", "no-store")], body)
