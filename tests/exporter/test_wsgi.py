"""`WSGIExporter`: what a Flask application has, for any WSGI application."""

from __future__ import annotations

import importlib
import json
import logging
import os
import site
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import bottle
import falcon
import flask
import pytest
import werkzeug
from flask import Flask, got_request_exception
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from prometheus_flask_exporter import PrometheusMetrics
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.routing import RequestRedirect

from exporter import FlaskExporter, SettingsError, request_id
from exporter.places import Kind
from exporter.routes.template import likely
from exporter.worker.worker import serve_with
from exporter.wsgi import WSGIExporter
from tests.rig.places import ROOT
from tests.rig.wsgi import call, counted

DURATIONS = "flask_http_request_duration_seconds_count"
ERRORS = "flask_http_request_errors_total"


def shop(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """An application of nobody's framework."""
    if environ["PATH_INFO"] == "/boom":
        raise ValueError("bug")
    found = environ["PATH_INFO"].startswith("/orders/")
    start_response("200 OK" if found else "404 Not Found", [("Content-Type", "text/plain")])
    return [request_id().encode()]


def measured(application: Any = shop, **options: Any) -> WSGIExporter:
    return WSGIExporter(application, registry=CollectorRegistry(), **options)


def durations(exporter: Any) -> dict[tuple[str, ...], float]:
    return counted(exporter, DURATIONS)


def test_flask_is_not_imported_for_it() -> None:
    check = "import sys, exporter.wsgi; sys.exit('flask' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", check], check=False, timeout=60).returncode == 0


def test_an_empty_worker_directory_is_none(tmp_path: Path) -> None:
    """From the import on: prometheus_client would write into the current directory."""
    check = "import exporter.wsgi, prometheus_client; prometheus_client.Counter('orders', 'Orders').inc()"
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PROMETHEUS_MULTIPROC_DIR": ""}
    subprocess.run([sys.executable, "-c", check], cwd=tmp_path, env=environ, check=True, timeout=60)

    assert [*tmp_path.iterdir()] == []


def test_a_status_line_without_a_number_is_shown_as_0() -> None:
    def odd(_: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("OK", [])
        return [b"odd"]

    app = measured(odd)
    call(app, "/orders/7")
    (request,) = json.loads(call(app, "/monitoring/requests").body)

    assert (request["path"], request["status_code"]) == ("/orders/7", 0)


def test_a_request_is_counted_and_has_an_id() -> None:
    app = measured(buckets=(60.0,))
    answers = [call(app, "/orders/7"), call(app, "/orders/8"), call(app, "/nothing"), call(app, "/boom")]

    assert request_id() == ""
    assert [answer.body.decode() for answer in answers[:2]] == [
        dict(answer.headers)["X-Request-ID"] for answer in answers[:2]
    ]
    assert isinstance(answers[3].error, ValueError)
    assert durations(app) == {
        ("GET", "/orders/<id>", "200"): 2,
        ("GET", "_unmatched", "404"): 1,
        ("GET", "/boom", "500"): 1,
    }
    orders = {("GET", "/orders/<id>", "200", bound): 2 for bound in ("60.0", "+Inf")}
    assert orders.items() <= counted(app, f"{DURATIONS.removesuffix('count')}bucket").items()
    assert app.core.window() == (4, 1)
    assert counted(app, "flask_http_request_errors_total") == {
        ("GET", "_unmatched", "404", "NotFound"): 1,
        ("GET", "/boom", "500", "ValueError"): 1,
    }
    assert counted(app, "flask_exporter_failures_total") == {}
    assert counted(app, "flask_http_request_duration_seconds_bucket")["GET", "/boom", "500", "+Inf"] == 1


@pytest.mark.parametrize(("options", "rule"), [({}, "/ask/<id>"), ({"route": lambda _: "ask"}, "_unmatched")])
def test_a_request_in_progress_has_the_likely_route_unless_a_function_tells_it(
    options: dict[str, Any], rule: str
) -> None:
    seen = []

    def ask(_: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        seen.extend(json.loads(call(app, "/monitoring/inflight").body))
        start_response("200 OK", [])
        return []

    app = measured(ask, **options)
    call(app, "/ask/7")

    assert [request["url_rule"] for request in seen] == [rule]


def test_where_the_slow_ones_waited() -> None:
    app = measured(slow=1e-9)
    call(app, "/orders/7")

    ((request,),) = json.loads(call(app, "/monitoring/slow").body).values()
    assert request["where"] == "/orders/<id>"  # the view is not known


def test_families_of_another_exporter_on_the_registry_are_left_alone() -> None:
    registry = CollectorRegistry()
    PrometheusMetrics(Flask("theirs"), registry=registry)

    with pytest.warns(UserWarning, match="give it a registry or an EXPORTER_PREFIX of its own") as warnings:
        app = WSGIExporter(shop, registry=registry)
    assert [warning.filename for warning in warnings] == [__file__]
    assert call(app, "/orders/7").status == "200 OK"
    assert durations(app) == {}


def test_an_installed_application_is_its_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path)])
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "installed_shop.py").write_text("def application(*_): pass")
    (tmp_path / "library.py").write_text("def function(): pass")
    try:
        application = importlib.import_module("installed_shop").application
        function = importlib.import_module("library").function
        places = measured(application).core.places
        kinds = [places.of(one.__code__, one.__globals__).kind for one in (application, function)]
    finally:
        for name in ("installed_shop", "library"):
            sys.modules.pop(name, None)

    assert kinds == [Kind.OWN, Kind.LIBRARY]


def test_the_registry_is_everybodys_unless_told_otherwise() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exporter.wsgi.REGISTRY", registry := CollectorRegistry())

        assert WSGIExporter(shop).registry is registry


def test_records_before_the_first_request_are_in_the_log_too(tmp_path: Path) -> None:
    path = tmp_path / "requests.log"
    app = measured(request_log=str(path))
    logging.getLogger("shop").warning("starting")
    app.core.request_log.close()

    assert [json.loads(line)["message"] for line in path.read_text().splitlines()] == ["starting"]


def test_pages_are_read_and_not_counted() -> None:
    app = measured()
    pages = [
        "/metrics",
        "/health",
        "/health/live",
        "/health/ready",
        "/monitoring/stats",
        "/monitoring/inflight",
    ]

    assert [call(app, page).status for page in pages] == ["200 OK"] * len(pages)
    assert call(app, "/health", "HEAD").body == b""
    assert call(app, "/health", "POST").status == "405 Method Not Allowed"
    outside = {"REMOTE_ADDR": "203.0.113.9"}
    assert call(app, "/monitoring/stats", variables=outside).status == "403 Forbidden"
    assert call(app, "/metrics", variables=outside).status == "403 Forbidden"
    assert json.loads(call(app, "/health", variables=outside).body) == {"status": "healthy"}
    assert durations(app) == {}


def test_health_checks() -> None:
    app = measured()
    app.health_check("database")(lambda: False)

    assert call(app, "/health/ready").status == "503 Service Unavailable"
    assert 'flask_health_check_up{check="database"} 0.0' in call(app, "/metrics").body.decode()


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/", "/"),
        ("", "/"),
        ("/orders", "/orders"),
        ("/orders/7/lines/", "/orders/<id>/lines/"),
        ("/api/v2/user.list", "/api/v2/user.list"),
        ("/files/report-2026.pdf", "/files/<id>"),
        ("/caf\xc3\xa9", "/<id>"),
        (f"/{'a' * 40}", "/<id>"),
        ("/a/b/c/d/e/f", "/a/b/c/d/e/f"),
        ("/a/b/c/d/e/f/g", "/a/b/c/d/e/f/<path>"),
        ("/a/b/c/d/e/f/g/h", "/a/b/c/d/e/f/<path>"),
    ],
)
def test_a_path_that_no_framework_has_seen_has_a_likely_route(path: str, rule: str) -> None:
    assert likely(path).rule == rule


def test_a_function_may_tell_the_route() -> None:
    app = measured(route=lambda environ: environ["QUERY_STRING"] or None)
    call(app, "/orders/7", variables={"QUERY_STRING": "orders"})
    call(app, "/orders/7")

    assert durations(app) == {("GET", "orders", "200"): 1, ("GET", "_unmatched", "200"): 1}


def test_a_function_that_fails_costs_the_route_and_no_answer() -> None:
    app = measured(route=lambda environ: environ["no.such.key"])

    assert call(app, "/orders/7").status == "200 OK"
    assert durations(app) == {("GET", "_unmatched", "200"): 1}
    assert counted(app, "flask_exporter_failures_total") == {("middleware",): 1, ("labels",): 1}


def test_the_cap_folds_routes_that_clients_make_up() -> None:
    app = measured(route=lambda environ: environ["PATH_INFO"], max_series=10)
    for number in range(50):
        call(app, f"/orders/{number}")

    assert len(durations(app)) == 11
    assert durations(app)["_OTHER", "_other", "2xx"] == 40
    assert counted(app, "flask_exporter_series_dropped_total") == {(): 40}


@pytest.mark.parametrize("make", [bottle.Bottle, lambda: Flask("shop")])
def test_a_route_of_the_application_takes_the_place_of_a_page(make: Callable[[], Any]) -> None:
    app = make()
    app.get("/health")(lambda: "mine")
    app.route("/<path:path>", endpoint="any")(lambda **_: "a catch-all")
    wrapped = measured(app)

    assert call(wrapped, "/health").body == b"mine"
    assert call(wrapped, "/metrics").body.startswith(b"# HELP")
    assert durations(wrapped) == {("GET", "/health", "200"): 1}


def test_all_names_have_the_prefix() -> None:
    serve_with(8)
    app = measured(prefix="web", slow=1e-9)
    app.health_check("database")(lambda: True)
    for path in ("/orders/7", "/boom", "/nothing"):
        call(app, path)
    call(app, "/orders/7", take=0)
    text = call(app, "/metrics").body.decode()
    serve_with(0)
    of_flask = {
        family.name
        for family in FlaskExporter(Flask("other"), registry=CollectorRegistry()).registry.collect()
    }
    names = {family.name for family in text_string_to_metric_families(text)}

    assert {name for name in names if name.startswith("flask")} == set()
    assert {name.replace("flask_", "web_", 1) for name in of_flask} <= names
    assert json.loads(call(app, "/monitoring/stats").body)["total_requests"] == 4


def test_the_prefix_is_for_flask_applications_too() -> None:
    exporter = FlaskExporter(Flask("shop"), registry=CollectorRegistry(), prefix="web")

    assert {family.name.partition("_")[0] for family in exporter.registry.collect()} == {"web"}


@pytest.mark.parametrize("prefix", ["Web", "1st", "web_", "a-b", ""])
def test_a_prefix_that_no_name_can_have(prefix: str) -> None:
    with pytest.raises(SettingsError, match="give small letters, digits and '_', such as web"):
        measured(prefix=prefix)


def test_grouping_is_for_flask_applications(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPORTER_GROUP_BY", "endpoint")

    with pytest.raises(SettingsError, match="give WSGIExporter a function as its `route`"):
        measured()


def flask_application() -> Flask:
    app = Flask("inner")
    app.add_url_rule("/orders/<int:number>", "show", lambda number: str(number))
    app.add_url_rule("/boom", "boom", lambda: str(1 / 0))
    return app


def test_flask_applications_behind_another_application_tell_their_rules_and_errors() -> None:
    app = measured(DispatcherMiddleware(shop, {"/inner": flask_application()}))
    for path in ("/inner/orders/7", "/inner/boom", "/inner/nothing", "/orders/7"):
        call(app, path)

    assert durations(app) == {
        ("GET", "/orders/<int:number>", "200"): 1,
        ("GET", "/boom", "500"): 1,
        ("GET", "_unmatched", "404"): 1,
        ("GET", "/orders/<id>", "200"): 1,
    }
    assert counted(app, "flask_http_request_errors_total")["GET", "/boom", "500", "ZeroDivisionError"] == 1
    assert counted(app, "flask_http_request_exceptions_total") == {("GET", "500"): 1}


class Order:
    """A resource of Falcon's."""

    def on_get(self, _: Any, response: falcon.Response, number: str) -> None:
        response.text = str(1 // int(number))


def falcon_application() -> falcon.App[Any, Any]:
    app = falcon.App()
    app.add_route("/orders/{number}", Order())
    return app


@pytest.mark.parametrize(
    ("inner", "good", "bad", "rules"),
    [
        (flask_application, "/orders/7", "/boom", ("/orders/<int:number>", "/boom")),
        (falcon_application, "/orders/7", "/orders/0", ("/orders/{number}", "/orders/{number}")),
    ],
)
def test_an_application_that_is_given_a_copy_of_the_environ_tells_its_rules(
    inner: Any, good: str, bad: str, rules: tuple[str, str]
) -> None:
    """CherryPy gives one to each application that is grafted into its tree."""
    application = inner()
    app = measured(lambda environ, start_response: application({**environ}, start_response))
    for path in good, bad, "/nothing":
        call(app, path)

    assert durations(app) == {
        ("GET", rules[0], "200"): 1,
        ("GET", rules[1], "500"): 1,
        ("GET", "_unmatched", "404"): 1,
    }


def test_what_no_route_takes_is_unmatched_whatever_its_answer() -> None:
    bottles = bottle.Bottle()
    bottles.get("/orders")(lambda: "orders")
    flasks = DispatcherMiddleware(shop, {"/inner": flask_application()})
    for app, path in (measured(bottles), "/orders"), (measured(flasks), "/inner/orders/7"):
        call(app, path, "POST")

        assert durations(app) == {("POST", "_unmatched", "405"): 1}


@pytest.mark.parametrize("kind", [werkzeug.Request, flask.Request])
def test_a_request_that_is_not_routed_has_a_likely_route(kind: type[werkzeug.Request]) -> None:
    """A service without a framework may use Werkzeug's, and a middleware Flask's."""
    app = measured(lambda environ, start: werkzeug.Response(kind(environ).method)(environ, start))

    assert call(app, "/orders/7").body == b"GET"
    assert durations(app) == {("GET", "/orders/<id>", "200"): 1}
    assert counted(app, "flask_exporter_failures_total") == {}


def test_an_application_that_nobody_measures_answers_as_before() -> None:
    """The hooks into its framework are there for another one."""
    inner = falcon_application()
    measured(inner)

    assert [call(inner, f"/orders/{number}").status[:3] for number in (7, 0)] == ["200", "500"]


def test_a_bug_in_the_routing_has_no_rule() -> None:
    class Broken(falcon.routing.BaseConverter):
        def convert(self, value: str) -> None:
            raise KeyError(value)

    inner = falcon.App()
    inner.router_options.converters["broken"] = Broken
    inner.add_route("/orders/{number:broken}", Order())
    app = measured(inner)
    call(app, "/orders/7")

    assert durations(app) == {("GET", "_unmatched", "500"): 1}
    assert counted(app, ERRORS) == {("GET", "_unmatched", "500", "KeyError"): 1}


def test_a_request_in_progress_has_its_rule() -> None:
    """Before its answer, too."""
    seen = []

    class Asking:
        def on_get(self, _: Any, response: falcon.Response, number: str) -> None:
            response.text = number
            seen.append(json.loads(call(app, "/monitoring/inflight").body))

    inner = falcon.App()
    inner.add_route("/ask/{number}", Asking())
    app = measured(inner)
    call(app, "/ask/7")

    assert [[request["url_rule"] for request in answer] for answer in seen] == [["/ask/{number}"]]


@pytest.mark.parametrize(("route", "rule"), [(None, "/ask/<id>"), (lambda _: "ask", "_unmatched")])
def test_a_request_in_progress_has_a_likely_route_unless_a_function_tells_it(route: Any, rule: str) -> None:
    def ask(_: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [call(app, "/monitoring/inflight").body]

    app = measured(ask, route=route)

    assert [request["url_rule"] for request in json.loads(call(app, "/ask/7").body)] == [rule]


def test_a_redirect_that_a_flask_application_signals_is_no_error() -> None:
    """Neither behind another application nor with an exporter of its own in the same process."""
    own = flask_application()
    own_exporter = FlaskExporter(own, registry=CollectorRegistry())
    inner = flask_application()
    exporter = measured(DispatcherMiddleware(shop, {"/inner": inner}))
    for app in inner, own:

        @app.get("/moved")
        def moved(app: Flask = app) -> tuple[str, int]:
            got_request_exception.send(app, exception=RequestRedirect("/new"))
            return "", 308

    assert call(exporter, "/inner/moved").status == "308 PERMANENT REDIRECT"
    assert call(own, "/moved").status == "308 PERMANENT REDIRECT"
    assert counted(exporter, ERRORS) == counted(own_exporter, ERRORS) == {}


def test_a_request_to_a_flask_application_with_an_exporter_inside_counts_once() -> None:
    inner = flask_application()
    registry = CollectorRegistry()
    FlaskExporter(inner, registry=registry)
    app = WSGIExporter(DispatcherMiddleware(shop, {"/inner": inner}), registry=registry)
    call(app, "/inner/orders/7")

    assert durations(app) == {("GET", "/orders/<int:number>", "200"): 1}


def test_log_records_have_the_id_also_in_a_stream(tmp_path: Path) -> None:
    def stream(_: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        logging.getLogger("shop").warning("before")
        start_response("200 OK", [("X-Request-ID", request_id())])
        yield b"x"
        logging.getLogger("shop").warning("after")

    path = tmp_path / "requests.log"
    app = measured(stream, request_log=str(path))
    logging.getLogger("shop").warning("start")
    answer = call(app, "/orders/7")
    app.core.request_log.close()
    start, *lines = (json.loads(line) for line in path.read_text().splitlines())

    assert (start["message"], start.get("request_id", "")) == ("start", "")
    assert [line["message"] for line in lines] == ["before", "after", "GET /orders/<id> 200"]
    assert {line["request_id"] for line in lines} == {dict(answer.headers)["X-Request-ID"]} - {""}
    assert {line["url_rule"] for line in lines} == {"/orders/<id>"}
    assert request_id() == ""
