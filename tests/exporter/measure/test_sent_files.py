"""A file that the server sends itself counts with its range, its size and how far the client took it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper

import pytest
from flask import Flask, Response, send_file

from exporter import FlaskExporter
from tests.rig.wsgi import RULE, Clock, Counts, application, call, environ


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
