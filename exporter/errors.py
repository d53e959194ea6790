"""Which exceptions an application meets, handled or not."""

from __future__ import annotations

from typing import Any

from flask import Flask, got_request_exception, request
from werkzeug.exceptions import HTTPException

from exporter.middleware import EXCHANGE


class ErrorWatch:
    """Notes the exceptions of an application on their exchanges."""

    def __init__(self, app: Flask) -> None:
        self._handle = app.handle_user_exception
        app.handle_user_exception = self.handled  # type: ignore[method-assign, assignment]
        # Signals hold bound methods weakly; the application holds this object.
        got_request_exception.connect(self.unhandled, app)

    def handled(self, error: Exception) -> Any:
        """An exception that the application may handle; redirects are not errors."""
        exchange = request.environ.get(EXCHANGE)
        if exchange is not None and not (isinstance(error, HTTPException) and (error.code or 0) < 400):
            exchange.error_type = type(error).__name__
        return self._handle(error)

    def unhandled(self, sender: Flask, exception: Exception, **_: Any) -> None:  # noqa: ARG002  the signal's signature
        """An exception that became a 500, or will leave the application."""
        exchange = request.environ.get(EXCHANGE)
        if exchange is not None:
            exchange.raised(exception)
