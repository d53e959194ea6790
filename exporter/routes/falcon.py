"""Falcon: the template of the URI, and the exceptions that its error handlers answer."""

from __future__ import annotations

from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any

from falcon import HTTPError, HTTPStatus
from falcon.app import App

from exporter.observation import Route
from exporter.routes.table import Finder
from exporter.routes.template import NOWHERE, ROUTE, Template, note, report

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

_route = App._get_responder
_handle = App._handle_exception


def watch() -> None:
    """Leave the template in the environ: Falcon keeps it on the request, which nobody outside can reach."""
    App._get_responder = _route_and_note  # type: ignore[method-assign, assignment]
    App._handle_exception = _handle_and_tell  # type: ignore[method-assign, assignment]


def route(environ: WSGIEnvironment) -> Route | None:
    """The template that Falcon has found, or `NOWHERE`; None for a request that it has not seen."""
    template: Template | None = environ.get(ROUTE)
    return template


def finder(application: WSGIApplication) -> Finder | None:
    """The routing of a Falcon application; None for one that is wrapped into something else."""
    if not isinstance(application, App):
        return None

    def find(method: str, path: str) -> str | None:  # noqa: ARG001  a resource answers each method
        match = application._router.find(path)
        return None if match is None else match[3]

    return find


@wraps(_route)
def _route_and_note(app: Any, request: Any) -> Any:
    note(request.env, NOWHERE)  # in case that there is an error
    match = _route(app, request)
    if match[3] is not None:
        note(request.env, _template(match[3], type(match[2]).__name__))
    return match


@wraps(_handle)
def _handle_and_tell(app: Any, request: Any, response: Any, error: Exception, parameters: Any) -> Any:
    if not isinstance(error, HTTPError | HTTPStatus):  # these are answers
        report(request.env, error)
    return _handle(app, request, response, error, parameters)


@lru_cache(10_000)
def _template(rule: str, name: str) -> Template:
    return Template(rule, name)
