"""The same small service, measured by each of those that are compared; a process imports only what it uses.

gunicorn 'tests.bench.service:create("parent")'
"""

import os
from collections.abc import Callable
from typing import Any

from flask import Flask
from prometheus_client import REGISTRY, CollectorRegistry

PATH = "/orders/7"


def bare(app: Flask, registry: CollectorRegistry) -> None:
    """Flask alone."""


def parent(app: Flask, registry: CollectorRegistry) -> None:
    """prometheus_flask_exporter."""
    from prometheus_flask_exporter import PrometheusMetrics

    PrometheusMetrics(app, group_by="url_rule", registry=registry)


def families(app: Flask, registry: CollectorRegistry) -> None:
    """ours, the parent's families."""
    from exporter import FlaskExporter

    FlaskExporter(app, registry=registry, extended=False, recent=0)


def everything(app: Flask, registry: CollectorRegistry) -> None:
    """ours, everything on."""
    from exporter import FlaskExporter

    FlaskExporter(app, registry=registry)


def logged(app: Flask, registry: CollectorRegistry) -> None:
    """ours, everything on and the request log."""
    from exporter import FlaskExporter

    FlaskExporter(app, registry=registry, request_log=os.environ["BENCH_REQUEST_LOG"])


def opentelemetry(app: Flask, registry: CollectorRegistry) -> None:  # noqa: ARG001  it knows one registry only
    """OpenTelemetry with the Prometheus reader."""
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.instrumentation.flask import FlaskInstrumentor
    from opentelemetry.sdk.metrics import MeterProvider

    meters = MeterProvider(metric_readers=[PrometheusMetricReader()])
    instrumentor: Any = FlaskInstrumentor()  # it has no annotations
    instrumentor.instrument_app(app, meter_provider=meters)


KINDS: dict[str, Callable[[Flask, CollectorRegistry], None]] = {
    kind.__name__: kind for kind in (bare, parent, families, everything, logged, opentelemetry)
}


def title(kind: str) -> str:
    """How a kind is called where people read it."""
    return str(KINDS[kind].__doc__).rstrip(".")


def create(kind: str, registry: CollectorRegistry = REGISTRY, rules: int = 0) -> Flask:
    """The service with one of KINDS, and with so many more rules `/rule/0/7`, `/rule/1/7` …."""
    app = Flask("orders")
    KINDS[kind](app, registry)

    @app.get("/orders/<int:number>")
    def order(number: int) -> str:
        return f"{number:100}"

    for rule in range(rules):
        app.add_url_rule(f"/rule/{rule}/<int:number>", f"rule{rule}", order)
    return app
