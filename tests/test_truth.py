"""Every request is counted once, with the right status, rule, error and duration, whatever happens."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import pytest
from flask import Blueprint, Flask, Response, abort, make_response, request, send_file, stream_with_context
from werkzeug.exceptions import Conflict, NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import RequestRedirect

from exporter import FlaskExporter
from tests.calling import Clock, application, call, counted, environ, exc_info

RULE = "/orders/<int:number>"


class Counts:
    """What was counted of the requests, family by family."""

    def __init__(self, exporter: FlaskExporter) -> None:
        def of(name: str) -> dict[tuple[str, ...], float]:
            return counted(exporter, f"flask_http_{name}")

        self.total = of("request_total")
        self.durations = of("request_duration_seconds_count")
        self.seconds = of("request_duration_seconds_sum")
        self.exceptions = of("request_exceptions_total")
        self.errors = of("request_errors_total")
        self.disconnects = of("client_disconnects_total")
        self.in_progress = of("requests_in_progress")
        self.response_sizes = of("response_size_bytes_sum")
        self.request_sizes = of("request_size_bytes_sum")
        self.failures = counted(exporter, "flask_exporter_failures_total")

    def are(self, method: str, rule: str, status: str, error: str = "", *, exceptions: int = 0) -> None:
        """Exactly one request was counted, in every family that it belongs to and in no other."""
        assert self.total == {(method, status): 1}
        assert self.durations == {(method, rule, status): 1}
        assert self.errors == ({(method, rule, status, error): 1} if error else {})
        assert self.exceptions == ({(method, "500"): 1} if exceptions else {})
        assert self.in_progress == {}
        assert self.failures == {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


# Errors


@pytest.mark.parametrize("refuse", [lambda: abort(403), lambda: ("no", 403)], ids=["abort", "return"])
def test_an_early_403_is_counted_and_timed_with_its_rule(refuse: Callable[[], Any], clock: Clock) -> None:
    app, exporter = application()

    @app.before_request
    def gate() -> Any:
        clock.advance(0.25)
        return refuse()

    assert call(app, "/orders/7").status == "403 FORBIDDEN"
    counts = Counts(exporter)
    counts.are("GET", RULE, "403", "Forbidden")
    assert counts.seconds == {("GET", RULE, "403"): 0.25}


@pytest.mark.parametrize("propagate", [False, True])
def test_an_unhandled_exception_is_one_500(propagate: bool, clock: Clock) -> None:
    app, exporter = application()
    app.config["PROPAGATE_EXCEPTIONS"] = propagate

    @app.get("/boom")
    def boom() -> str:
        clock.advance(0.5)
        raise ValueError("bad")

    answer = call(app, "/boom")
    assert (answer.status, type(answer.error)) == (
        ("", ValueError) if propagate else ("500 INTERNAL SERVER ERROR", type(None))
    )
    counts = Counts(exporter)
    counts.are("GET", "/boom", "500", "ValueError", exceptions=1)
    assert counts.seconds == {("GET", "/boom", "500"): 0.5}


def test_a_handled_exception_has_the_status_of_its_handler_and_its_own_class() -> None:
    app, exporter = application()

    @app.errorhandler(KeyError)
    def explain(error: KeyError) -> tuple[str, int]:
        return f"missing {error}", 400

    @app.get("/boom")
    def boom() -> str:
        raise KeyError("name")

    assert call(app, "/boom").status == "400 BAD REQUEST"
    Counts(exporter).are("GET", "/boom", "400", "KeyError")


def test_an_exception_handled_into_a_200_is_still_an_error() -> None:
    app, exporter = application()
    app.register_error_handler(KeyError, lambda _: "never mind")

    @app.get("/boom")
    def boom() -> str:
        raise KeyError("name")

    assert call(app, "/boom").status == "200 OK"
    Counts(exporter).are("GET", "/boom", "200", "KeyError")


@pytest.mark.parametrize(
    ("view", "status", "error"),
    [
        (lambda: abort(500), "500", "InternalServerError"),
        (lambda: abort(404), "404", "NotFound"),
        (lambda: abort(make_response("late", 409)), "409", "Conflict"),
        (lambda: ("slow down", 429), "429", "TooManyRequests"),
        (lambda: Conflict(), "409", "Conflict"),
        (lambda: ("odd", 499), "499", "HTTPException"),
        (lambda: ("teapot", 599), "599", "HTTPException"),
    ],
    ids=["abort 500", "abort 404", "abort response", "return 429", "return Conflict", "499", "599"],
)
def test_an_http_error_has_its_class_and_is_no_exception(
    view: Callable[[], Any], status: str, error: str
) -> None:
    app, exporter = application()
    app.add_url_rule("/view", "view", view)

    assert call(app, "/view").status[:3] == status
    Counts(exporter).are("GET", "/view", status, error)


def test_a_redirect_that_is_raised_is_no_error() -> None:
    app, exporter = application()

    @app.get("/old")
    def old() -> str:
        raise RequestRedirect("/new")

    assert call(app, "/old").status == "308 PERMANENT REDIRECT"
    Counts(exporter).are("GET", "/old", "308")


def test_a_subclass_of_an_http_error_is_named_as_the_application_names_it() -> None:
    class NoSuchOrder(NotFound):
        pass

    app, exporter = application()

    @app.get("/view")
    def view() -> str:
        raise NoSuchOrder

    assert call(app, "/view").status == "404 NOT FOUND"
    Counts(exporter).are("GET", "/view", "404", "NoSuchOrder")


def test_an_error_inside_an_errorhandler_is_the_one_that_counts() -> None:
    app, exporter = application()

    @app.errorhandler(KeyError)
    def explain(error: KeyError) -> str:
        raise ZeroDivisionError from error

    @app.get("/boom")
    def boom() -> str:
        raise KeyError("name")

    assert call(app, "/boom").status == "500 INTERNAL SERVER ERROR"
    Counts(exporter).are("GET", "/boom", "500", "ZeroDivisionError", exceptions=1)


def test_an_error_inside_the_handler_of_500_leaves_the_application_and_is_counted_once() -> None:
    app, exporter = application()

    @app.errorhandler(500)
    def explain(_: Exception) -> str:
        raise ZeroDivisionError

    @app.get("/boom")
    def boom() -> str:
        raise KeyError("name")

    assert isinstance(call(app, "/boom").error, ZeroDivisionError)
    Counts(exporter).are("GET", "/boom", "500", "KeyError", exceptions=1)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()])
def test_an_exit_out_of_a_view_is_counted_with_its_rule(error: BaseException) -> None:
    """gunicorn ends a view that is too slow with SystemExit, which no handler of Flask sees."""
    app, exporter = application()

    @app.get("/boom")
    def boom() -> str:
        raise error

    assert call(app, "/boom").error is error
    Counts(exporter).are("GET", "/boom", "500", type(error).__name__, exceptions=1)


@pytest.mark.parametrize("hook", ["before_request", "after_request"])
def test_an_exception_in_a_hook_is_one_500(hook: str) -> None:
    app, exporter = application()

    def broken(*_: Any) -> Any:
        raise ValueError(hook)

    getattr(app, hook)(broken)

    assert call(app, "/orders/7").status == "500 INTERNAL SERVER ERROR"
    Counts(exporter).are("GET", RULE, "500", "ValueError", exceptions=1)


def test_an_exception_in_a_teardown_is_the_500_that_the_server_answers() -> None:
    """`start_response(200)` was called, but no byte was sent: a server answers 500."""
    app, exporter = application()

    @app.teardown_request
    def broken(_: BaseException | None) -> None:
        raise ValueError("teardown")

    assert isinstance(call(app, "/orders/7").error, ValueError)
    Counts(exporter).are("GET", RULE, "500", "ValueError", exceptions=1)


# Bodies


def test_a_streamed_body_is_timed_to_its_last_byte() -> None:
    """0.3 s of streaming are 0.3 s, within 10 %; prometheus_flask_exporter has 25 µs."""
    app, exporter = application()

    @app.get("/stream")
    def stream() -> Response:
        def chunks() -> Iterator[bytes]:
            for _ in range(3):
                time.sleep(0.1)
                yield b"x"

        return Response(chunks())

    assert call(app, "/stream").body == b"xxx"
    counts = Counts(exporter)
    counts.are("GET", "/stream", "200")
    assert counts.seconds == {("GET", "/stream", "200"): pytest.approx(0.3, rel=0.1)}


def test_a_streamed_body_is_timed_exactly(clock: Clock) -> None:
    app, exporter = application()

    @app.get("/stream")
    def stream() -> Response:
        def chunks() -> Iterator[bytes]:
            clock.advance(0.125)
            yield b"12345"
            clock.advance(0.25)
            yield b"678"
            clock.advance(0.5)

        clock.advance(1.0)
        return Response(chunks())

    call(app, "/stream")

    counts = Counts(exporter)
    counts.are("GET", "/stream", "200")
    assert counts.seconds == {("GET", "/stream", "200"): 1.875}
    assert counts.response_sizes == {("GET", "/stream"): 8}


def test_a_body_that_breaks_half_way_keeps_its_status_and_is_an_exception() -> None:
    """The client has seen 200; the error and the exception are counted beside it."""
    app, exporter = application()

    @app.get("/stream")
    def stream() -> Response:
        def chunks() -> Iterator[bytes]:
            yield b"x"
            raise RuntimeError("half-way")

        return Response(chunks())

    answer = call(app, "/stream")
    assert (answer.status, answer.body, type(answer.error)) == ("200 OK", b"x", RuntimeError)
    counts = Counts(exporter)
    counts.are("GET", "/stream", "200", "RuntimeError", exceptions=1)
    assert counts.disconnects == {}


def test_a_body_that_breaks_before_its_first_byte_is_the_500_that_the_server_answers() -> None:
    app, exporter = application()

    @app.get("/stream")
    def stream() -> Response:
        def chunks() -> Iterator[bytes]:
            raise RuntimeError("at once")
            yield b""

        return Response(chunks())

    assert isinstance(call(app, "/stream").error, RuntimeError)
    Counts(exporter).are("GET", "/stream", "500", "RuntimeError", exceptions=1)


@pytest.mark.parametrize("take", [0, 1], ids=["before the first byte", "half-way"])
def test_a_client_that_goes_away_is_counted_once_and_as_a_disconnect(take: int, clock: Clock) -> None:
    app, exporter = application()
    closed = []

    @app.get("/stream")
    def stream() -> Response:
        def chunks() -> Iterator[bytes]:
            clock.advance(0.25)
            yield b"x"
            clock.advance(0.5)
            yield b"y"

        response = Response(chunks())
        response.call_on_close(lambda: closed.append(True))
        return response

    assert call(app, "/stream", take=take).body == b"x"[:take]
    counts = Counts(exporter)
    counts.are("GET", "/stream", "200")
    assert counts.disconnects == {("/stream",): 1}
    assert counts.seconds == ({("GET", "/stream", "200"): 0.25} if take else {})
    assert closed == [True]


def test_a_whole_body_is_no_disconnect_though_the_server_stops_reading_at_its_length() -> None:
    app, exporter = application()

    assert call(app, "/orders/7", take=1).body == b"xxxxxxx"
    counts = Counts(exporter)
    counts.are("GET", RULE, "200")
    assert counts.disconnects == {}


def test_closing_twice_counts_once() -> None:
    app, exporter = application()
    body = app(environ("/orders/7"), lambda *_: lambda _: None)

    body.close()  # type: ignore[attr-defined]
    body.close()  # type: ignore[attr-defined]

    counts = Counts(exporter)
    counts.are("GET", RULE, "200")
    assert counts.disconnects == {(RULE,): 1}


def test_a_close_that_raises_is_the_applications_affair_and_counted_once() -> None:
    app, exporter = application()

    @app.get("/stream")
    def stream() -> Response:
        response = Response(iter([b"x"]))

        @response.call_on_close
        def broken() -> None:
            raise OSError("close")

        return response

    assert isinstance(call(app, "/stream").error, OSError)
    Counts(exporter).are("GET", "/stream", "200")


@pytest.mark.parametrize("announced", [3, 20], ids=["too little", "too much"])
def test_a_content_length_that_lies_counts_once(announced: int, clock: Clock) -> None:
    app, exporter = application()

    @app.get("/lie")
    def lie() -> Response:
        def chunks() -> Iterator[bytes]:
            clock.advance(0.25)
            yield b"12345"
            clock.advance(0.25)
            yield b"67890"

        return Response(chunks(), headers={"Content-Length": str(announced)})

    assert call(app, "/lie").body == b"1234567890"
    counts = Counts(exporter)
    counts.are("GET", "/lie", "200")
    assert counts.seconds == {("GET", "/lie", "200"): 0.5}
    assert counts.response_sizes == {("GET", "/lie"): 10}


def test_a_content_length_that_is_no_number_is_the_applications_affair() -> None:
    app, exporter = application()
    app.add_url_rule("/lie", "lie", lambda: Response(iter([b"x"]), headers={"Content-Length": "much"}))

    answer = call(app, "/lie")
    assert dict(answer.headers)["Content-Length"] == "much"
    assert "X-Request-ID" in dict(answer.headers)
    Counts(exporter).are("GET", "/lie", "200")


def test_an_empty_body_is_recorded_though_nobody_reads_or_closes_it() -> None:
    app, exporter = application()
    app.add_url_rule("/empty", "empty", lambda: "")

    app(environ("/empty"), lambda *_: lambda _: None)

    Counts(exporter).are("GET", "/empty", "200")


def test_head_is_a_request_of_its_own_without_a_body() -> None:
    app, exporter = application()

    answer = call(app, "/orders/7", "HEAD")
    assert (answer.body, dict(answer.headers)["Content-Length"]) == (b"", "7")
    counts = Counts(exporter)
    counts.are("HEAD", RULE, "200")
    assert (counts.disconnects, counts.response_sizes) == ({}, {})


def test_automatic_options_have_their_rule() -> None:
    app, exporter = application()

    assert call(app, "/orders/7", "OPTIONS").status == "200 OK"
    Counts(exporter).are("OPTIONS", RULE, "200")


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_is_recorded_at_once(status: int) -> None:
    app, exporter = application()
    app.add_url_rule("/view", "view", lambda: Response(status=status))

    app(environ("/view"), lambda *_: lambda _: None)

    Counts(exporter).are("GET", "/view", str(status))


def test_not_modified_is_counted_as_304() -> None:
    app, exporter = application()

    @app.get("/cached")
    def cached() -> Response:
        response = make_response("content")
        response.set_etag("v1")
        return response.make_conditional(request)  # type: ignore[return-value]

    assert call(app, "/cached", variables={"HTTP_IF_NONE_MATCH": '"v1"'}).status == "304 NOT MODIFIED"
    Counts(exporter).are("GET", "/cached", "304")


def test_an_informational_status_is_counted_as_it_is() -> None:
    app, exporter = application()
    app.add_url_rule("/switch", "switch", lambda: Response(status=101))

    assert call(app, "/switch").status == "101 SWITCHING PROTOCOLS"
    Counts(exporter).are("GET", "/switch", "101")


@pytest.fixture
def download(tmp_path: Path) -> tuple[Flask, FlaskExporter]:
    (tmp_path / "download").write_bytes(b"0123456789")
    app, exporter = application()
    app.add_url_rule("/download", "download", lambda: send_file(tmp_path / "download", conditional=True))
    return app, exporter


@pytest.mark.parametrize(
    ("wanted", "status", "body", "error"),
    [
        (None, "200", b"0123456789", ""),
        ("bytes=2-5", "206", b"2345", ""),
        ("bytes=50-60", "416", None, "RequestedRangeNotSatisfiable"),
    ],
)
def test_a_file_and_its_ranges(
    download: tuple[Flask, FlaskExporter], wanted: str | None, status: str, body: bytes | None, error: str
) -> None:
    app, exporter = download

    answer = call(app, "/download", variables={"HTTP_RANGE": wanted} if wanted else {})
    assert (answer.status[:3], answer.body) == (status, answer.body if body is None else body)
    counts = Counts(exporter)
    counts.are("GET", "/download", status, error)
    assert counts.response_sizes == {("GET", "/download"): len(answer.body)}


def test_a_file_that_the_server_sends_itself_stays_the_servers_own_type(
    download: tuple[Flask, FlaskExporter], clock: Clock
) -> None:
    """Otherwise gunicorn and uWSGI would not use sendfile."""

    class Sendfile(FileWrapper):
        pass

    app, exporter = download
    body = app(environ("/download", variables={"wsgi.file_wrapper": Sendfile}), lambda *_: lambda _: None)
    assert type(body) is Sendfile
    assert Counts(exporter).total == {}

    clock.advance(2.0)
    body.close()

    assert body.filelike.closed
    counts = Counts(exporter)
    counts.are("GET", "/download", "200")
    assert counts.seconds == {("GET", "/download", "200"): 2.0}
    assert counts.response_sizes == {("GET", "/download"): 10}


def test_a_servers_own_type_without_attributes_is_recorded_as_it_leaves(
    download: tuple[Flask, FlaskExporter],
) -> None:
    class Rigid:
        __slots__ = ("file",)

        def __init__(self, file: io.BufferedReader, _: int = 0) -> None:
            self.file = file

        def close(self) -> None:
            self.file.close()

    app, exporter = download
    body = app(environ("/download", variables={"wsgi.file_wrapper": Rigid}), lambda *_: lambda _: None)
    assert isinstance(body, Rigid)
    body.close()

    Counts(exporter).are("GET", "/download", "200")


def test_start_response_called_again_with_exc_info_has_the_last_word() -> None:
    """A WSGI application inside may turn to an error page while no byte has been sent."""

    def second_thoughts(variables: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "4")])
        if not variables["QUERY_STRING"]:
            return [b"good"]
        start_response("503 Service Unavailable", [], exc_info(RuntimeError("late")))
        return [b"sor", b"r", b"y"]

    app, exporter = application(wrap=lambda _: second_thoughts)
    for _ in range(3):
        call(app, "/orders/7")

    answer = call(app, "/orders/7", variables={"QUERY_STRING": "late"})
    assert (answer.status, answer.body) == ("503 Service Unavailable", b"sorry")
    counts = Counts(exporter)
    assert counts.durations == {("GET", RULE, "200"): 3, ("GET", RULE, "503"): 1}
    assert counts.errors == {("GET", RULE, "503", "ServiceUnavailable"): 1}
    assert counts.response_sizes == {("GET", RULE): 3 * 4 + 5}
    assert counts.failures == {}


def test_start_response_after_bytes_raises_the_error_and_is_counted_once() -> None:
    def broken(_: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"x"
        start_response("500 Internal Server Error", [], exc_info(RuntimeError("late")))

    app, exporter = application(wrap=lambda _: broken)

    answer = call(app, "/orders/7")
    assert (answer.body, type(answer.error)) == (b"x", RuntimeError)
    assert sum(Counts(exporter).total.values()) == 1
    assert Counts(exporter).exceptions == {("GET", "500"): 1}


# Connections that are taken over


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


def test_an_application_that_answers_nothing_is_a_500() -> None:
    app, exporter = application(wrap=lambda _: lambda *_: [])

    call(app, "/orders/7")

    Counts(exporter).are("GET", RULE, "500", "InternalServerError")


# Rules


@pytest.mark.parametrize(
    ("path", "method", "status", "error"),
    [
        ("/nowhere", "GET", "404", "NotFound"),
        ("/orders/7", "DELETE", "405", "MethodNotAllowed"),
        ("/slash", "GET", "308", ""),
    ],
)
def test_what_matches_no_rule_is_unmatched(path: str, method: str, status: str, error: str) -> None:
    app, exporter = application()
    app.add_url_rule("/slash/", "slash", lambda: "ok")

    assert call(app, path, method).status[:3] == status
    Counts(exporter).are(method, "_unmatched", status, error)


def test_a_method_that_no_rfc_knows_is_other() -> None:
    app, exporter = application()
    app.add_url_rule("/cache", "cache", lambda: "gone", methods=["PURGE"])

    assert call(app, "/cache", "PURGE").status == "200 OK"
    assert call(app, "/cache", "BREW").status == "405 METHOD NOT ALLOWED"
    counts = Counts(exporter)
    assert counts.total == {("_OTHER", "200"): 1, ("_OTHER", "405"): 1}
    assert counts.durations == {("_OTHER", "/cache", "200"): 1, ("_OTHER", "_unmatched", "405"): 1}


def test_the_rule_of_a_mounted_blueprint_has_its_prefixes() -> None:
    inner, outer = Blueprint("inner", __name__), Blueprint("outer", __name__, url_prefix="/api")
    inner.add_url_rule("/<name>", "show", lambda name: name)
    outer.register_blueprint(inner, url_prefix="/v<int:version>")
    inner.url_value_preprocessor(lambda _, values: values.pop("version") if values else None)
    app, exporter = application()
    app.register_blueprint(outer)

    assert call(app, "/api/v2/tea").body == b"tea"
    Counts(exporter).are("GET", "/api/v<int:version>/<name>", "200")


def test_the_rule_of_a_subdomain_is_without_its_host() -> None:
    app, exporter = application(flask={"subdomain_matching": True})
    app.config["SERVER_NAME"] = "example.test"
    app.add_url_rule("/users/<name>", "user", lambda name: name, subdomain="api")

    assert call(app, "/users/ada", variables={"HTTP_HOST": "api.example.test"}).body == b"ada"
    Counts(exporter).are("GET", "/users/<name>", "200")


def test_the_rule_under_a_script_name_is_without_it() -> None:
    app, exporter = application()
    service = DispatcherMiddleware(lambda *_: [], {"/shop": app})

    assert call(service, "/shop/orders/7").body == b"xxxxxxx"
    Counts(exporter).are("GET", RULE, "200")


def test_an_application_behind_proxyfix_is_measured_outside_of_it() -> None:
    app, exporter = application()
    app.wsgi_app = ProxyFix(app.wsgi_app, x_prefix=1)  # type: ignore[method-assign]

    assert call(app, "/orders/7", variables={"HTTP_X_FORWARDED_PREFIX": "/shop"}).status == "200 OK"
    Counts(exporter).are("GET", RULE, "200")


@pytest.mark.parametrize("inside", [True, False])
def test_a_middleware_that_answers_late_does_not_hide_the_rule(inside: bool) -> None:
    """One that calls `start_response` after the application is done, when Flask has dropped its request."""

    def buffering(wsgi_app: Any) -> Any:
        def whole(variables: Any, start_response: Any) -> list[bytes]:
            answer = call(lambda _, start: wsgi_app(variables, start))
            start_response(answer.status, answer.headers)
            return [answer.body]

        return whole

    app, exporter = application(wrap=buffering if inside else None)
    if not inside:
        app.wsgi_app = buffering(app.wsgi_app)  # type: ignore[method-assign]

    assert call(app, "/orders/7").body == b"xxxxxxx"
    Counts(exporter).are("GET", RULE, "200")


def test_a_middleware_that_answers_itself_is_counted_with_the_rule_it_stands_before() -> None:
    def closed(_: Any, start_response: Any) -> list[bytes]:
        start_response("403 Forbidden", [])
        return [b"closed"]

    app, exporter = application(wrap=lambda _: closed)

    assert call(app, "/orders/7").body == b"closed"
    Counts(exporter).are("GET", RULE, "403", "Forbidden")


# Contexts


def test_an_async_view_is_measured() -> None:
    app, exporter = application()

    @app.get("/async")
    async def view() -> str:
        await asyncio.sleep(0)
        return "done"

    assert call(app, "/async").body == b"done"
    Counts(exporter).are("GET", "/async", "200")


def test_an_exception_of_an_async_view_is_measured() -> None:
    app, exporter = application()

    @app.get("/async")
    async def view() -> str:
        await asyncio.sleep(0)
        raise ValueError("bad")

    assert call(app, "/async").status == "500 INTERNAL SERVER ERROR"
    Counts(exporter).are("GET", "/async", "500", "ValueError", exceptions=1)


def test_a_stream_with_context_is_measured_to_its_end(clock: Clock) -> None:
    app, exporter = application()

    @app.get("/stream")
    def stream() -> Response:
        def chunks() -> Iterator[str]:
            yield request.path
            clock.advance(0.75)
            yield request.args["name"]

        return Response(stream_with_context(chunks()))

    assert call(app, "/stream", variables={"QUERY_STRING": "name=ada"}).body == b"/streamada"
    counts = Counts(exporter)
    counts.are("GET", "/stream", "200")
    assert counts.seconds == {("GET", "/stream", "200"): 0.75}


def test_nested_test_clients_count_each_request_once() -> None:
    app, exporter = application()

    @app.get("/outer")
    def outer() -> str:
        with app.test_client() as client:
            inner = client.get("/orders/7")
            missing = client.get("/nowhere")
            return f"{inner.status_code} {missing.status_code}"

    with app.test_request_context("/elsewhere"), app.test_client() as client:
        assert client.get("/outer").text == "200 404"
        assert client.get("/orders/3").text == "xxx"

    counts = Counts(exporter)
    assert counts.durations == {
        ("GET", "/outer", "200"): 1,
        ("GET", RULE, "200"): 2,
        ("GET", "_unmatched", "404"): 1,
    }
    assert counts.total == {("GET", "200"): 3, ("GET", "404"): 1}
    assert counts.errors == {("GET", "_unmatched", "404", "NotFound"): 1}
    assert counts.in_progress == {}


def test_a_test_context_alone_is_no_request() -> None:
    app, exporter = application()

    with app.test_request_context("/orders/7"):
        app.preprocess_request()

    assert Counts(exporter).total == {}


@pytest.mark.parametrize("buffered", [True, False])
def test_the_test_client_counts_the_same_buffered_or_not(buffered: bool) -> None:
    app, exporter = application()

    assert app.test_client().get("/orders/7", buffered=buffered).status_code == 200
    Counts(exporter).are("GET", RULE, "200")


# In progress, sizes, queue


def test_a_request_is_in_progress_until_its_body_has_been_handed_over() -> None:
    app, exporter = application()
    seen = []

    @app.get("/stream")
    def stream() -> Response:
        def chunks() -> Iterator[bytes]:
            seen.append(counted(exporter, "flask_http_requests_in_progress"))
            yield b"x"

        return Response(chunks())

    call(app, "/stream")

    assert seen == [{(): 1}]
    assert counted(exporter, "flask_http_requests_in_progress") == {}
    assert counted(exporter, "flask_worker_threads_busy") == {}


@pytest.mark.parametrize("size", [0, 100, 101, 1_000_000])
def test_sizes_are_counted_in_powers_of_ten(size: int) -> None:
    app, exporter = application()

    @app.post("/upload")
    def upload() -> bytes:
        return request.get_data()

    body = os.urandom(size)
    variables = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(size)}
    assert call(app, "/upload", "POST", variables=variables).body == body

    for name in ("request", "response"):
        family = f"flask_http_{name}_size_bytes"
        labels = ("POST", "/upload")
        assert counted(exporter, f"{family}_sum") == ({labels: size} if size else {})
        assert counted(exporter, f"{family}_count") == {labels: 1}
        assert counted(exporter, f"{family}_bucket") == {
            (*labels, bound): 1
            for bound in ("100.0", "1000.0", "10000.0", "100000.0", "1e+06", "1e+07", "1e+08", "+Inf")
            if size <= float(bound)
        }


@pytest.mark.parametrize("length", ["", "-5", "much", "١٢", "1" * 5000])
def test_a_length_that_the_client_made_up_hurts_nobody(length: str) -> None:
    app, exporter = application()

    assert call(app, "/orders/7", variables={"CONTENT_LENGTH": length}).status == "200 OK"
    counts = Counts(exporter)
    counts.are("GET", RULE, "200")
    assert all(0 < size <= 1 << 40 for size in counts.request_sizes.values())


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("1700000999.500", 0.5),
        ("t=1700000999.500", 0.5),
        ("1700000999500", 0.5),
        ("t=1700000999500", 0.5),
        ("1700000999500000", 0.5),
        ("1700000000", 60.0),
        ("1700001030", 0.0),
    ],
)
def test_the_time_in_the_queue_is_understood_in_seconds_milliseconds_and_microseconds(
    header: str, seconds: float, clock: Clock
) -> None:
    """Clamped to 0..60 s. The wall clock says 1700001000."""
    app, exporter = application(trusted_proxies="127.0.0.1")
    assert clock.now == 1000

    call(app, "/orders/7", variables={"HTTP_X_REQUEST_START": header, "REMOTE_ADDR": "127.0.0.1"})

    assert counted(exporter, "flask_http_request_queue_seconds_count") == {(): 1}
    assert counted(exporter, "flask_http_request_queue_seconds_sum") == ({(): seconds} if seconds else {})


@pytest.mark.parametrize(
    "header", ["", "soon", "t=", "-1", "nan", "1e400", "9" * 5000, "12:30", "1700000999,5"]
)
def test_garbage_in_the_queue_header_counts_for_nothing(header: str) -> None:
    app, exporter = application(trusted_proxies="127.0.0.1")

    call(app, "/orders/7", variables={"HTTP_X_REQUEST_START": header, "REMOTE_ADDR": "127.0.0.1"})

    assert counted(exporter, "flask_http_request_queue_seconds_count") == {}
    Counts(exporter).are("GET", RULE, "200")


@pytest.mark.parametrize("proxies", [(), "192.0.2.0/24"])
def test_the_queue_header_of_a_client_counts_for_nothing(proxies: Any) -> None:
    app, exporter = application(trusted_proxies=proxies)

    call(
        app, "/orders/7", variables={"HTTP_X_REQUEST_START": str(time.time() - 5), "REMOTE_ADDR": "127.0.0.1"}
    )

    assert counted(exporter, "flask_http_request_queue_seconds_count") == {}


# Request ids


@pytest.mark.parametrize("given", ["a", "A-z_0.9", "x" * 64])
def test_a_well_formed_request_id_is_kept(given: str) -> None:
    app, _ = application()

    assert (
        dict(call(app, "/orders/7", variables={"HTTP_X_REQUEST_ID": given}).headers)["X-Request-ID"] == given
    )


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\n", "é", "<script>"])
def test_any_other_request_id_is_replaced(given: str) -> None:
    app, _ = application()

    found = dict(call(app, "/orders/7", variables={"HTTP_X_REQUEST_ID": given}).headers)["X-Request-ID"]

    assert len(found) == 24
    assert int(found, 16) > 0


def test_the_applications_own_request_id_is_left_alone() -> None:
    app, _ = application()
    app.after_request(lambda response: response.headers.set("x-request-id", "mine") or response)

    ids = [value for name, value in call(app, "/orders/7").headers if name.lower() == "x-request-id"]

    assert ids == ["mine"]


def test_each_request_has_an_id_of_its_own() -> None:
    app, _ = application()

    ids = {dict(call(app, "/orders/7").headers)["X-Request-ID"] for _ in range(1000)}

    assert len(ids) == 1000
