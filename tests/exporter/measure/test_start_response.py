"""What an application says to `start_response`, and what it writes there, in any order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from flask import Response

from tests.rig.wsgi import RULE, Counts, application, call, counted, environ, exc_info


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
    assert counts.errors == {("GET", RULE, "503", "RuntimeError"): 1}
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
    assert Counts(exporter).total == {("GET", "200"): 1}
    assert Counts(exporter).exceptions == {("GET", "500"): 1}


def test_a_second_answer_that_the_server_takes_is_the_one() -> None:
    """Against PEP 3333, and though the first one is well known."""

    def second_thoughts(inner: Any) -> Any:
        def answer(variables: Any, start_response: Any) -> Any:
            body = inner(variables, start_response)
            if variables["QUERY_STRING"]:
                start_response("404 Not Found", [])
            return body

        return answer

    app, exporter = application(wrap=second_thoughts)
    for query in "", "", "late":
        for _ in app(environ("/orders/7", variables={"QUERY_STRING": query}), lambda *_: lambda _: None):
            pass

    assert Counts(exporter).total == {("GET", "200"): 2, ("GET", "404"): 1}


def test_a_second_answer_that_the_server_refuses_is_none() -> None:
    """Werkzeug's debugger and error pages of middleware try to begin one when an answer breaks."""

    def broken(_: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"x"
        with suppress(AssertionError):
            start_response("500 Internal Server Error", [])

    app, exporter = application(wrap=lambda _: broken)

    answer = call(app, "/orders/7")
    assert (answer.status, answer.body) == ("200 OK", b"x")
    Counts(exporter).are("GET", RULE, "200")


@pytest.mark.parametrize(
    ("method", "length", "size"), [("GET", [], 9), ("GET", [("Content-Length", "9")], 9), ("HEAD", [], 0)]
)
def test_what_an_application_writes_is_part_of_its_body(method: str, length: Any, size: int) -> None:
    """PEP 3333 has `write` for applications that print, such as CGI scripts behind a bridge."""

    def printing(_: Any, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", length)
        write(b"hello")
        return [b"tail"]

    app, exporter = application(wrap=lambda _: printing)

    assert call(app, "/orders/7", method).body == b"hellotail"
    counts = Counts(exporter)
    counts.are(method, RULE, "200")
    assert counts.response_sizes.get((method, RULE), 0) == size


@pytest.mark.parametrize(
    ("chunk", "left", "error"), [(b"lost", {(RULE,): 1}, ""), ("text", {}, "ConnectionResetError")]
)
def test_a_client_that_leaves_while_an_application_writes_is_a_disconnect(
    chunk: Any, left: dict[tuple[str], int], error: str
) -> None:
    """What is no bytes is the application's own mistake."""

    def refuse(_: bytes) -> None:
        raise ConnectionResetError

    def printing(_: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])(chunk)
        return []

    app, exporter = application(wrap=lambda _: printing)
    with suppress(ConnectionResetError):
        app(environ("/orders/7"), lambda *_: refuse)

    counts = Counts(exporter)
    counts.are("GET", RULE, "500" if error else "200", error, exceptions=bool(error))
    assert counts.disconnects == left


@pytest.mark.parametrize("take", [1, 2])
def test_a_client_that_leaves_behind_a_middleware_that_is_a_generator_is_a_disconnect(take: int) -> None:
    """It never calls `close()`, as PEP 3333 demands, so only the generators end."""
    app, exporter = application()
    app.add_url_rule("/stream", "stream", lambda: Response(str(number) for number in range(9)))
    passing: Any = app.wsgi_app

    def by_hand(variables: Any, start_response: Any) -> Iterator[bytes]:
        for chunk in passing(variables, start_response):  # noqa: UP028  as people write it
            yield chunk

    def delegating(variables: Any, start_response: Any) -> Iterator[bytes]:
        yield from by_hand(variables, start_response)

    for middleware in (by_hand, delegating):
        call(middleware, "/stream", take=take)

    counts = Counts(exporter)
    assert counts.total == {("GET", "200"): 2}
    assert counts.disconnects == {("/stream",): 2}
    assert counts.response_sizes == {("GET", "/stream"): 2 * take}
    assert (counts.in_progress, counts.failures) == ({}, {})
    assert counted(exporter, "flask_worker_threads_busy") == {}


def test_a_whole_answer_behind_a_middleware_that_is_a_generator_is_no_disconnect() -> None:
    app, exporter = application()
    app.add_url_rule("/stream", "stream", lambda: Response(str(number) for number in range(9)))

    def passing(variables: Any, start_response: Any) -> Iterator[bytes]:
        yield from app(variables, start_response)

    assert call(passing, "/stream").body == b"012345678"
    counts = Counts(exporter)
    counts.are("GET", "/stream", "200")
    assert counts.disconnects == {}


SHARED = [("Content-Type", "text/plain")]


@pytest.mark.parametrize(
    "headers", [SHARED, tuple(SHARED), iter(SHARED * 2)], ids=["list", "tuple", "iterator"]
)
def test_the_headers_of_a_mounted_application_stay_its_own(headers: Any) -> None:
    def ping(_: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", headers)
        return [b"pong"]

    app, exporter = application(wrap=lambda _: ping)

    answers = [call(app, "/ping") for _ in range(2)]

    assert len({dict(answer.headers)["X-Request-ID"] for answer in answers}) == 2
    assert ("Content-Type", "text/plain") in answers[0].headers
    assert SHARED == [("Content-Type", "text/plain")]
    assert Counts(exporter).total == {("GET", "200"): 2}
    assert Counts(exporter).failures == {}


@pytest.mark.parametrize("headers", [None, [("one",)], [("Content-Length", None)]], ids=repr)
def test_headers_that_nobody_can_read_are_the_applications_affair(headers: Any) -> None:
    """They reach the server as they are, and the status counts."""

    def broken(_: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", headers)
        return [b"pong"]

    app, exporter = application(wrap=lambda _: broken)

    assert call(app, "/orders/7").headers == headers
    counts = Counts(exporter)
    assert counts.durations == {("GET", RULE, "200"): 1}
    assert counts.failures == {("middleware",): 1}
