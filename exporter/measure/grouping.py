"""How the requests of a Flask application are told apart: their rule, another group, default labels."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, make_response, request
from werkzeug.exceptions import HTTPException

from exporter.labels import UNMATCHED

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_RESPONSE = "exporter.response"


@dataclass(frozen=True, slots=True)
class Grouping:
    """Where the label values of a request come from."""

    request_of: Callable[[WSGIEnvironment], Any]
    """A request with its rule, for an environ that Flask is done with, or has not seen."""
    group_of: Callable[[Any], str] | None
    """The group of a Flask request; None where that is the rule."""
    extra_of: Callable[[WSGIEnvironment], tuple[str, ...]] | None
    """The values of the default labels; None where there are none."""

    @classmethod
    def of(cls, app: Flask, group_by: str | Callable[..., Any], labels: Any) -> Grouping:
        """For an application; `group_by` and the default `labels` are those of `PrometheusMetrics`."""
        return cls(
            request_of(app),
            None if group_by == "url_rule" else group_of(group_by),
            default_values_of(labels, app) if labels.has_keys() else None,
        )


def group_of(group_by: str | Callable[[Any], Any]) -> Callable[[Any], str]:
    """The function from a Flask request to its group label, as `PrometheusMetrics(group_by=…)` has it."""
    if group_by == "url_rule":
        return lambda request: request.url_rule.rule if request.url_rule else UNMATCHED
    if callable(group_by):
        return lambda request: str(group_by(request))
    return lambda request: str(getattr(request, group_by))


def request_of(app: Flask) -> Callable[[WSGIEnvironment], Request]:
    """The function from an environ to a request of this application with its rule, if any matches."""

    def matched(environ: WSGIEnvironment) -> Request:
        request = app.request_class(environ, populate_request=False)
        adapter = app.create_url_adapter(request)
        if adapter is not None:
            with suppress(HTTPException):
                request.url_rule, _ = adapter.match(return_rule=True)
        return request

    return matched


def default_values_of(labels: Any, app: Flask) -> Callable[[WSGIEnvironment], tuple[str, ...]]:
    """The function from an environ to the values of the default labels, which may need the response."""
    if labels.has_only_static_values():
        constant = tuple(str(value) for value in labels.get_default_values())
        return lambda _: constant

    @app.after_request
    def keep(response: Response) -> Response:
        request.environ[_RESPONSE] = response
        return response

    def values(environ: WSGIEnvironment) -> tuple[str, ...]:
        response = environ.get(_RESPONSE) or make_response("Exception", 500)
        return tuple(str(value) for value in labels.values_for(response).values())

    return values
