"""Requests that come to Flask past the middleware are measured: somebody took `wsgi_app` before it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response, request
from flask.sessions import SecureCookieSessionInterface
from prometheus_client import CollectorRegistry
from werkzeug.exceptions import BadRequestKeyError
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix

from exporter import FlaskExporter
from tests.rig.wsgi import RULE, Clock, Counts, application, call, counted, environ


def bypassed(**options: Any) -> tuple[Any, Flask, FlaskExporter]:
    """What a server is given that does not know the middleware, the application, and its exporter."""
    taken: list[Any] = []

    def keep(wsgi_app: Any) -> Any:
        taken.append(wsgi_app)
        return wsgi_app

    app, exporter = application(wrap=keep, **options)
    return taken[0], app, exporter


@pytest.mark.parametrize(
    "wrap",
    [ProxyFix, lambda taken: DispatcherMiddleware(taken, {}), lambda taken: taken],
    ids=["fix", "dispatch", ""],
)
def test_they_are_counted_once_and_said_once(wrap: Any, caplog: pytest.LogCaptureFixture) -> None:
    taken, _, exporter = bypassed()
    server = wrap(taken)

    for _ in range(5):
        answer = call(server, "/orders/7")

    assert (answer.status, answer.body) == ("200 OK", b"xxxxxxx")
    assert "X-Request-ID" in dict(answer.headers)
    counts = Counts(exporter)
    assert counts.durations == {("GET", RULE, "200"): 5}
    assert counts.total == {("GET", "200"): 5}
    assert counts.response_sizes == {("GET", RULE): 35}
    assert (counts.in_progress, counts.failures) == ({}, {})
    assert counted(exporter, "flask_worker_starts_total") == {(): 1}
    (warning,) = caplog.records
    assert (warning.name, warning.levelno) == ("exporter", logging.WARNING)
    assert "requests come to 'measured' past its exporter" in warning.getMessage()
    assert "Make the exporter first" in warning.getMessage()


def test_those_that_come_through_the_middleware_too_are_counted_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, app, exporter = bypassed()

    call(app, "/orders/7")

    Counts(exporter).are("GET", RULE, "200")
    assert caplog.records == []


def test_a_request_is_in_progress_and_has_an_id_while_flask_answers_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    taken, app, exporter = bypassed()

    @app.get("/stream")
    def stream() -> Response:
        clock.advance(0.25)
        assert counted(exporter, "flask_http_requests_in_progress") == {(): 1}
        assert request.environ["exporter.request_id"]

        def chunks() -> Iterator[bytes]:
            yield b"x"
            clock.advance(0.5)

        return Response(chunks())

    call(taken, "/stream")

    counts = Counts(exporter)
    counts.are("GET", "/stream", "200")
    assert counts.seconds == {("GET", "/stream", "200"): 0.75}


def test_its_errors_are_counted_as_anywhere() -> None:
    taken, app, exporter = bypassed()
    app.register_error_handler(BadRequestKeyError, lambda _: ("missing", 404))
    app.add_url_rule("/handled", "handled", lambda: request.args["name"])
    app.add_url_rule("/boom", "boom", lambda: str(1 / 0))

    assert [call(taken, path).status[:3] for path in ("/handled", "/boom", "/nowhere")] == [
        "404",
        "500",
        "404",
    ]
    counts = Counts(exporter)
    assert counts.errors == {
        ("GET", "/handled", "404", "BadRequestKeyError"): 1,
        ("GET", "/boom", "500", "ZeroDivisionError"): 1,
        ("GET", "_unmatched", "404", "NotFound"): 1,
    }
    assert counts.exceptions == {("GET", "500"): 1}
    assert (counts.in_progress, counts.failures) == ({}, {})


@pytest.mark.parametrize("error", [ValueError("bug"), SystemExit(1)], ids=repr)
def test_an_exception_that_leaves_the_application_is_counted_once(error: BaseException) -> None:
    taken, app, exporter = bypassed()
    app.config["PROPAGATE_EXCEPTIONS"] = True

    @app.get("/boom")
    def boom() -> str:
        raise error

    assert call(taken, "/boom").error is error
    error.__traceback__ = None  # which knows the request: one that its process dies of stays in progress
    Counts(exporter).are("GET", "/boom", "500", type(error).__name__, exceptions=1)


@pytest.mark.parametrize("hook", ["teardown_request", "teardown_appcontext"])
def test_an_exception_in_a_teardown_is_the_500_that_the_server_answers(hook: str) -> None:
    taken, app, exporter = bypassed()

    def broken(_: BaseException | None) -> None:
        raise ValueError(hook)

    getattr(app, hook)(broken)

    assert isinstance(call(taken, "/orders/7").error, ValueError)
    Counts(exporter).are("GET", RULE, "500", "ValueError", exceptions=1)


def test_a_session_that_cannot_be_opened_is_a_500() -> None:
    class Broken(SecureCookieSessionInterface):
        def open_session(self, *_: Any) -> Any:
            raise ConnectionError("no store")

        def is_null_session(self, _: Any) -> bool:
            return True

    taken, app, exporter = bypassed()
    app.session_interface = Broken()

    assert call(taken, "/orders/7").status == "500 INTERNAL SERVER ERROR"
    Counts(exporter).are("GET", RULE, "500", "ConnectionError", exceptions=1)


def test_a_client_that_goes_away_and_a_websocket_that_is_taken_over() -> None:
    class Taken(Response):
        def __call__(self, *_: Any) -> Any:
            raise StopIteration

    taken, app, exporter = bypassed()
    app.add_url_rule("/stream", "stream", lambda: Response(str(number) for number in range(9)))
    app.add_url_rule("/socket", "socket", lambda: Taken(), websocket=True)

    call(taken, "/stream", take=1)
    upgrade = {"HTTP_UPGRADE": "websocket", "HTTP_CONNECTION": "Upgrade"}
    assert isinstance(call(taken, "/socket", variables=upgrade).error, StopIteration)

    counts = Counts(exporter)
    assert counts.durations == {("GET", "/stream", "200"): 1, ("GET", "/socket", "101"): 1}
    assert counts.disconnects == {("/stream",): 1}
    assert (counts.in_progress, counts.failures) == ({}, {})


def test_what_is_not_to_be_measured_is_not() -> None:
    taken, app, exporter = bypassed(excluded_paths="/internal")
    app.add_url_rule("/internal", "internal", lambda: "internal")
    app.add_url_rule("/quiet", "quiet", exporter.do_not_track()(lambda: "quiet"))

    for path in ("/metrics", "/health", "/internal", "/quiet"):
        assert call(taken, path).status == "200 OK"

    assert Counts(exporter).total == {}
    assert Counts(exporter).in_progress == {}


def test_a_request_that_cannot_be_measured_has_not_come_past_the_exporter(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app, exporter = application()
    (instruments,) = exporter.core.worker.instruments.values()
    begin, errors = instruments.begin, [OSError("no room")]

    def fail_once() -> None:
        if errors:
            raise errors.pop()
        begin()

    monkeypatch.setattr(instruments, "begin", fail_once)
    call(app, "/orders/7")

    assert Counts(exporter).failures == {("middleware",): 1}
    assert Counts(exporter).total == {}
    assert "past its exporter" not in caplog.text


def test_contexts_that_tests_and_shells_make_are_no_requests() -> None:
    _, app, exporter = bypassed()

    with app.test_request_context("/orders/7"):
        pass
    with app.test_request_context("/orders/7"):
        response = app.full_dispatch_request()
        assert (response.status_code, response.get_data()) == (200, b"xxxxxxx")

    assert Counts(exporter).total == {}
    assert Counts(exporter).in_progress == {}


def test_a_view_that_answers_with_a_request_of_its_own_making_is_one_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As views do that answer a batch."""
    app, exporter = application()

    @app.get("/batch")
    def batch() -> Any:
        with app.test_request_context("/orders/7"):
            return app.full_dispatch_request()

    assert call(app, "/batch").body == b"xxxxxxx"
    Counts(exporter).are("GET", "/batch", "200")
    assert caplog.records == []


def test_every_prefix_counts_them() -> None:
    taken, _, exporter = bypassed()
    exporter.export_defaults(prefix="second")

    call(taken, "/orders/7")

    Counts(exporter).are("GET", RULE, "200")
    assert counted(exporter, "second_http_request_total") == {("GET", "200"): 1}


def test_a_mounted_application_whose_wsgi_app_was_taken_is_counted_once() -> None:
    taken, _, exporter = bypassed()
    site = Flask("site")
    site.wsgi_app = DispatcherMiddleware(site.wsgi_app, {"/api": taken})  # type: ignore[method-assign]
    outer = FlaskExporter(site, registry=exporter.registry)
    other = FlaskExporter(Flask("other"), registry=CollectorRegistry())

    call(site, "/api/orders/7")

    Counts(outer).are("GET", RULE, "200")
    assert Counts(other).total == {}


def test_one_on_a_registry_of_its_own_that_is_mounted_in_another_counts_for_itself() -> None:
    taken, _, inner = bypassed()
    site = Flask("site")
    site.wsgi_app = DispatcherMiddleware(site.wsgi_app, {"/api": taken})  # type: ignore[method-assign]
    outer = FlaskExporter(site, registry=CollectorRegistry())

    assert call(site, "/api/orders/7").body == b"xxxxxxx"
    Counts(inner).are("GET", RULE, "200")
    Counts(outer).are("GET", RULE, "200")


def test_a_response_that_answers_many_requests_is_measured_for_each() -> None:
    taken, app, exporter = bypassed()
    constant = Response("constant")
    app.add_url_rule("/constant", "constant", lambda: constant)

    bodies = [taken(environ("/constant"), lambda *_: lambda _: None) for _ in range(2)]
    for body in bodies:
        assert b"".join(body) == b"constant"
        body.close()

    assert Counts(exporter).total == {("GET", "200"): 2}
