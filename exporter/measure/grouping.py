"""Grouping: the rule, or another group, and the default labels of the requests of a Flask application."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, has_request_context, make_response, request
from werkzeug.exceptions import HTTPException

from exporter.labels import UNMATCHED, clean
from exporter.observation import Observation

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

OWN = "exporter_own"
"""The attribute that marks a rule as the exporter's own; its requests are no traffic."""
_RESPONSE = "exporter.response"


@dataclass(frozen=True, slots=True)
class Grouping:
    """The functions that give the label values of a request."""

    request_of: Callable[[Observation, WSGIEnvironment], Any]
    """Gives the request as Flask has routed it, or else a request with the rule that matches."""
    group_of: Callable[[Any], str] | None
    """Gives the group of a Flask request; None if that is the rule."""
    extra_of: Callable[[WSGIEnvironment], tuple[str, ...]] | None
    """Gives the values of the default labels; None if there are none."""

    @classmethod
    def of(cls, app: Flask, group_by: str | Callable[..., Any], labels: Any) -> Grouping:
        """The grouping of an application; `group_by` and `labels` are those of `PrometheusMetrics`."""
        return cls(
            request_of(app),
            None if group_by == "url_rule" else group_of(group_by),
            default_values_of(labels, app) if labels.has_keys() else None,
        )


def group_of(group_by: str | Callable[[Any], Any]) -> Callable[[Any], str]:
    """The function from a Flask request to its group label, as in `PrometheusMetrics(group_by=…)`."""
    if group_by == "url_rule":
        return lambda request: request.url_rule.rule if request.url_rule else UNMATCHED
    if callable(group_by):
        return lambda request: clean(str(group_by(request)))
    return lambda request: clean(str(getattr(request, group_by)))


def request_of(app: Flask) -> Callable[[Observation, WSGIEnvironment], Any]:
    """The function from an observation and its environ to a request with its rule, if any matches."""

    def request_with_rule(observation: Observation, environ: WSGIEnvironment) -> Any:
        latest = environ.get("werkzeug.request")  # maybe another's: each new request puts itself there
        if _is_routed(latest):
            return latest
        if has_request_context() and request.environ is environ and _is_routed(request):
            return request
        # By now an application mounted in this one may have moved its prefix into SCRIPT_NAME.
        paths = {"SCRIPT_NAME": observation.script_name, "PATH_INFO": observation.path_info}
        match = app.request_class({**environ, **paths}, populate_request=False)
        adapter = app.create_url_adapter(match)
        if adapter is not None:
            with suppress(HTTPException):
                match.url_rule, _ = adapter.match(return_rule=True)
        return match

    return request_with_rule


def _is_routed(request: Any) -> bool:
    """Whether Flask has looked for the rule of the request; a middleware makes requests, too."""
    return (
        getattr(request, "url_rule", None) is not None
        or getattr(request, "routing_exception", None) is not None
    )


def default_values_of(labels: Any, app: Flask) -> Callable[[WSGIEnvironment], tuple[str, ...]]:
    """The function from an environ to the values of the default labels, which may need the response."""
    if labels.has_only_static_values():
        constant = tuple(clean(str(value)) for value in labels.get_default_values())
        return lambda _: constant

    @app.after_request
    def remember(response: Response) -> Response:
        request.environ[_RESPONSE] = response
        return response

    def values(environ: WSGIEnvironment) -> tuple[str, ...]:
        response = environ.get(_RESPONSE) or make_response("Exception", 500)
        return tuple(clean(str(value)) for value in labels.values_for(response).values())

    return values
