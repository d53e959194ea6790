"""Django: the match of the URL resolver, and the exceptions that become an error page."""

from __future__ import annotations

import sys
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any

from django.core.handlers.base import BaseHandler
from django.core.signals import got_request_exception
from django.urls import resolve

from exporter.observation import Route
from exporter.routes.table import Finder
from exporter.routes.template import NOWHERE, ROUTE, Template, note, report

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

_resolve = BaseHandler.resolve_request


def watch() -> None:
    """Leave the match in the environ: Django keeps it on the request, which nobody outside can reach."""
    BaseHandler.resolve_request = _resolve_and_note
    got_request_exception.connect(_tell, dispatch_uid=__name__)


def route(environ: WSGIEnvironment) -> Route | None:
    """The pattern that Django has found, or `NOWHERE`; None for a request that it has not seen."""
    match = environ.get(ROUTE)
    return match if match is None or match is NOWHERE else _template(match.route, match.view_name)


def finder(application: WSGIApplication) -> Finder:  # noqa: ARG001  Django has one routing for a process
    """The routing of ROOT_URLCONF."""
    return _find


def _find(method: str, path: str) -> str | None:  # noqa: ARG001  Django's patterns are for all methods
    try:
        match = resolve(path)
    except Exception:  # none matches, or there are no settings yet
        return None
    return _template(match.route, match.view_name).rule


@wraps(_resolve)
def _resolve_and_note(handler: BaseHandler, request: Any) -> Any:
    note(request.META, NOWHERE)  # for a request that no pattern matches, which raises
    match = _resolve(handler, request)
    note(request.META, match)
    return match


def _tell(sender: Any, request: Any = None, **_: Any) -> None:  # noqa: ARG001  the signal's signature
    if request is not None:
        report(request.META, sys.exc_info()[1])


@lru_cache(10_000)
def _template(pattern: str, name: str) -> Template:
    """Patterns that are regular expressions stay so, but for the signs of their ends."""
    return Template("/" + pattern.removeprefix("^").removesuffix("$").removeprefix("/"), name)
