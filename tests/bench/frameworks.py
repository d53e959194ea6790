"""What measuring adds to one request of each framework, beside what OpenTelemetry's instrumentation adds.

    python -m tests.bench.frameworks

Each application runs in processes of its own, because both hook into the framework. A figure is the median of
`REPEATS` processes, in CPU time; what is added is the difference to the process without either.
"""

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.bench.overhead import ask
from tests.bench.rows import Row, save

REPEATS = 3
ROUNDS = 40
REQUESTS = 100
PATH = "/orders/7"  # as `ask` asks for it
DJANGO_ROUTE = 2.0  # µs


def bare(_: str) -> Any:
    """No framework."""

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "100")])
        return [f"{environ['PATH_INFO'].rpartition('/')[2]:>100}".encode()]

    return app


def flask(_: str) -> Any:
    """Flask."""
    from flask import Flask

    app = Flask("orders")
    app.add_url_rule("/orders/<int:number>", "order", lambda number: f"{number:100}")
    return app


def django(kind: str) -> Any:
    """Django."""
    from django.conf import settings
    from django.http import HttpResponse
    from django.urls import path

    def order(_: Any, number: int) -> Any:
        return HttpResponse(f"{number:100}")

    urls = type("urls", (), {"urlpatterns": [path("orders/<int:number>", order)]})
    settings.configure(ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"], SECRET_KEY="secret", MIDDLEWARE=[])
    if kind == "opentelemetry":
        from opentelemetry.instrumentation.django import DjangoInstrumentor

        DjangoInstrumentor().instrument(meter_provider=meters())
    from django.core.wsgi import get_wsgi_application

    return get_wsgi_application()


def bottle(_: str) -> Any:
    """Bottle."""
    from bottle import Bottle

    app = Bottle()
    app.get("/orders/<number:int>")(lambda number: f"{number:100}")
    return app


def pyramid(kind: str) -> Any:
    """Pyramid."""
    from pyramid.config import Configurator
    from pyramid.response import Response

    config = Configurator()
    if kind == "opentelemetry":
        from opentelemetry.instrumentation.pyramid import PyramidInstrumentor
        from opentelemetry.metrics import set_meter_provider

        set_meter_provider(meters())
        instrumentor: Any = PyramidInstrumentor()  # it has no annotations
        instrumentor.instrument_config(config)
    config.add_route("order", "/orders/{number}")
    config.add_view(lambda request: Response(f"{request.matchdict['number']:>100}"), route_name="order")
    return config.make_wsgi_app()


def falcon(kind: str) -> Any:
    """Falcon."""
    if kind == "opentelemetry":
        from opentelemetry.instrumentation.falcon import FalconInstrumentor

        FalconInstrumentor().instrument(meter_provider=meters())
    import falcon

    class Order:
        def on_get(self, _: Any, response: Any, number: str) -> None:
            response.text = f"{number:>100}"

    app: Any = falcon.App()
    app.add_route("/orders/{number}", Order())
    return app


FRAMEWORKS: dict[str, Callable[[str], Any]] = {
    function.__name__: function for function in (bare, flask, django, bottle, pyramid, falcon)
}
KINDS = ("alone", "ours", "opentelemetry")


def meters() -> Any:
    """OpenTelemetry's metrics for Prometheus."""
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider

    return MeterProvider(metric_readers=[PrometheusMetricReader()])


def create(framework: str, kind: str) -> Any:
    """The application of one process."""
    app = FRAMEWORKS[framework](kind)
    if kind == "ours":
        from exporter.auto import instrument

        return instrument(app)
    if kind == "opentelemetry" and framework == "flask":
        from opentelemetry.instrumentation.flask import FlaskInstrumentor

        instrumentor: Any = FlaskInstrumentor()  # it has no annotations
        instrumentor.instrument_app(app, meter_provider=meters())
    if kind == "opentelemetry" and framework in ("bare", "bottle"):  # it has nothing for Bottle
        from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware

        return OpenTelemetryMiddleware(app, meter_provider=meters())
    return app


def measure(framework: str, kind: str) -> float:
    """Microseconds of CPU time that a request takes."""
    app = create(framework, kind)
    ask(app, REQUESTS)
    return microseconds(lambda: ask(app, REQUESTS)) / REQUESTS


def route_of_django() -> float:
    """Microseconds of CPU time that the route of a Django request costs: the hook, and the look."""
    app = create("django", "ours")
    from django.core.handlers.base import BaseHandler
    from django.test import RequestFactory

    from exporter.routes import django as routes

    ask(app, 1)
    request, handler = RequestFactory().get(PATH), BaseHandler()

    def with_route() -> None:
        for _ in range(REQUESTS):
            handler.resolve_request(request)
            routes.route(request.META)

    def without_route() -> None:
        for _ in range(REQUESTS):
            routes._resolve(handler, request)

    return (microseconds(with_route) - microseconds(without_route)) / REQUESTS


def microseconds(work: Callable[[], Any]) -> float:
    """The median of the CPU time that this takes."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        work()
        rounds.append(time.process_time() - start)
    return statistics.median(rounds) * 1e6


def in_a_process(*arguments: str) -> float:
    """The figure of this module with these arguments."""
    module = "tests.bench.frameworks"
    command = [sys.executable, "-W", "ignore", "-m", "tests.rig.command", module, *arguments]
    return float(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))


def main() -> None:
    """Measure, print a table, write the file."""
    combinations = [(framework, kind) for framework in FRAMEWORKS for kind in KINDS]
    figures: dict[tuple[str, str], list[float]] = {combination: [] for combination in combinations}
    for _ in range(REPEATS):
        for combination in random.sample(combinations, len(combinations)):
            figures[combination].append(in_a_process(*combination))
    medians = {combination: statistics.median(rounds) for combination, rounds in figures.items()}
    added = {
        (framework, kind): medians[framework, kind] - medians[framework, "alone"]
        for framework, kind in combinations
    }
    rows = []
    for framework, function in FRAMEWORKS.items():
        ours, other = added[framework, "ours"], added[framework, "opentelemetry"]
        detail = f"OpenTelemetry adds {other:.1f} µs to {medians[framework, 'alone']:.1f} µs"
        # No more than to Flask, within what two processes differ by.
        target = round(added["flask", "ours"] * 1.1, 1) if framework == "bare" else None
        name = f"{str(function.__doc__).rstrip('.')}, what is added"
        rows.append(Row(name, round(ours, 1), "µs a request", target, detail))
    routes = statistics.median(in_a_process("route") for _ in range(REPEATS))
    rows.append(Row("Django, of that its route", round(routes, 2), "µs a request", DJANGO_ROUTE))
    save("frameworks", rows)


if __name__ == "__main__":
    if sys.argv[1:] == ["route"]:
        json.dump(route_of_django(), sys.stdout)
    elif sys.argv[1:]:
        json.dump(measure(*sys.argv[1:]), sys.stdout)
    else:
        main()
