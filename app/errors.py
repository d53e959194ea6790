"""Answers to what went wrong: a page for browsers, JSON for everybody else, and no traceback for either."""

from __future__ import annotations

import json

from flask import Flask, render_template, request
from werkzeug.exceptions import BadRequest, HTTPException
from werkzeug.wrappers import Response


class InvalidField(BadRequest):
    """A value that the client has to change: 400 with the name of its field."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field


def init_app(app: Flask) -> None:
    """Answer every HTTP error; Flask hands an unhandled exception over as InternalServerError."""
    app.register_error_handler(HTTPException, answer)


def answer(error: HTTPException) -> Response:
    """Describe the error in the form that the client accepts, with the id to ask the logs for."""
    about = {
        "status": error.code,
        "error": error.name,
        "message": error.description,
        "request_id": request.environ.get("exporter.request_id"),
    }
    if isinstance(error, InvalidField):
        about["field"] = error.field

    response = error.get_response()  # keeps headers such as Allow
    # JSON comes first: it is what a client gets that does not care.
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        response.data = render_template("error.html", **about)
    else:
        response.data = json.dumps(about)
        response.content_type = "application/json"
    response.vary.add("Accept")
    return response
