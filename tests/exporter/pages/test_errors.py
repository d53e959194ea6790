"""`/monitoring/errors`: what is shown of the groups, to whom, and what may be asked."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry

from exporter import FlaskExporter

START = 1_767_225_600.0
"""2026 began, in seconds since the epoch."""


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Flask:
    """A service that has met two bugs, the first one twice, one each second."""
    seconds = [START]
    monkeypatch.setattr("exporter.worker.errorgroups.time", lambda: seconds[0])
    app = Flask("shop")
    FlaskExporter(app, registry=CollectorRegistry(), app_version="1.4.2")

    @app.get("/orders/<name>")
    def show(name: str) -> str:
        return {"a": "b"}[name]

    @app.get("/total")
    def total() -> str:
        raise ValueError("not a number")

    client = app.test_client()
    for path, request_id in (("/orders/secret", "id-1"), ("/orders/other", "id-2"), ("/total", "id-3")):
        assert client.get(path, headers={"X-Request-ID": request_id}).status_code == 500
        seconds[0] += 1.0
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def moment(second: int) -> str:
    return datetime.fromtimestamp(START + second, timezone.utc).isoformat(timespec="microseconds")


def test_groups_are_shown_the_latest_first(client: FlaskClient) -> None:
    total, show = client.get("/monitoring/errors").json  # type: ignore[misc]

    assert show == {
        "error_group": show["error_group"],
        "error_type": "KeyError",
        "where": show["where"],
        "url_rule": "/orders/<name>",
        "count": 2,
        "first_seen": moment(0),
        "last_seen": moment(1),
        "first_version": "1.4.2",
        "last_version": "1.4.2",
        "requests": [
            {"datetime": moment(1), "request_id": "id-2"},
            {"datetime": moment(0), "request_id": "id-1"},
        ],
    }
    assert show["where"].startswith(__name__)
    assert show["where"].endswith("show")
    assert (total["error_type"], total["count"]) == ("ValueError", 1)


def test_one_group_is_shown_with_its_traceback(client: FlaskClient) -> None:
    """Without the message, and so without what the client sent."""
    group = client.get("/monitoring/errors").json[1]["error_group"]  # type: ignore[index]

    (shown,) = client.get(f"/monitoring/errors?group={group}").json  # type: ignore[misc]
    assert shown["error_group"] == group
    assert shown["traceback"].endswith('in show\n    return {"a": "b"}[name]\nKeyError\n')
    assert "secret" not in str(shown)


def test_a_group_that_is_not_there_is_no_group(client: FlaskClient) -> None:
    assert client.get("/monitoring/errors?group=000000000000").json == []


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("group=x", "group='x': give twelve hex digits, or _other"),
        ("group=", "group='': give twelve hex digits, or _other"),
        ("group=00000000000A", "group='00000000000A': give twelve hex digits, or _other"),
        ("group=_other&group=_other", "group='_other': give group once"),
        ("limit=5", "'limit' is no parameter; there is group"),
    ],
)
def test_a_question_without_a_meaning_is_refused_by_name(
    query: str, message: str, client: FlaskClient
) -> None:
    answer = client.get(f"/monitoring/errors?{query}")

    assert (answer.status_code, answer.json) == (400, {"error": message})


def test_outsiders_see_nothing(client: FlaskClient) -> None:
    outsider: dict[str, Any] = {"REMOTE_ADDR": "203.0.113.9"}

    assert client.get("/monitoring/errors", environ_overrides=outsider).status_code == 403


def test_a_new_service_has_no_groups() -> None:
    app = Flask("shop")
    FlaskExporter(app, registry=CollectorRegistry())

    assert app.test_client().get("/monitoring/errors").json == []
