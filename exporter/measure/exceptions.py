"""Which exceptions a Flask application meets, handled or not."""

from __future__ import annotations

from typing import Any

from flask import Flask, got_request_exception, request
from werkzeug.exceptions import HTTPException

from exporter.measure.exchange import Exchange


class ErrorWatch:
    """Notes the exceptions of an application on their exchanges."""

    def __init__(self, app: Flask) -> None:
        """Put the hooks into the application, which must keep this object: signals hold it weakly."""
        self.keys: dict[str, str] = {}
        """Where the environ keeps the exchange of a request, by the prefix of the families it is for."""
        self._handle = app.handle_user_exception
        app.handle_user_exception = self.handled  # type: ignore[method-assign, assignment]
        got_request_exception.connect(self.unhandled, app)

    def handled(self, error: Exception) -> Any:
        """An exception that the application may handle; redirects are not errors."""
        if not (isinstance(error, HTTPException) and (error.code or 0) < 400):
            for exchange in self._exchanges():
                exchange.error_type = type(error).__name__
        return self._handle(error)

    def unhandled(self, sender: Flask, exception: Exception, **_: Any) -> None:  # noqa: ARG002  the signal's signature
        """An exception that became a 500, or will leave the application."""
        for exchange in self._exchanges():
            exchange.raised(exception)

    def _exchanges(self) -> list[Exchange]:
        return [request.environ[key] for key in self.keys.values() if key in request.environ]
