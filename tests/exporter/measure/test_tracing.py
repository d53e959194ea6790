"""Where OpenTelemetry traces a service, its trace is the one that log, flight recorder and exemplars show."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
from flask import Flask
from opentelemetry import propagate
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from exporter import FlaskExporter

TRACE = "0af7651916cd43dd8448eb211c80319c"
ANNOUNCED = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}

CLIENTS: dict[str, Callable[[str], object]] = {"requests": requests.get, "httpx": httpx.get}


@pytest.fixture
def stock() -> Iterator[tuple[str, list[str]]]:
    """Another service: its address, and the `traceparent` of each request that it was sent."""
    received: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.append(self.headers.get("traceparent", ""))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}/", received
        server.shutdown()
        serving.join()


@pytest.fixture
def service(tmp_path: Path, stock: tuple[str, list[str]]) -> Iterator[Service]:
    """A service that calls the other one, with everything on."""
    made = Service(tmp_path / "requests.jsonl", stock[0])
    yield made
    made.exporter.core.request_log.close()


class Service:
    """Each view logs a record; `/orders/<client>` calls the other service with that client."""

    def __init__(self, log: Path, other: str) -> None:
        self.log = log
        self.app = Flask("orders")
        self.exporter = FlaskExporter(self.app, registry=CollectorRegistry(), request_log=str(log))

        @self.app.get("/orders/<client>")
        def order(client: str) -> str:
            CLIENTS[client](other)
            logging.getLogger("orders").warning("called")
            return "done"

        @self.app.get("/boom")
        def boom() -> str:
            raise ValueError("bad")

        @self.app.get("/stream")
        def stream() -> Iterator[str]:
            return iter(["a", "b"])

    def ids(self, path: str, headers: dict[str, str]) -> dict[str, set[str]]:
        """The trace ids that one request leaves in the log, the flight recorder and the exemplars."""
        client = self.app.test_client()
        client.get(path, headers=headers, buffered=True)
        lines = [json.loads(line) for line in self.log.read_bytes().splitlines()]
        exposed = client.get("/metrics", headers=OPENMETRICS).text
        return {
            "log": {line["trace_id"] for line in lines},
            "recent": {one["trace_id"] for one in client.get("/monitoring/requests").json or ()},
            "exemplars": {
                sample.exemplar.labels.get("trace_id", "")
                for family in text_string_to_metric_families(exposed)  # type: ignore[no-untyped-call]
                for sample in family.samples
                if sample.exemplar
            },
        }


@pytest.fixture
def spans(service: Service) -> Iterator[Callable[[], list[Any]]]:
    """OpenTelemetry on the service and its clients; the spans that are finished."""
    memory = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    flask: Any = FlaskInstrumentor()
    clients = RequestsInstrumentor(), HTTPXClientInstrumentor()
    flask.instrument_app(service.app, excluded_urls="/metrics,/monitoring", tracer_provider=provider)
    for client in clients:
        client.instrument(tracer_provider=provider)
    yield lambda: list(memory.get_finished_spans())
    for client in clients:
        client.uninstrument()
    flask.uninstrument_app(service.app)
    provider.shutdown()


def _hex(span: Any) -> str:
    return f"{span.context.trace_id:032x}"


def _server(spans: list[Any]) -> Any:
    (found,) = [span for span in spans if span.kind == SpanKind.SERVER]
    return found


@pytest.mark.parametrize("client", CLIENTS)
def test_a_trace_goes_on_to_the_services_that_are_called(
    service: Service, spans: Callable[[], list[Any]], stock: tuple[str, list[str]], client: str
) -> None:
    """The caller's trace is that of the span, of the log, and of the request that is sent on."""
    found = service.ids(f"/orders/{client}", ANNOUNCED)
    (sent,) = stock[1]

    assert found == {"log": {TRACE}, "recent": {TRACE}, "exemplars": {TRACE}}
    assert _hex(_server(spans())) == TRACE
    assert sent.split("-")[1] == TRACE
    assert sent.split("-")[2] in {f"{span.context.span_id:016x}" for span in spans()}


@pytest.mark.parametrize("path", ["/orders/requests", "/boom", "/stream", "/nowhere"])
def test_a_trace_that_begins_here_is_shown_too(
    service: Service, spans: Callable[[], list[Any]], path: str
) -> None:
    """Without a caller's trace, OpenTelemetry begins one: answers, errors, streams and 404 alike show it.

    The second one like the first.
    """
    service.ids(path, {})
    found = service.ids(path, {})
    begun = {_hex(span) for span in spans() if span.kind == SpanKind.SERVER}

    assert len(begun) == 2
    assert (found["log"], found["recent"]) == (begun, begun)
    assert found["exemplars"]
    assert found["exemplars"] <= begun


def test_a_trace_of_a_caller_whom_the_service_does_not_trust_is_not_shown(
    service: Service, spans: Callable[[], list[Any]]
) -> None:
    """Its OpenTelemetry takes no trace from outside, and begins one of its own."""
    former = propagate.get_global_textmap()
    propagate.set_global_textmap(W3CBaggagePropagator())
    try:
        found = service.ids("/stream", ANNOUNCED)
    finally:
        propagate.set_global_textmap(former)
    begun = _hex(_server(spans()))

    assert begun != TRACE
    assert found == {"log": {begun}, "recent": {begun}, "exemplars": {begun}}


def test_without_instrumentation_the_callers_trace_is_shown_and_nothing_is_sent_on(
    service: Service, stock: tuple[str, list[str]]
) -> None:
    """OpenTelemetry is imported here, but no span is active."""
    found = service.ids("/orders/requests", ANNOUNCED)

    assert found == {"log": {TRACE}, "recent": {TRACE}, "exemplars": {TRACE}}
    assert stock[1] == [""]


def test_the_exporter_does_not_import_opentelemetry() -> None:
    """Who does not trace does not pay for it."""
    program = "import sys, exporter; exporter.FlaskExporter; print(*sys.modules, sep='\\n')"
    modules = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "exporter.measure.middleware" in modules.stdout.splitlines()
    assert "opentelemetry" not in modules.stdout
