"""Which exceptions a Flask application meets, handled or not."""

from __future__ import annotations

from typing import Any

from flask import Flask, got_request_exception, has_request_context, request
from werkzeug.exceptions import HTTPException

from exporter.measure.exchange import Exchange


class ErrorWatch:
    """Notes the exceptions of an application on their exchanges."""

    def __init__(self, app: Flask) -> None:
        """Put the hooks into the application, which must keep this object: signals hold it weakly."""
        self.keys: dict[str, str] = {}
        """Where the environ keeps the exchange of a request, by the prefix of the families it is for."""
        self._handle = app.handle_user_exception
        self._give_up = app.handle_exception
        app.handle_user_exception = self.handled  # type: ignore[method-assign, assignment]
        app.handle_exception = self.unhandled  # type: ignore[method-assign, assignment]
        got_request_exception.connect(self.signalled, app)

    def handled(self, error: Exception) -> Any:
        """An exception that the application may handle."""
        exchanges = self._exchanges()
        if not _redirects(error):
            for exchange in exchanges:
                exchange.classify(error, answered=isinstance(error, HTTPException))
                exchange.unanswered = error
        answer = self._handle(error)
        for exchange in exchanges:
            exchange.unanswered = None  # its frames hold the values of all variables
        return answer

    def unhandled(self, error: Exception) -> Any:
        """An exception that becomes a 500, or leaves the application."""
        for exchange in self._exchanges():
            exchange.raised(error)
        return self._give_up(error)

    def signalled(self, sender: Flask, exception: Exception, **_: Any) -> None:  # noqa: ARG002  the signal's signature
        """An exception that the application reports. Flask has given it up; Flask-RESTful may answer it."""
        if not _redirects(exception):
            for exchange in self._exchanges():
                exchange.report(exception)

    def _exchanges(self) -> list[Exchange]:
        if not has_request_context():  # somebody reports what failed outside of a request
            return []
        exchanges = (request.environ.get(key) for key in self.keys.values())
        return [exchange for exchange in exchanges if exchange is not None]


def _redirects(error: Exception) -> bool:
    return isinstance(error, HTTPException) and (error.code or 0) < 400
