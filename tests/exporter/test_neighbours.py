"""Other extensions look at every route of an application, ours included."""

from __future__ import annotations

import pytest
from apiflask import APIFlask
from flask import Flask
from flask_limiter import Limiter
from flask_smorest import Api
from prometheus_client import CollectorRegistry
from spectree import SpecTree

from exporter import FlaskExporter

PAGES = {"/metrics", "/health", "/health/live", "/monitoring/stats", "/monitoring/requests"}


@pytest.mark.parametrize("late", [False, True])
def test_apiflask_documents_the_application_and_our_pages(late: bool) -> None:
    app = APIFlask("orders")
    if late:
        app.add_url_rule("/orders", "orders", lambda: {"orders": []})
    FlaskExporter(app, registry=CollectorRegistry())
    document = app.test_client().get("/openapi.json")

    assert document.status_code == 200
    assert document.get_json()["paths"].keys() >= PAGES


def test_spectree_documents_the_application_and_our_pages() -> None:
    app = Flask("orders")
    FlaskExporter(app, registry=CollectorRegistry())
    SpecTree("flask").register(app)
    document = app.test_client().get("/apidoc/openapi.json")

    assert document.status_code == 200
    assert document.get_json()["paths"].keys() >= PAGES


def test_smorest_documents_what_is_its_own() -> None:
    app = Flask("orders")
    app.config |= {"API_TITLE": "orders", "API_VERSION": "1", "OPENAPI_VERSION": "3.1.0"}
    app.config |= {"OPENAPI_URL_PREFIX": "/", "OPENAPI_JSON_PATH": "openapi.json"}
    FlaskExporter(app, registry=CollectorRegistry())
    Api(app)
    document = app.test_client().get("/openapi.json")

    assert (document.status_code, document.get_json()["paths"]) == (200, {})


def test_limiter_limits_each_of_our_pages_by_its_own_name() -> None:
    app = Flask("orders")
    FlaskExporter(app, registry=CollectorRegistry())
    Limiter(lambda: "everybody", app=app, default_limits=["1/day"], storage_uri="memory://")
    client = app.test_client()

    assert [client.get(path).status_code for path in sorted(PAGES)] == [200] * len(PAGES)
    assert [client.get(path).status_code for path in sorted(PAGES)] == [429] * len(PAGES)


def test_the_name_of_each_view_is_that_of_its_endpoint() -> None:
    """Flask-WTF, Flask-Limiter and the makers of documents ask for it."""
    app = Flask("orders")
    FlaskExporter(app, registry=CollectorRegistry())
    ours = {name: view for name, view in app.view_functions.items() if name.startswith("flask_exporter")}

    assert {name: view.__name__ for name, view in ours.items()} == {name: name for name in ours}
