"""A request is counted once and timed until its body has been handed over, however that ends."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from contextvars import copy_context
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from flask import Response, make_response, request, stream_with_context
from prometheus_client.parser import text_string_to_metric_families

from tests.rig.deadline import eventually
from tests.rig.server import Server, threaded
from tests.rig.wsgi import RULE, Clock, Counts, application, call, environ, forgotten


def ignore(*_: Any) -> Any:
    """A server's `start_response`."""


# Bodies


def test_a_streamed_body_is_timed_to_its_last_byte(clock: Clock) -> None:
    """prometheus_flask_exporter has the time until the body begins."""
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


def test_the_line_of_a_request_has_the_time_of_its_end(clock: Clock, tmp_path: Path) -> None:
    """The wall clock says 22:30:00 when it begins."""
    app, exporter = application(request_log=str(tmp_path / "log"))
    app.add_url_rule("/slow", "slow", lambda: clock.advance(0.5))

    call(app, "/slow")
    exporter.core.request_log.close()

    assert json.loads((tmp_path / "log").read_text())["timestamp"] == "2023-11-14T22:30:00.500000Z"


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


@pytest.mark.parametrize("length", [0, 2])
def test_an_error_after_the_last_byte_is_the_applications_own_and_counts_nothing(length: int) -> None:
    """The request is over: all that it had announced has been handed over."""
    app, exporter = application()

    @app.get("/stream")
    def stream() -> Response:
        def chunks() -> Iterator[bytes]:
            yield b"x" * length
            raise KeyError("late")

        return Response(chunks(), headers={"Content-Length": str(length)})

    assert repr(call(app, "/stream").error) == "KeyError('late')"
    Counts(exporter).are("GET", "/stream", "200")


@pytest.mark.parametrize("headers", [[], None], ids=["an answer", "an exception"])
def test_a_request_that_is_over_is_freed_at_once(headers: Any) -> None:
    """It is no work for the garbage collector."""

    class Mark:
        pass

    def hello(_: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [*headers])
        return [b"hello"]

    app, _ = application(wrap=lambda _: hello)
    alive = weakref.WeakSet[Any]()

    def ask() -> None:
        mark = Mark()
        alive.add(mark)
        with suppress(TypeError), closing(app(environ("/", variables={"mark": mark}), ignore)) as body:  # type: ignore[type-var]
            assert b"".join(body) == b"hello"

    gc.disable()
    try:
        ask()
        assert list(alive) == []
    finally:
        gc.enable()


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


def test_a_body_whose_iterator_can_only_be_asked_for_the_next_chunk_is_read() -> None:
    class Countdown:
        left = 3

        def __next__(self) -> bytes:
            if not self.left:
                raise StopIteration
            self.left -= 1
            return b"%d" % self.left

    class Body:
        def __iter__(self) -> Any:
            return Countdown()

    def counting(_: Any, start_response: Any) -> Body:
        start_response("200 OK", [])
        return Body()

    app, exporter = application(wrap=lambda _: counting)

    assert call(app, "/orders/7").body == b"210"
    Counts(exporter).are("GET", RULE, "200")


def test_a_body_of_another_werkzeug_is_read_by_its_own_iterator() -> None:
    """Its type has no shortcut that is known here."""
    script = """
import werkzeug.wsgi

class Closing:
    def __init__(self, body):
        self.body = body

    def __iter__(self):
        return iter(self.body)

    def close(self):
        self.body.close()

werkzeug.wsgi.ClosingIterator = Closing
from tests.rig.wsgi import RULE, Counts, application, call

app, exporter = application()
assert call(app, "/orders/7").body == b"xxxxxxx"
Counts(exporter).are("GET", RULE, "200")
"""
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("name", ["Content-Length", "content-length", "CONTENT-LENGTH"])
def test_the_last_byte_that_was_announced_is_the_end_however_the_header_is_spelled(name: str) -> None:
    """The client has its answer then, and may ask for the metrics before the server asks for more."""
    app, exporter = application()
    app.add_url_rule("/two", "two", lambda: Response(iter([b"1", b"2", b""]), headers={name: "2"}))

    chunks = iter(app(environ("/two"), lambda *_: lambda _: None))
    assert next(chunks) == b"1"
    assert Counts(exporter).durations == {}
    assert next(chunks) == b"2"
    assert Counts(exporter).durations == {("GET", "/two", "200"): 1}


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

    bodies = [app(environ("/view"), lambda *_: lambda _: None) for _ in range(3)]

    assert Counts(exporter).total == {("GET", str(status)): len(bodies)}


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


def test_a_stream_is_over_at_its_end_though_its_server_closes_nothing_and_keeps_its_contexts() -> None:
    """As asgiref does under Hypercorn and Python 3.12 if the client leaves: they stay in a traceback."""
    app, exporter = application()
    app.add_url_rule("/stream", "stream", lambda: Response(iter([b"x", b"y"])))
    contexts = [copy_context() for _ in app(environ("/stream"), lambda *_: lambda _: None)]

    counts = Counts(exporter)
    counts.are("GET", "/stream", "200")
    assert (len(contexts), counts.in_progress) == (2, {})


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

    eventually(lambda: forgotten(exporter), "an end of the answers, none of which the client closes")
    counts = Counts(exporter)
    assert counts.durations == {
        ("GET", "/outer", "200"): 1,
        ("GET", RULE, "200"): 2,
        ("GET", "_unmatched", "404"): 1,
    }
    assert counts.total == {("GET", "200"): 3, ("GET", "404"): 1}
    assert counts.errors == {("GET", "_unmatched", "404", "NotFound"): 1}


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


def leave() -> str:
    raise SystemExit(1)


@pytest.mark.parametrize("ends", [leave, lambda: Response(leave() for _ in "x")], ids=["view", "body"])
def test_a_request_that_may_end_its_process_stays_in_progress(ends: Callable[[], Any]) -> None:
    """So that the worker's death names it, also where the server closes the body."""
    app, exporter = application()
    app.add_url_rule("/exit", "exit", ends)

    error = call(app, "/exit").error

    assert isinstance(error, SystemExit)
    assert Counts(exporter).in_progress == {(): 1}


# Under a real server

SERVED = """
import threading
from flask import Flask, Response, send_file
from exporter import FlaskExporter

app = Flask("served")
exporter = FlaskExporter(app)

@app.get("/endless")
def endless():
    return Response(b"x" * 65536 for _ in iter(int, 1))

@app.get("/file")
def file():
    return send_file(__file__)

@app.get("/break")
def breaks():
    def chunks():
        yield b"x"
        raise RuntimeError("half-way")
    return Response(chunks())

@app.get("/exit")
def leave():
    raise SystemExit(1)  # 3 and 4 would tell the master that no worker can start
"""


def test_under_gunicorn_each_end_of_a_request_is_counted_once(tmp_path: Path) -> None:
    """A client that goes away, a file sent by the kernel, a body that breaks off, a worker that exits."""
    with threaded(tmp_path, SERVED, workers=2) as service:
        with socket.create_connection(("127.0.0.1", service.port), timeout=10) as client:
            client.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
        assert service.get("/file").body == SERVED.encode()
        with pytest.raises(http.client.IncompleteRead):
            service.get("/break")
        with suppress(http.client.HTTPException, OSError):
            service.get("/exit")

        wanted = {
            "total": {("GET", "200"): 3, ("GET", "500"): 1},
            "errors": {
                ("/break", "200", "RuntimeError"): 1,
                ("/exit", "500", "SystemExit"): 1,
            },
            "disconnects": {("/endless",): 1},
            "exceptions": {("GET", "500"): 2},
            "sizes": {("/file",): len(SERVED)},
            # Before release 24.1 of gunicorn whoever asks for an exit waits on.
            "in_progress": {} if version("gunicorn") >= "24.1" else {(): 1},
        }
        eventually(lambda: observed(service) == wanted, f"{wanted}; but {observed(service)}", 20)


def observed(service: Server) -> dict[str, dict[tuple[str, ...], float]]:
    """What the workers counted, without what is 0 and what differs from run to run."""
    names = {
        "flask_http_request_total": ("total", ("method", "status")),
        "flask_http_request_errors_total": ("errors", ("url_rule", "status", "error_type")),
        "flask_http_client_disconnects_total": ("disconnects", ("url_rule",)),
        "flask_http_request_exceptions_total": ("exceptions", ("method", "status")),
        "flask_http_response_size_bytes_sum": ("sizes", ("url_rule",)),
        "flask_http_requests_in_progress": ("in_progress", ()),
    }
    found: dict[str, dict[tuple[str, ...], float]] = {key: {} for key, _ in names.values()}
    text = ""
    with suppress(http.client.HTTPException, OSError):  # the worker that answers may be the one that exits
        text = service.get("/metrics").text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in names and sample.value:
                key, labels = names[sample.name]
                values = tuple(sample.labels[label] for label in labels)
                if values not in (("/endless",), ("/break",)) or key != "sizes":
                    found[key][values] = sample.value
    return found
