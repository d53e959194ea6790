"""Extensions for APIs answer errors themselves and signal them none the less: the answer counts."""

from __future__ import annotations

from typing import Any

import flask_restful
import flask_restx
import pytest
from flask import Flask
from prometheus_client import CollectorRegistry

from exporter import FlaskExporter
from tests.rig.wsgi import Counts, call


class OutOfStockError(Exception):
    """An error of the application's own, for which the API has an answer."""


class Item:
    """The methods of a resource."""

    def get(self) -> None:
        flask_restful.abort(404)

    def put(self) -> str:
        return "ok"

    def post(self) -> None:
        raise OutOfStockError

    def patch(self) -> None:
        raise ValueError("bug")

    def delete(self) -> None:
        flask_restful.abort(503)


def restful(app: Flask) -> None:
    class Resource(Item, flask_restful.Resource):  # type: ignore[misc]
        pass

    answers = {"OutOfStockError": {"message": "none left", "status": 409}}
    flask_restful.Api(app, errors=answers).add_resource(Resource, "/item")


def restx(app: Flask) -> None:
    class Resource(Item, flask_restx.Resource):  # type: ignore[misc]
        pass

    api = flask_restx.Api(app)
    api.errorhandler(OutOfStockError)(lambda _: ({"message": "none left"}, 409))
    api.add_resource(Resource, "/item")


ERRORS = [
    ("GET", "404", "NotFound", 0),
    ("POST", "409", "OutOfStockError", 0),
    ("OPTIONS", "200", "", 0),
    ("TRACE", "405", "MethodNotAllowed", 0),
    ("DELETE", "503", "ServiceUnavailable", 0),
    ("PATCH", "500", "ValueError", 1),
]


@pytest.mark.parametrize("extension", [restful, restx])
@pytest.mark.parametrize("first", [True, False], ids=["exporter first", "API first"])
@pytest.mark.parametrize(("method", "status", "error", "exceptions"), ERRORS)
def test_an_error_counts_by_its_answer(
    extension: Any, first: bool, method: str, status: str, error: str, exceptions: int
) -> None:
    app = Flask("api")
    if not first:
        extension(app)
    exporter = FlaskExporter(app, registry=CollectorRegistry())
    if first:
        extension(app)

    if (method, extension, first) == ("POST", restx, True):
        error = (
            "Conflict"  # it signals nothing and asks its own handler first: the answer is all there is to see
        )
    assert call(app, "/item", method).status[:3] == status
    counts = Counts(exporter)
    assert counts.total == {(method, status): 1}
    assert [key[3] for key in counts.errors] == [error] * bool(error)
    assert counts.exceptions == ({(method, "500"): 1} if exceptions else {})
    assert counts.failures == {}


@pytest.mark.parametrize("extension", [restful, restx])
def test_client_errors_leave_the_service_healthy(extension: Any) -> None:
    app = Flask("api")
    FlaskExporter(app, registry=CollectorRegistry())
    extension(app)

    for _ in range(25):
        call(app, "/item", "PUT")
        call(app, "/item")

    assert b'"status":"healthy"' in call(app, "/health").body
