"""An application that answers in every possible way, and its answers to a client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, abort
from prometheus_client import CollectorRegistry

from exporter import FlaskExporter
from tests.rig.wsgi import Answer, call

PATHS = ("/plain", "/stream", "/empty", "/missing", "/nowhere", "/boom", "/break", "/handled")
REQUEST_ID = {"HTTP_X_REQUEST_ID": "the-same-for-all", "HTTP_X_REQUEST_START": "1", "HTTP_TRACEPARENT": "x"}


def host() -> Flask:
    """An application that answers in every possible way."""
    app = Flask("host")
    app.logger.disabled = True
    app.register_error_handler(KeyError, lambda _: ("handled", 400))
    app.add_url_rule("/plain", "plain", lambda: "plain")
    app.add_url_rule("/stream", "stream", lambda: Response(iter([b"a", b"b"])))
    app.add_url_rule("/empty", "empty", lambda: Response(status=204))
    app.add_url_rule("/missing", "missing", lambda: abort(404))
    app.add_url_rule("/boom", "boom", lambda: str(1 / 0))
    app.add_url_rule("/handled", "handled", lambda: os.environ["NO_SUCH_NAME"])

    @app.get("/break")
    def breaks() -> Response:
        def chunks() -> Iterator[bytes]:
            yield b"x"
            raise RuntimeError("half-way")

        return Response(chunks())

    return app


def answers(app: Flask) -> list[tuple[Any, ...]]:
    """All that a client sees but the exporter's own header."""

    def view(answer: Answer) -> tuple[Any, ...]:
        headers = [header for header in answer.headers if header[0] != "X-Request-ID"]
        return answer.status, headers, answer.body, type(answer.error)

    return [
        *(
            view(call(app, path, method, variables=REQUEST_ID))
            for path in PATHS
            for method in ("GET", "HEAD")
        ),
        *(view(call(app, path, take=take)) for path in PATHS for take in (0, 1)),
    ]


REQUESTS = 4 * len(PATHS)
BARE = answers(host())


def measured(**options: Any) -> tuple[Flask, FlaskExporter]:
    app = host()
    return app, FlaskExporter(app, registry=CollectorRegistry(), **options)


def counted_text(text: bytes, stage: str) -> float:
    """The failures of a stage in an exposition."""
    line = next(
        line
        for line in text.decode().splitlines()
        if line.startswith(f'flask_exporter_failures_total{{stage="{stage}"}}')
    )
    return float(line.split()[1])
