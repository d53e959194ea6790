"""The exporter's own endpoints: no traffic, and they yield to the host's routes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flask import Blueprint, Flask
from prometheus_client import CollectorRegistry
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from exporter import FlaskExporter
from tests.rig.wsgi import application, call, counted

OWN = [
    "/metrics",
    "/health",
    "/health/live",
    "/health/ready",
    "/monitoring/stats",
    "/monitoring/requests",
    "/monitoring/endpoints",
]


@pytest.mark.parametrize("path", OWN)
def test_they_are_no_traffic(path: str) -> None:
    app, exporter = application()

    answer = call(app, path)

    assert answer.status == "200 OK"
    assert "X-Request-ID" not in dict(answer.headers)
    for family in ("request_total", "requests_in_progress", "request_duration_seconds_count"):
        assert counted(exporter, f"flask_http_{family}") == {}
    assert exporter.core.flight_recorder.read() == []


@pytest.mark.parametrize("path", OWN)
def test_no_cache_keeps_them(path: str, tmp_path: Path) -> None:
    """What an insider gets is not for the next one who asks, and a refusal not for an insider."""
    (tmp_path / "token").write_text("s3cret")
    client = application()[0].test_client()
    guarded = application(token_file=str(tmp_path / "token"))[0].test_client()

    answers = [
        client.get(path),
        client.get(path, environ_base={"REMOTE_ADDR": "203.0.113.9"}),
        guarded.get(path),
    ]

    assert {answer.headers["Cache-Control"] for answer in answers} == {"no-store"}


@pytest.mark.parametrize("path", OWN)
@pytest.mark.parametrize("export", [True, False], ids=["measured", "not measured"])
@pytest.mark.parametrize("late", [True, False], ids=["after the exporter", "before it"])
def test_a_route_of_the_host_on_the_same_path_wins(path: str, export: bool, late: bool) -> None:
    app = Flask("host")
    if not late:
        app.add_url_rule(path, "mine", lambda: "mine")
    exporter = FlaskExporter(app, registry=CollectorRegistry(), export_defaults=export)
    if late:
        app.add_url_rule(path, "mine", lambda: "mine")

    assert call(app, path).body == b"mine"
    assert call(app, path, "HEAD").status == "200 OK"
    assert counted(exporter, "flask_http_request_duration_seconds_count") == (
        {("GET", path, "200"): 1, ("HEAD", path, "200"): 1} if export else {}
    )
    for other in OWN:
        if other != path:
            assert call(app, other).body != b"mine"


def test_a_route_of_a_blueprint_wins_too() -> None:
    app, exporter = application()
    pages = Blueprint("pages", __name__, url_prefix="/health")
    pages.add_url_rule("", "health", lambda: "mine")
    app.register_blueprint(pages)

    assert call(app, "/health").body == b"mine"
    assert call(app, "/health/live").body == b'{"status":"alive"}\n'
    assert counted(exporter, "flask_http_request_total") == {("GET", "200"): 1}


@pytest.mark.parametrize("rule", ["/<path:anything>", "/<anything>", "/<any(metrics, health):page>"])
@pytest.mark.parametrize("late", [True, False])
def test_a_catch_all_of_the_host_does_not_count(rule: str, late: bool) -> None:
    app = Flask("host")
    if not late:
        app.add_url_rule(rule, "mine", lambda **_: "mine")
    exporter = FlaskExporter(app, registry=CollectorRegistry())
    if late:
        app.add_url_rule(rule, "mine", lambda **_: "mine")

    assert call(app, "/metrics").body.startswith(b"# HELP")
    assert call(app, "/health").body != b"mine"
    assert counted(exporter, "flask_http_request_total") == {}


@pytest.mark.parametrize("path", OWN)
def test_another_method_of_the_host_on_the_same_path_is_traffic_beside_ours(path: str) -> None:
    app, exporter = application()
    app.add_url_rule(path, "mine", lambda: "mine", methods=["POST", "PUT"])

    assert call(app, path, "POST").body == b"mine"
    assert call(app, path, "PUT").body == b"mine"
    for method in ("GET", "HEAD"):
        answer = call(app, path, method)
        assert (answer.status, answer.body != b"mine") == ("200 OK", True)
    assert counted(exporter, "flask_http_request_duration_seconds_count") == {
        ("POST", path, "200"): 1,
        ("PUT", path, "200"): 1,
    }
    assert counted(exporter, "flask_http_requests_in_progress") == {}


@pytest.mark.parametrize("subdomain", ["api", "<tenant>"])
def test_a_route_on_another_subdomain_does_not_take_ours_away(subdomain: str) -> None:
    app, exporter = application(flask={"subdomain_matching": True})
    app.config["SERVER_NAME"] = "shop.test"
    app.add_url_rule("/health", "mine", lambda **_: "mine", subdomain=subdomain)

    assert b'"status":"healthy"' in call(app, "/health", variables={"HTTP_HOST": "shop.test"}).body
    assert call(app, "/health", variables={"HTTP_HOST": "api.shop.test"}).body == b"mine"
    assert counted(exporter, "flask_http_request_duration_seconds_count") == {("GET", "/health", "200"): 1}


def test_where_hosts_are_matched_they_answer_on_each_that_has_no_such_route() -> None:
    app, exporter = application(flask={"host_matching": True, "static_host": "shop.test"})
    app.add_url_rule("/metrics", "mine", lambda: "mine", host="api.test")

    for path in OWN:
        assert call(app, path, variables={"HTTP_HOST": "shop.test:8000"}).status == "200 OK"
    assert call(app, "/metrics", variables={"HTTP_HOST": "api.test"}).body == b"mine"
    assert counted(exporter, "flask_http_request_duration_seconds_count") == {("GET", "/metrics", "200"): 1}


@pytest.mark.parametrize("options", [{"websocket": True}, {"build_only": True}])
def test_a_route_that_answers_no_plain_request_does_not_take_ours_away(options: dict[str, bool]) -> None:
    app, _ = application()
    app.add_url_rule("/health", "mine", lambda: "mine", **options)

    assert call(app, "/health").status == "200 OK"


@pytest.mark.parametrize(
    "path", ["//health", "///health/ready", "/health/", "//metrics", "/monitoring/stats/"]
)
def test_another_spelling_of_their_paths_is_no_traffic(path: str) -> None:
    app = Flask("lenient")
    app.url_map.strict_slashes = False
    exporter = FlaskExporter(app, registry=CollectorRegistry())

    assert call(app, variables={"PATH_INFO": path}).status == "200 OK"
    for family in ("request_total", "requests_in_progress", "request_duration_seconds_count"):
        assert counted(exporter, f"flask_http_{family}") == {}
    assert exporter.core.flight_recorder.read() == []


@pytest.mark.parametrize("path", ["//health", "/health/"])
def test_another_spelling_is_no_traffic_for_whom_the_application_refuses(path: str) -> None:
    app = Flask("lenient")
    app.url_map.strict_slashes = False
    exporter = FlaskExporter(app, registry=CollectorRegistry())
    app.before_request(lambda: ("no", 403))

    assert call(app, variables={"PATH_INFO": path}).status == "403 FORBIDDEN"
    assert counted(exporter, "flask_http_request_total") == {}


@pytest.mark.parametrize("path", OWN)
def test_those_of_a_mounted_application_are_no_traffic_of_the_one_around_it(path: str) -> None:
    mounted, exporter = application()
    site = Flask("site")
    site.wsgi_app = DispatcherMiddleware(site.wsgi_app, {"/api": mounted})  # type: ignore[method-assign]
    FlaskExporter(site, registry=exporter.registry)

    assert call(site, f"/api{path}").status == "200 OK"
    assert counted(exporter, "flask_http_request_total") == {}
    assert counted(exporter, "flask_http_requests_in_progress") == {}


def test_each_of_them_can_be_moved_or_turned_off() -> None:
    app, _ = application(path="/m", health_path="/h", monitoring_path="/mon")
    for path in ("/m", "/h", "/h/live", "/h/ready", "/mon/stats"):
        assert call(app, path).status == "200 OK"

    app, _ = application(path="off", health_path="off", monitoring_path="off")
    for path in OWN:
        assert call(app, path).status == "404 NOT FOUND"


def test_hosts_routes_exist_at_zero_and_ours_do_not() -> None:
    app, exporter = application()
    app.add_url_rule("/health", "mine", lambda: "mine")
    call(app, "/metrics")

    rules = {
        sample.labels["url_rule"]
        for family in exporter.registry.collect()
        for sample in family.samples
        if sample.name == "flask_http_request_duration_seconds_count"
    }
    assert rules == {"/orders/<int:number>", "/static/<path:filename>", "/health"}


def test_a_route_that_takes_the_place_of_the_metrics_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Once, with both names: the target is down from now on."""
    app = Flask("shop")
    FlaskExporter(app, registry=CollectorRegistry(), path="/products/")
    app.add_url_rule("/products/", "products", lambda: "products")
    app.add_url_rule("/health", "own_health", lambda: "well")
    for _ in range(2):
        assert call(app, "/products/").body == b"products"

    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "the application's route /products/ (endpoint products) takes the place of the exporter's "
        "prometheus_metrics: if that is not meant, set EXPORTER_PATH, EXPORTER_HEALTH_PATH or "
        "EXPORTER_MONITORING_PATH to another path, or to off"
    ]


def test_the_icon_that_a_browser_asks_for_beside_our_pages_is_no_traffic() -> None:
    app, exporter = application()

    assert call(app, "/favicon.ico").status == "404 NOT FOUND"
    assert counted(exporter, "flask_http_request_total") == {}


@pytest.mark.parametrize("rule", ["/favicon.ico", "/<path:anything>", "/<name>.ico"])
def test_an_icon_of_the_application_s_own_is_traffic(rule: str) -> None:
    app, exporter = application()
    app.add_url_rule(rule, "icon", lambda **_: "icon")
    call(app, "/favicon.ico")

    assert counted(exporter, "flask_http_request_duration_seconds_count") == {("GET", rule, "200"): 1}


@pytest.mark.parametrize("path", ["/metrics", "/monitoring/stats", "/monitoring/requests"])
@pytest.mark.parametrize("token", [True, False])
def test_whoever_may_not_read_gets_the_same_answer_everywhere(tmp_path: Path, path: str, token: bool) -> None:
    (tmp_path / "token").write_text("s3cret")
    app, _ = application(token_file=str(tmp_path / "token") if token else None)
    answer = call(app, path, variables={} if token else {"REMOTE_ADDR": "203.0.113.7"})
    status, message = ("401", "A token is needed") if token else ("403", "Your address may not")

    assert answer.status.startswith(status)
    assert json.loads(answer.body)["error"].startswith(message)
    assert dict(answer.headers)["Content-Type"] == "application/json"
