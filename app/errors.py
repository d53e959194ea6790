"""Error answers: a page for browsers, JSON for all other clients, a traceback for nobody."""

from __future__ import annotations

import json

from flask import Flask, render_template, request
from werkzeug.exceptions import BadRequest, HTTPException
from werkzeug.wrappers import Response

from exporter import request_id


class InvalidField(BadRequest):
    """The client sent an invalid value: the answer is 400 and names the field."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field


def init_app(app: Flask) -> None:
    """Answer every HTTP error; Flask turns an unhandled exception into InternalServerError."""
    app.register_error_handler(HTTPException, answer)


def answer(error: HTTPException) -> Response:
    """Describe the error in the form that the client accepts, with the request id that the logs carry."""
    details = {
        "status": error.code,
        "error": error.name,
        "message": error.description,
        "request_id": request_id(),
    }
    if isinstance(error, InvalidField):
        details["field"] = error.field

    response = error.get_response()  # keeps headers such as Allow
    # JSON comes first, so a client without a preference gets JSON.
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        response.data = render_template("error.html", **details)
    else:
        response.data = json.dumps(details)
        response.content_type = "application/json"
    response.vary.add("Accept")
    return response
