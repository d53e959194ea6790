"""py4web: the route that its router, Ombott, leaves in `ombott.route`, and the errors that get a ticket."""

from __future__ import annotations

import sys
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any

import ombott

from exporter.observation import CURRENT, Route
from exporter.routes.table import Finder
from exporter.routes.template import NOWHERE, Template, report

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment


def watch() -> None:
    """Hear of the errors for which py4web writes a ticket."""
    core: Any = sys.modules.get("py4web.core")
    if core is None or hasattr(core.ErrorLogger.log, "__wrapped__"):
        return
    log = core.ErrorLogger.log

    @wraps(log)
    def tell_and_log(*arguments: Any) -> Any:
        observation = CURRENT.get()
        if observation is not None and not observation.recorded:
            report(observation.environ, sys.exc_info()[1])
        return log(*arguments)

    core.ErrorLogger.log = tell_and_log


def route(environ: WSGIEnvironment) -> Route | None:
    """The route that Ombott has found, or `NOWHERE`; None for a request that it has not seen."""
    match = environ.get("ombott.route")
    if match is not None:
        return _template(match.route.rule, getattr(match.handler, "__name__", ""))
    return NOWHERE if "ombott.app" in environ else None


def finder(application: WSGIApplication) -> Finder:
    """The routing of this application, or else of the default one, which is py4web's."""
    app: Any = application if isinstance(application, ombott.Ombott) else ombott.default_app()

    def find(method: str, path: str) -> str | None:
        try:
            match, _ = app.to_route(path, method)
        except Exception:  # the router does not take such a path
            return None
        return str(match[0].route.rule) if match else None

    return find


@lru_cache(10_000)
def _template(rule: str, name: str) -> Template:
    return Template(rule if rule.startswith("/") else f"/{rule}", name)
