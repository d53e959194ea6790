"""Pyramid: the route that its mapper has found, and the exceptions that a view of their own answers."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from pyramid import tweens
from pyramid.request import Request
from pyramid.response import Response
from pyramid.router import Router
from pyramid.urldispatch import RoutesMapper

from exporter.observation import Route
from exporter.routes.table import Finder
from exporter.routes.template import NOWHERE, ROUTE, Template, note, report

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

_match = RoutesMapper.__call__
_handle = tweens._error_handler


def watch() -> None:
    """Leave the route in the environ: Pyramid keeps it on the request, which nobody outside can reach."""
    RoutesMapper.__call__ = _match_and_note
    tweens._error_handler = _handle_and_tell


def route(environ: WSGIEnvironment) -> Route | None:
    """The route that Pyramid has found, or `NOWHERE`; None for a request that it has not seen."""
    template: Template | None = environ.get(ROUTE)
    return template


def finder(application: WSGIApplication) -> Finder | None:
    """The routing of a Pyramid application; None for one that is wrapped into something else."""
    if not isinstance(application, Router) or application.routes_mapper is None:
        return None

    def find(method: str, path: str) -> str | None:
        try:
            match = _match(application.routes_mapper, Request.blank(path, method=method))
        except Exception:  # a predicate of the application's own wants a real request
            return None
        return None if match["route"] is None else _template(match["route"]).rule

    return find


@wraps(_match)
def _match_and_note(mapper: RoutesMapper, request: Any) -> Any:
    match = _match(mapper, request)
    note(request.environ, NOWHERE if match["route"] is None else _template(match["route"]))
    return match


@wraps(_handle)
def _handle_and_tell(request: Any, error: Exception) -> Any:
    if not isinstance(error, Response):  # HTTP errors are answers
        report(request.environ, error)
    return _handle(request, error)


def _template(match: Any) -> Template:
    """The template of a Pyramid route, which keeps it."""
    template: Template | None = getattr(match, ROUTE, None)
    if template is None:
        pattern = match.pattern if match.pattern.startswith("/") else f"/{match.pattern}"
        template = Template(pattern, match.name)
        setattr(match, ROUTE, template)
    return template
