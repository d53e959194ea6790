"""A request is counted once and timed until its body has been handed over, however that ends."""

from __future__ import annotations

import asyncio
import gc
import http.client
import io
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
from wsgiref.util import FileWrapper

import pytest
from flask import Flask, Response, make_response, request, send_file, stream_with_context
from prometheus_client.parser import text_string_to_metric_families

from exporter import FlaskExporter
from tests.rig.deadline import eventually
from tests.rig.server import Server, threaded
from tests.rig.wsgi import (
    RULE,
    Clock,
    Counts,
    application,
    call,
    counted,
    environ,
    exc_info,
    forgotten,
)


def ignore(*_: Any) -> Any:
    """A server's `start_response`."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


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


class Pipe(io.RawIOBase):
    """A file that has neither size nor position."""


@pytest.fixture
def download(tmp_path: Path) -> tuple[Flask, FlaskExporter]:
    (tmp_path / "download").write_bytes(b"0123456789")
    app, exporter = application()
    app.add_url_rule("/download", "download", lambda: send_file(tmp_path / "download", conditional=True))

    @app.get("/opened/<int:start>")
    def opened(start: int) -> Response:
        file = (tmp_path / "download").open("rb")
        file.seek(start)
        return send_file(file, "text/plain")

    @app.get("/pipe")
    def pipe() -> Response:
        file: Any = Pipe()
        return send_file(file, "text/plain")

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


@pytest.mark.parametrize(
    ("wrapper", "is_kept"),
    [(len, True), (FileWrapper, False), (None, False)],
    ids=["uWSGI", "PEP 3333", "none"],
)
def test_a_file_without_a_wrapper_is_a_body_and_stays_a_file_for_uwsgi(wrapper: Any, is_kept: bool) -> None:
    """Its wrapper is a function in C that returns the file itself, which it then sends."""
    file = io.BytesIO(b"one\ntwo\n")

    def answering(_: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        return file

    app, exporter = application(wrap=lambda _: answering)
    body: Any = app(environ("/orders/7", variables={"wsgi.file_wrapper": wrapper}), lambda *_: lambda _: None)

    assert (body is file, b"".join(body)) == (is_kept, b"one\ntwo\n")
    body.close()
    counts = Counts(exporter)
    counts.are("GET", RULE, "200")
    assert counts.response_sizes == {("GET", RULE): 8}
    assert file.closed


@pytest.mark.parametrize("whole", [True, False])
def test_a_file_behind_a_middleware_that_is_a_generator_is_recorded_though_nobody_closes_it(
    whole: bool,
) -> None:
    class Own:
        """Another server's, which closes the file itself; as nobody keeps it, its end is not the file's."""

        def __init__(self, file: io.BytesIO, size: int) -> None:
            self.chunks = iter(lambda: file.read(size), b"")
            self.file = file

        def __iter__(self) -> Iterator[bytes]:
            return self.chunks

        def close(self) -> None:
            self.file.close()

    app, exporter = application()
    app.add_url_rule("/download", "download", lambda: send_file(io.BytesIO(bytes(20_000)), "text/plain"))

    def delegating(variables: Any, start_response: Any) -> Iterator[bytes]:
        yield from app(variables, start_response)

    def by_hand(variables: Any, start_response: Any) -> Iterator[bytes]:
        for chunk in app(variables, start_response):  # noqa: UP028  as people write it
            yield chunk

    for middleware, wrapper in ((delegating, FileWrapper), (by_hand, FileWrapper), (delegating, Own)):
        call(middleware, "/download", variables={"wsgi.file_wrapper": wrapper}, take=None if whole else 1)

    counts = Counts(exporter)
    assert counts.durations == {("GET", "/download", "200"): 3}
    assert counts.response_sizes == {("GET", "/download"): 60_000 if whole else 8192 + 8192 + 20_000}
    assert counts.disconnects == ({} if whole else {("/download",): 2})
    assert (counts.in_progress, counts.failures) == ({}, {})


@pytest.mark.parametrize("sent", [0, 4])
def test_a_file_whose_client_leaves_is_a_disconnect_with_the_bytes_that_were_sent(
    download: tuple[Flask, FlaskExporter], sent: int
) -> None:
    """The server closes the body while it handles the error of its socket, as PEP 3333 has it."""
    app, exporter = download
    body = app(environ("/download", variables={"wsgi.file_wrapper": FileWrapper}), lambda *_: lambda _: None)
    assert isinstance(body, FileWrapper)

    with suppress(BrokenPipeError), closing(body):
        body.filelike.read(sent)
        raise BrokenPipeError

    counts = Counts(exporter)
    counts.are("GET", "/download", "200")
    assert counts.disconnects == {("/download",): 1}
    assert counts.response_sizes == ({("GET", "/download"): sent} if sent else {})


def test_a_file_is_whole_though_an_error_is_handled_around_its_server_or_its_close_raises(
    download: tuple[Flask, FlaskExporter],
) -> None:
    class Rude(io.BytesIO):
        def close(self) -> None:
            super().close()  # or Python 3.13 closes it once more as it is collected, and tells the error
            raise OSError("close")

    app, exporter = download
    app.add_url_rule("/rude", "rude", lambda: send_file(Rude(b"0123456789"), "text/plain"))
    variables = {"wsgi.file_wrapper": FileWrapper}
    try:
        raise KeyError
    except KeyError:
        assert call(app, "/download", variables=variables).body == b"0123456789"
        assert call(app, "/opened/2", variables=variables).body == b"23456789"
    assert isinstance(call(app, "/rude", variables=variables).error, OSError)

    counts = Counts(exporter)
    assert counts.response_sizes == {
        ("GET", "/download"): 10,
        ("GET", "/opened/<int:start>"): 8,
        ("GET", "/rude"): 10,
    }
    assert counts.disconnects == {}


@pytest.mark.parametrize(("sent", "size"), [(0, 10), (1, 1), (9, 9), (10, 10)])
def test_a_file_of_which_a_part_was_sent_is_a_disconnect_though_no_error_tells_it(
    download: tuple[Flask, FlaskExporter], sent: int, size: int
) -> None:
    """Where nothing seems to be sent the kernel has sent it: then the position is where it was."""
    app, exporter = download
    body: Any = app(
        environ("/download", variables={"wsgi.file_wrapper": FileWrapper}), lambda *_: lambda _: None
    )
    body.filelike.read(sent)
    body.close()

    counts = Counts(exporter)
    counts.are("GET", "/download", "200")
    assert counts.response_sizes == {("GET", "/download"): size}
    assert counts.disconnects == ({} if size == 10 else {("/download",): 1})


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "left"])
@pytest.mark.parametrize(("start", "sent", "size"), [(0, 0, 10), (2, 0, 8), (2, 8, 8), (2, 3, 3)])
def test_a_file_that_nobody_has_measured_has_the_size_that_was_sent_or_all_of_it(
    download: tuple[Flask, FlaskExporter], start: int, sent: int, size: int, closes: bool
) -> None:
    """From where it stood. Whether its client got all of it, nobody knows."""
    app, exporter = download
    body: Any = app(
        environ(f"/opened/{start}", variables={"wsgi.file_wrapper": FileWrapper}), lambda *_: lambda _: None
    )
    file = body.filelike
    file.read(sent)
    if closes:
        body.close()
    del body
    file.close()

    counts = Counts(exporter)
    counts.are("GET", "/opened/<int:start>", "200")
    assert counts.response_sizes == {("GET", "/opened/<int:start>"): size}
    assert counts.disconnects == {}


@pytest.mark.parametrize(
    ("path", "rule", "size"),
    [("/download", "/download", 10), ("/opened/2", "/opened/<int:start>", 8), ("/pipe", "/pipe", 0)],
)
def test_a_file_that_has_no_position_any_more_counts_as_whole(
    download: tuple[Flask, FlaskExporter], path: str, rule: str, size: int
) -> None:
    app, exporter = download
    body: Any = app(environ(path, variables={"wsgi.file_wrapper": FileWrapper}), lambda *_: lambda _: None)
    body.filelike.close()
    body.close()

    counts = Counts(exporter)
    counts.are("GET", rule, "200")
    assert counts.response_sizes == ({("GET", rule): size} if size else {})
    assert counts.disconnects == {}


class Rigid:
    """A server's own type, which takes no attributes."""

    __slots__ = ("file",)

    def __init__(self, file: Any, _: int = 0) -> None:
        self.file = file

    def close(self) -> None:
        self.file.close()


class Refusing(Rigid):
    """One that refuses by itself, and keeps what it was to take, as an interpreter may for a while."""

    __slots__ = ("__weakref__", "kept")

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__("file" if name == "file" else "kept", value)
        if name != "file":
            raise AttributeError(name)


@pytest.mark.parametrize("wrapper", [Rigid, Refusing])
@pytest.mark.parametrize(("path", "sizes"), [("/download", {("GET", "/download"): 10}), ("/pipe", {})])
def test_a_servers_own_type_without_attributes_is_recorded_as_it_leaves(
    download: tuple[Flask, FlaskExporter], wrapper: Any, path: str, sizes: dict[tuple[str, str], int]
) -> None:
    """With the size that the answer announces."""
    app, exporter = download
    body = app(environ(path, variables={"wsgi.file_wrapper": wrapper}), lambda *_: lambda _: None)
    assert isinstance(body, wrapper)

    counts = Counts(exporter)
    counts.are("GET", path, "200")
    assert counts.response_sizes == sizes
    body.close()
    assert Counts(exporter).total == {("GET", "200"): 1}


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


# Headers

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
