"""web2py: application, controller and function of a request, and the errors that get a ticket."""

from __future__ import annotations

from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any

from gluon import main
from gluon.http import HTTP
from gluon.restricted import RestrictedError

from exporter.observation import CURRENT, Route
from exporter.routes.template import NOWHERE, ROUTE, Template, report

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

_serve = main.serve_controller


def watch() -> None:
    """Leave the route in the environ, and hear of the errors for which web2py writes a ticket."""
    main.serve_controller = _serve_and_note


def route(environ: WSGIEnvironment) -> Route | None:
    """The function that web2py has called, or `NOWHERE`; None where it serves a file."""
    template: Template | None = environ.get(ROUTE)
    return template


def finder(application: WSGIApplication) -> None:
    """Nobody can ask."""


@wraps(_serve)
def _serve_and_note(request: Any, response: Any, session: Any) -> Any:
    observation = CURRENT.get()
    if observation is None or observation.recorded:
        return _serve(request, response, session)
    environ = observation.environ
    if ROUTE in environ:  # the page of an error
        return _serve(request, response, session)
    environ[ROUTE] = _template(request.application, request.controller, request.function)
    try:
        return _serve(request, response, session)
    except HTTP as answer:
        if str(answer.headers.get("web2py_error", "")).startswith("invalid"):
            environ[ROUTE] = NOWHERE  # the client has made up the name
        raise
    except RestrictedError as error:
        report(environ, error.__context__ or error)
        raise


@lru_cache(10_000)
def _template(application: str, controller: str, function: str) -> Template:
    return Template(f"/{application}/{controller}/{function}", f"{controller}.{function}")
