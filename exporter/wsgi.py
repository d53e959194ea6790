"""Any WSGI application, with the metrics, the log and the pages that a Flask application has:

    from exporter.wsgi import WSGIExporter

    application = WSGIExporter(application)

Django, Bottle, Pyramid, Falcon, py4web and web2py tell which route a request has matched. Where none of them
has seen it, `route` does, or else the path with `<id>` in the place of what looks like a value.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from types import FunctionType
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, CollectorRegistry

from exporter.core import Core
from exporter.measure.metrics import Shape
from exporter.measure.middleware import Middleware
from exporter.measure.outcomes import Outcomes
from exporter.observation import CURRENT, EXCHANGE
from exporter.pages.answers import Page, serve
from exporter.routes.frameworks import Frameworks
from exporter.routes.template import likely
from exporter.settings import Settings, SettingsError
from exporter.store.workerfile import install
from exporter.version import __version__

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment
    from typing_extensions import Unpack

    from exporter.settings import SettingsArguments

    class Arguments(SettingsArguments, total=False):
        """Settings, and where the metrics are."""

        path: str | None


__all__ = ["WSGIExporter"]

# Before any metric is declared: prometheus_client's own files end the process where the disk is full.
install()


class WSGIExporter:
    """Measures every request of a WSGI application and serves the results beside it.

    It is the application for the server. Every field of `Settings` but `group_by` is a keyword argument.

    Raises:
        SettingsError: an argument or an `EXPORTER_*` variable cannot be used.
    """

    def __init__(
        self,
        application: WSGIApplication,
        route: Callable[[WSGIEnvironment], str | None] | None = None,
        *,
        buckets: Iterable[float] | None = None,
        registry: CollectorRegistry | None = None,
        **arguments: Unpack[Arguments],
    ) -> None:
        """`route` gives the url_rule of a request when its answer begins, or None for none."""
        settings = Settings.load(buckets=buckets, **arguments)
        if settings.group_by != "url_rule":
            raise SettingsError(
                "EXPORTER_GROUP_BY",
                settings.group_by,
                "that is for Flask applications: give WSGIExporter a function as its `route`",
            )
        self.registry = REGISTRY if registry is None else registry
        self.core = Core(
            settings, self.registry, prefix=settings.names, group="url_rule", context=nullcontext
        )
        self.health_check = self.core.checks.health_check
        self._application = application
        self._frameworks = Frameworks(application, route)
        self._pages: dict[str, Page] = _pages(settings, self.core)
        self._own_paths = {*self._pages, "/favicon.ico"}
        for find in self._frameworks.finders:
            self.core.routes.add(find)
        if route is None:
            self.core.routes.add(lambda _, path: likely(path).rule)
        self.core.places.add(_module(application), os.curdir)
        self.core.request_log.attach()
        self._measured = self._middleware(settings)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request, measured unless it is for a page of the exporter's."""
        return self._measured(environ, start_response)

    def _middleware(self, settings: Settings) -> WSGIApplication:
        shape = Shape(
            prefix=settings.names,
            group="url_rule",
            extra=(),
            buckets=settings.buckets,
            as_histogram=True,
        )
        instruments = self.core.instruments(shape, first=True, version=__version__)
        if instruments is None:
            return self._answer
        outcomes = Outcomes(
            instruments,
            self._frameworks,
            self.core.flight_recorder if settings.extended else None,
            self.core.sinks(),
            self.core.fingerprints(),
        )
        self.core.slow.watch(outcomes, lambda _: None)
        return Middleware(
            self._answer,
            instruments,
            outcomes,
            key=EXCHANGE,
            own_paths=self._own_paths,
            begin=self._begin,
            is_trusted=self.core.access.from_proxy if settings.trusted_proxies else None,
        ).measure

    def _begin(self, environ: WSGIEnvironment) -> None:
        """Leave to the application each of our paths for which it has a route of its own."""
        for path in list(self._own_paths):
            if any(find("GET", path) == path for find in self._frameworks.finders):
                self._own_paths.discard(path)
                self._pages.pop(path, None)
        self.core.begin(environ, f"{type(self._application).__qualname__} {_module(self._application)}")

    def _answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        page = self._pages.get(environ.get("PATH_INFO", ""))
        if page is not None:
            return serve(page, environ, start_response)
        token = CURRENT.set(environ.get(EXCHANGE))
        try:
            return self._application(environ, start_response)
        finally:
            CURRENT.reset(token)


def _pages(settings: Settings, core: Core) -> dict[str, Page]:
    """The pages by their paths."""
    pages: dict[str, Page] = {}
    if settings.path:
        pages[settings.path] = core.metrics_page.answer
    for path, below in (
        (settings.health_path, core.health.pages()),
        (settings.monitoring_path, core.monitoring.pages() if settings.monitoring_path else {}),
    ):
        if path:
            pages |= {path + suffix: page for suffix, page in below.items()}
    return pages


def _module(application: Any) -> str:
    """The module of an application that is a function; a class may be the framework's."""
    return application.__module__ if isinstance(application, FunctionType) else ""
