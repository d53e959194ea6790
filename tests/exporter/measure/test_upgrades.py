"""A connection that is taken over, as for a websocket, is a 101 of its rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Response, request

from tests.rig.wsgi import RULE, Counts, application, call

UPGRADE = {"HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "Upgrade"}


def test_a_connection_that_is_taken_over_is_a_101_of_its_rule() -> None:
    app, exporter = application(wrap=lambda _: lambda *_: [])
    app.add_url_rule("/socket", "socket", lambda: "", websocket=True)

    call(app, "/socket", variables=UPGRADE)

    Counts(exporter).are("GET", "/socket", "101")


def test_a_view_that_ends_a_websocket_as_flask_sock_does_under_gunicorn_is_a_101() -> None:
    """It raises StopIteration out of the response, which gunicorn takes for the end of the connection."""

    class Taken(Response):
        def __call__(self, *_: Any) -> Any:
            raise StopIteration

    app, exporter = application()
    app.add_url_rule("/socket", "socket", lambda: Taken(), websocket=True)

    assert isinstance(call(app, "/socket", variables=UPGRADE).error, StopIteration)
    Counts(exporter).are("GET", "/socket", "101")


@pytest.mark.parametrize("error", [ConnectionError(), BrokenPipeError(), StopIteration()], ids=repr)
def test_a_websocket_that_its_extension_ends_with_an_exception_is_a_101(error: Exception) -> None:
    """Engine.IO and Flask-Sock do so, to end the connection on Werkzeug and gunicorn."""

    def taken(*_: Any) -> Any:
        raise error

    app, exporter = application(wrap=lambda _: taken)

    assert call(app, "/socket", variables=UPGRADE).error is error
    Counts(exporter).are("GET", "_unmatched", "101")


@pytest.mark.parametrize(
    ("error", "variables"),
    [(ConnectionError(), {}), (StopIteration(), {}), (ValueError(), {"HTTP_UPGRADE": "h2c"})],
    ids=repr,
)
def test_any_other_exception_instead_of_an_answer_is_a_500(
    error: Exception, variables: dict[str, str]
) -> None:
    def broken(*_: Any) -> Any:
        raise error

    app, exporter = application(wrap=lambda _: broken)

    assert call(app, "/orders/7", variables=variables).error is error
    Counts(exporter).are("GET", RULE, "500", type(error).__name__, exceptions=1)


@pytest.mark.parametrize("propagate", [False, True])
def test_a_view_of_a_websocket_that_loses_its_database_is_a_500(propagate: bool) -> None:
    app, exporter = application()
    app.config["PROPAGATE_EXCEPTIONS"] = propagate

    @app.route("/socket", websocket=True)
    def view() -> str:
        raise ConnectionRefusedError

    call(app, "/socket", variables={**UPGRADE, "wsgi.url_scheme": "ws"})
    Counts(exporter).are("GET", "/socket", "500", "ConnectionRefusedError", exceptions=1)


def test_an_answer_that_breaks_is_no_end_of_a_connection_that_was_taken_over() -> None:
    app, exporter = application()

    def rows(is_broken: bool) -> Iterator[str]:
        yield "x"
        if is_broken:
            raise ConnectionResetError

    app.add_url_rule("/rows", "rows", lambda: Response(rows("broken" in request.args)))
    call(app, "/rows", variables={"HTTP_UPGRADE": "h2c"})
    call(app, "/rows", variables={"HTTP_UPGRADE": "h2c", "QUERY_STRING": "broken"})

    assert Counts(exporter).total == {("GET", "200"): 2}
    assert Counts(exporter).exceptions == {("GET", "500"): 1}


def test_an_application_that_answers_nothing_is_a_500() -> None:
    app, exporter = application(wrap=lambda _: lambda *_: [])

    call(app, "/orders/7")

    Counts(exporter).are("GET", RULE, "500", "InternalServerError")
