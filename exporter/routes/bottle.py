"""Bottle: the route in `bottle.route`; `start_response` is told of exceptions."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import bottle

from exporter.observation import Route
from exporter.routes.table import Finder
from exporter.routes.template import NOWHERE, Template

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment


def watch() -> None:
    """Bottle leaves everything where it can be read."""


def route(environ: WSGIEnvironment) -> Route | None:
    """The route that Bottle has found, or `NOWHERE`; None for a request that it has not seen."""
    match = environ.get("bottle.route")
    if match is not None:
        return _template(match.rule, match.name or getattr(match.callback, "__name__", ""))
    return NOWHERE if "bottle.app" in environ else None


def finder(application: WSGIApplication) -> Finder:
    """The routing of this application, or else of Bottle's default one."""
    app: Any = application if isinstance(application, bottle.Bottle) else bottle.default_app()

    def find(method: str, path: str) -> str | None:
        try:
            match, _ = app.router.match({"REQUEST_METHOD": method, "PATH_INFO": path})
        except Exception:  # none matches
            return None
        return str(match.rule)

    return find


@lru_cache(10_000)
def _template(rule: str, name: str) -> Template:
    return Template(rule, name)
