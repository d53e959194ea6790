"""The exceptions of a Flask application, with and without a handler."""

from __future__ import annotations

from typing import Any

from flask import Flask, got_request_exception, has_request_context, request
from werkzeug.exceptions import HTTPException

from exporter.labels import is_redirect
from exporter.measure.exchange import Exchange


class ErrorWatch:
    """Notes the exceptions of an application on their exchanges."""

    def __init__(self, app: Flask) -> None:
        """Put the hooks into the application, which must keep this object, because signals do not."""
        self.keys: dict[str, str] = {}
        """The key of the exchange in the environ of its request, by the prefix of the families."""
        self._handle_user_exception = app.handle_user_exception
        self._handle_exception = app.handle_exception
        app.handle_user_exception = self.handle_user_exception  # type: ignore[method-assign, assignment]
        app.handle_exception = self.handle_exception  # type: ignore[method-assign, assignment]
        got_request_exception.connect(self.receive, app)

    def handle_user_exception(self, error: Exception) -> Any:
        """Note an exception that the application may handle, and let Flask look for the handler."""
        exchanges = self._exchanges()
        if not is_redirect(error):
            for exchange in exchanges:
                exchange.classify(error, is_answer=isinstance(error, HTTPException))
                exchange.pending_error = error
        answer = self._handle_user_exception(error)
        for exchange in exchanges:
            exchange.pending_error = None  # its frames hold the values of all variables
        return answer

    def handle_exception(self, error: Exception) -> Any:
        """Note an exception that becomes a 500 or leaves the application, and let Flask go on."""
        for exchange in self._exchanges():
            exchange.note_exception(error)
        return self._handle_exception(error)

    def receive(self, sender: Flask, exception: Exception, **_: Any) -> None:  # noqa: ARG002  a receiver
        """Note an exception that Flask signals without a handler; Flask-RESTful may still answer it."""
        if not is_redirect(exception):
            for exchange in self._exchanges():
                exchange.report(exception)

    def _exchanges(self) -> list[Exchange]:
        if not has_request_context():  # a signal from outside of a request
            return []
        exchanges = (request.environ.get(key) for key in self.keys.values())
        return [exchange for exchange in exchanges if exchange is not None]
