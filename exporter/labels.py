"""Label values that no client can make unbounded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, make_response, request
from werkzeug.exceptions import HTTPException, default_exceptions

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

UNMATCHED = "_unmatched"
"""The url_rule of a request that matched no rule (404, 405 and slash redirects)."""

OTHER = "_other"
"""The group that takes what the series cap does not admit."""

OTHER_METHOD = "_OTHER"

_RESPONSE = "exporter.response"

# RFC 9110, section 9, and RFC 5789.
METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"])


def group_of(group_by: str | Callable[[Any], Any]) -> Callable[[Any], str]:
    """The function from a Flask request to its group label, as `PrometheusMetrics(group_by=…)` has it."""
    if group_by == "url_rule":
        return lambda request: request.url_rule.rule if request.url_rule else UNMATCHED
    if callable(group_by):
        return lambda request: str(group_by(request))
    return lambda request: str(getattr(request, group_by))


def request_of(app: Flask) -> Callable[[WSGIEnvironment], Request]:
    """The function from an environ that Flask is done with, or has not seen, to a request with its rule."""

    def matched(environ: WSGIEnvironment) -> Request:
        request = app.request_class(environ, populate_request=False)
        adapter = app.create_url_adapter(request)
        if adapter is not None:
            with suppress(HTTPException):
                request.url_rule, _ = adapter.match(return_rule=True)
        return request

    return matched


def error_type_of(status: int) -> str:
    """The name of the HTTP error with this status, for errors that no exception led to."""
    return default_exceptions.get(status, HTTPException).__name__


class SeriesCap:
    """Admits at most `limit` label sets to a family; what comes later is folded into few.

    A label set is a tuple (method, [group,] status, …). Above the limit the method becomes
    `_OTHER`, the status its class, every further value `_other`; the group stays if it is known to
    the application and becomes `_other` if a client made it up. So no rule of the routing map is ever lost,
    and a family has at most `limit` + 6 * (rules + 2) label sets.
    """

    __slots__ = ("_admitted", "_group", "_status", "limit")

    def __init__(self, limit: int, group: int | None, status: int) -> None:
        """`group` and `status` are the positions of these labels in the tuple."""
        self.limit = limit
        self._group = group
        self._status = status
        self._admitted: set[tuple[str, ...]] = set()

    def admit(self, labels: tuple[str, ...], known: bool) -> tuple[str, ...]:
        """The label set to use for `labels`; another one than `labels` where the cap is reached."""
        if labels in self._admitted:
            return labels
        if len(self._admitted) < self.limit:
            self._admitted.add(labels)
            return labels
        folded = [OTHER] * len(labels)
        folded[0] = OTHER_METHOD
        folded[self._status] = labels[self._status][:1] + "xx"
        if self._group is not None and known:
            folded[self._group] = labels[self._group]
        return tuple(folded)


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
