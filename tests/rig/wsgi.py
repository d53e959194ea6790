"""The part of a WSGI server by hand, and the counts of the exporter."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry
from werkzeug.test import create_environ

from exporter import FlaskExporter
from exporter.worker.worker import serve_with
from exporter.wsgi import WSGIExporter

RULE = "/orders/<int:number>"
"""The rule of `application`."""


def application(*, wrap: Callable[[Any], Any] | None = None, **options: Any) -> tuple[Flask, FlaskExporter]:
    """An application with one rule and an exporter on a registry of its own.

    `wrap` makes the `wsgi_app` for the exporter from the application's own.
    """
    app = Flask("measured", **options.pop("flask", {}))
    if wrap is not None:
        app.wsgi_app = wrap(app.wsgi_app)  # type: ignore[method-assign]
    options.setdefault("registry", CollectorRegistry())
    exporter = FlaskExporter(app, **options)

    @app.get("/orders/<int:number>")
    def show(number: int) -> str:
        return "x" * number

    return app, exporter


def environ(path: str, method: str = "GET", variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The environ of a request, with these variables besides."""
    return {**create_environ(path, method=method), "REMOTE_ADDR": "127.0.0.1", **(variables or {})}


@dataclass(slots=True)
class Answer:
    """The answer of a server; `error` is the exception that left the application, if any."""

    status: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    error: BaseException | None = None


def call(
    app: Callable[..., Any],
    path: str = "/",
    method: str = "GET",
    *,
    variables: Mapping[str, Any] | None = None,
    take: int | None = None,
) -> Answer:
    """One request, answered as in PEP 3333. With `take` the client leaves after so many chunks."""
    answer = Answer()

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if exc_info is not None and answer.body:
            raise exc_info[1].with_traceback(exc_info[2])
        assert exc_info is not None or not answer.body, "the answer has begun"
        answer.status, answer.headers = status, headers
        return write

    def write(chunk: bytes) -> None:
        answer.body += chunk

    try:
        body = app(environ(path, method, variables), start_response)
        try:
            if take != 0:
                for number, chunk in enumerate(body, 1):
                    answer.body += chunk
                    if number == take:
                        break
        finally:
            if hasattr(body, "close"):
                body.close()
    except BaseException as error:
        answer.error = error
    return answer


def exposition() -> str:
    """The exposition of an application after a slow order, an error and a client that left."""
    serve_with(8)
    app, exporter = application(slow=1e-9)
    exporter.health_check("database")(lambda: True)
    app.add_url_rule("/boom", "boom", lambda: str(1 / 0))
    call(app, "/orders/7")
    call(app, "/orders/7", take=0)
    call(app, "/boom")
    text = call(app, "/metrics").body.decode()
    serve_with(0)
    return text


def counted(exporter: FlaskExporter | WSGIExporter, name: str) -> dict[tuple[str, ...], float]:
    """The samples of this name that are not 0, by their label values in the family's order."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in exporter.registry.collect()
        for sample in family.samples
        if sample.name == name and sample.value
    }


def forgotten(exporter: FlaskExporter) -> bool:
    """Whether no request is in progress that nobody closes; the sampler may have them for a moment."""
    gc.collect()  # the traceback of an error has frames that have the `start_response`
    return counted(exporter, "flask_http_requests_in_progress") == {}


class Counts:
    """The counts of the requests, family by family."""

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


class Clock:
    """Stands in for the monotonic clock and the wall clock; moves only in `advance`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        for module in ("exchange", "middleware"):
            monkeypatch.setattr(f"exporter.measure.{module}.perf_counter", lambda: self.now)
            monkeypatch.setattr(f"exporter.measure.{module}.time", lambda: self.now + 1.7e9)
        monkeypatch.setattr("exporter.measure.backdoor.perf_counter", lambda: self.now)
        monkeypatch.setattr("time.monotonic", lambda: self.now)

    def advance(self, seconds: float) -> str:
        """Let time pass; returns an answer, so that a view may return it."""
        self.now += seconds
        return "done"


class Raises:
    """A fault in the place of a function: raises at each call, and counts the calls."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error or RuntimeError("injected")
        self.calls = 0

    def __call__(self, *_: Any, **__: Any) -> Any:
        self.calls += 1
        raise self.error


def exc_info(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """The third argument of `start_response`."""
    return type(error), error, error.__traceback__
