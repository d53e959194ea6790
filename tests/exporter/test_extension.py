"""What a user of prometheus_flask_exporter relies on, beyond what its own tests show."""

from __future__ import annotations

import logging
import site
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, Response, request
from flask.logging import default_handler
from flask.views import MethodView
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from prometheus_flask_exporter import PrometheusMetrics

from exporter import NO_PREFIX, FlaskExporter, request_id
from exporter.core import cores
from exporter.places import Kind
from tests.rig.wsgi import Raises, application, call, counted

RULE = "/orders/<int:number>"


def orders(name: str = "shop") -> Flask:
    """An application without an exporter."""
    app = Flask(name)
    app.add_url_rule("/orders/<int:number>", "show", lambda number: "x" * number)
    return app


def durations(exporter: FlaskExporter) -> dict[tuple[str, ...], float]:
    return counted(exporter, "flask_http_request_duration_seconds_count")


# Applications and registries


def test_it_is_the_parents_class() -> None:
    assert issubclass(FlaskExporter, PrometheusMetrics)


def test_several_applications_on_one_registry_share_the_families() -> None:
    """prometheus_flask_exporter gives the second one no metrics at all, silently."""
    registry = CollectorRegistry()
    exporter = FlaskExporter.for_app_factory(registry=registry)
    first, second, third = orders("first"), orders("second"), orders("third")
    exporter.init_app(first)
    page = exporter.core.metrics_page
    exporter.init_app(second)
    FlaskExporter(third, registry=registry)

    for app in (first, second, third):
        call(app, "/orders/7")

    assert exporter.core.metrics_page is page
    assert durations(exporter) == {("GET", RULE, "200"): 3}
    assert counted(exporter, "flask_http_request_duration_seconds_bucket")["GET", RULE, "200", "+Inf"] == 3
    assert call(first, "/metrics").body.count(b"# TYPE flask_http_request_total counter") == 1
    texts = [call(app, "/metrics").body.decode() for app in (first, second, third)]
    totals = [
        sample.value
        for text in texts
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "flask_http_request_total" and sample.labels["status"] == "200"
    ]
    assert totals == [3, 3, 3]


def test_applications_with_registries_of_their_own_do_not_mix() -> None:
    first, one = application()
    _, other = application()

    call(first, "/orders/7")

    assert durations(one) == {("GET", RULE, "200"): 1}
    assert durations(other) == {}


def test_the_default_registry_is_the_parents() -> None:
    assert FlaskExporter.for_app_factory().registry is REGISTRY


def test_an_exporter_without_an_application_takes_nothing_from_the_registry() -> None:
    registry = CollectorRegistry()

    FlaskExporter.for_app_factory(registry=registry)

    assert list(registry.collect()) == []


def test_one_application_twice_raises_and_says_what_to_do() -> None:
    app, exporter = application()

    with pytest.raises(RuntimeError, match=r"'measured' has a FlaskExporter already: use app\.extensions"):
        exporter.init_app(app)
    with pytest.raises(RuntimeError, match="call init_app once for each application"):
        FlaskExporter(app, registry=CollectorRegistry())
    assert app.extensions["flask_exporter"].exporter is exporter


@pytest.mark.parametrize("wrong", [Blueprint("pages", __name__), "orders", Flask])
def test_what_is_no_application_is_refused_with_the_remedy(wrong: Any) -> None:
    """The parent class takes a blueprint; whoever comes from there is told what to give."""
    with pytest.raises(TypeError, match="Flask"):
        FlaskExporter(wrong, registry=CollectorRegistry())


def test_an_installed_application_is_its_own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error or a wait in it is told at its own line, not at that of a view elsewhere."""
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path)])
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("installed_orders", "installed_library"):
        (tmp_path / f"{name}.py").write_text("def function(): pass")
    try:
        functions = [import_module(name).function for name in ("installed_orders", "installed_library")]
        exporter = FlaskExporter(Flask("installed_orders"), registry=CollectorRegistry())
        places = [exporter.core.places.of(one.__code__, one.__globals__) for one in functions]
    finally:
        for name in ("installed_orders", "installed_library"):
            sys.modules.pop(name, None)

    assert [place.kind for place in places] == [Kind.OWN, Kind.LIBRARY]


def test_other_labels_on_the_same_registry_raise_and_say_what_to_do() -> None:
    _, exporter = application()

    with pytest.raises(ValueError, match="give both applications the same group_by and default_labels"):
        FlaskExporter(orders(), registry=exporter.registry, group_by="endpoint")


def late(app: Flask, registry: CollectorRegistry) -> None:
    FlaskExporter(app, registry=registry, export_defaults=False).export_defaults()


@pytest.mark.parametrize(
    "measure",
    [
        lambda app, registry: FlaskExporter(app, registry=registry),
        lambda app, registry: FlaskExporter.for_app_factory(registry=registry).init_app(app),
        late,
    ],
)
def test_families_of_the_parent_on_the_registry_are_left_alone(
    measure: Callable[[Flask, CollectorRegistry], None],
) -> None:
    registry = CollectorRegistry()
    PrometheusMetrics(orders("theirs"), registry=registry)
    app = orders()

    with pytest.warns(UserWarning, match="give it a registry or an EXPORTER_PREFIX of its own") as warnings:
        measure(app, registry)
    places = [(one.filename, one.lineno) for one in warnings if one.category is UserWarning]
    assert places == [(__file__, measure.__code__.co_firstlineno + (measure is late))]
    assert call(app, "/orders/7").status == "200 OK"


def test_a_request_keeps_a_thread_busy() -> None:
    app, exporter = application()
    app.add_url_rule("/busy", "busy", lambda: str(counted(exporter, "flask_worker_threads_busy")))

    assert call(app, "/busy").body == b"{(): 1}"
    assert counted(exporter, "flask_worker_threads_busy") == {}


# Grouping, prefixes, labels


def test_the_group_is_the_rule_unless_told_otherwise() -> None:
    assert FlaskExporter.for_app_factory(registry=CollectorRegistry()).group_by == "url_rule"


def by_length(request: Any) -> int:
    return len(request.path)


@pytest.mark.parametrize(
    ("group_by", "label", "value"),
    [
        ("url_rule", "url_rule", RULE),
        ("path", "path", "/orders/7"),
        ("endpoint", "endpoint", "show"),
        ("full_path", "full_path", "/orders/7?"),
        ("blueprint", "blueprint", "None"),
        (by_length, "by_length", "9"),
    ],
)
def test_requests_are_grouped_by_any_attribute_or_function(group_by: Any, label: str, value: str) -> None:
    app, exporter = application(group_by=group_by)

    call(app, "/orders/7")
    call(app, "/orders/7")

    labels = {"method": "GET", label: value, "status": "200"}
    name = "flask_http_request_duration_seconds_count"
    assert exporter.registry.get_sample_value(name, labels) == 2
    assert exporter.registry.get_sample_value(
        "flask_http_request_duration_max_seconds", {label: value}
    ) == pytest.approx(0, abs=1)


def test_a_group_that_is_not_in_the_routing_map_is_known_as_such() -> None:
    """Paths are a client's invention, so the cap folds them; endpoints and rules stay."""
    app, exporter = application(group_by="path", max_series=10)

    for number in range(30):
        call(app, f"/orders/{number}")

    groups = {labels[1] for labels in durations(exporter)}
    assert groups == {f"/orders/{number}" for number in range(10)} | {"_other"}
    assert counted(exporter, "flask_exporter_series_dropped_total") == {(): 20}


@pytest.mark.parametrize(
    ("prefix", "name"), [(NO_PREFIX, "http_request_total"), ("shop", "shop_http_request_total")]
)
def test_the_prefix_of_the_request_families(prefix: str, name: str) -> None:
    app, exporter = application(defaults_prefix=prefix)

    call(app, "/orders/7")

    assert counted(exporter, name) == {("GET", "200"): 1}
    assert counted(exporter, name.replace("http_request_total", "exporter_info")) == {(exporter.version,): 1}
    assert counted(exporter, "flask_http_request_total") == {}
    assert call(app, "/monitoring/stats").status == "200 OK"


def test_default_labels_are_values_functions_and_functions_of_the_response() -> None:
    app, exporter = application(
        default_labels={
            "host": "a",
            "path": lambda: request.path,
            "size": lambda response: response.content_length,
        }
    )
    app.add_url_rule("/boom", "boom", lambda: str(1 / 0))

    call(app, "/orders/7")
    call(app, "/orders/12")
    call(app, "/boom")

    assert durations(exporter) == {
        ("GET", RULE, "200", "a", "/orders/7", "7"): 1,
        ("GET", RULE, "200", "a", "/orders/12", "12"): 1,
        ("GET", "/boom", "500", "a", "/boom", "265"): 1,
    }
    assert counted(exporter, "flask_http_request_total") == {
        ("GET", "200", "a", "/orders/7", "7"): 1,
        ("GET", "200", "a", "/orders/12", "12"): 1,
        ("GET", "500", "a", "/boom", "265"): 1,
    }
    assert set(counted(exporter, "flask_http_request_exceptions_total")) == {
        ("GET", "500", "a", "/boom", "265")
    }
    assert counted(exporter, "flask_exporter_failures_total") == {}


def test_default_labels_that_are_values_alone() -> None:
    app, exporter = application(default_labels={"host": "a"})

    call(app, "/orders/7")

    assert durations(exporter) == {("GET", RULE, "200", "a"): 1}


def test_default_labels_of_an_exception_that_leaves_the_application() -> None:
    """There is no response then; as in the parent it is a plain 500 that says `Exception`."""
    app, exporter = application(default_labels={"status_of": lambda response: response.status_code})
    app.config["PROPAGATE_EXCEPTIONS"] = True
    app.add_url_rule("/boom", "boom", lambda: str(1 / 0))

    assert isinstance(call(app, "/boom").error, ZeroDivisionError)
    assert durations(exporter) == {("GET", "/boom", "500", "500"): 1}
    assert counted(exporter, "flask_http_request_exceptions_total") == {("GET", "500", "500"): 1}


def test_default_labels_that_nobody_can_tell_are_empty() -> None:
    """A connection that was taken over has neither request nor response."""
    app, exporter = application(
        wrap=lambda _: lambda *_: [], default_labels={"size": lambda response: response.content_length}
    )

    call(app, "/orders/7", variables={"HTTP_UPGRADE": "websocket"})

    assert counted(exporter, "flask_http_request_total") == {("GET", "101", ""): 1}


@pytest.mark.parametrize("excluded", ["/orders", ["/nothing", "/orders/[0-9]"], "/.*7$"])
def test_excluded_paths_are_not_measured(excluded: str | list[str]) -> None:
    app, exporter = application(excluded_paths=excluded)

    assert call(app, "/orders/7").body == b"xxxxxxx"
    call(app, "/elsewhere")

    assert durations(exporter) == {("GET", "_unmatched", "404"): 1}
    assert [one.path for one in exporter.core.flight_recorder.read()] == ["/elsewhere"]


def test_excluded_paths_are_paths_as_flask_reads_them() -> None:
    app, exporter = application(excluded_paths="/büro")

    call(app, "/büro/7")

    assert durations(exporter) == {}


# Decorators, views, blueprints


def test_do_not_track_hides_a_request_from_everything_but_its_own_decorators() -> None:
    app, exporter = application()

    @app.get("/quiet")
    @exporter.do_not_track()
    @exporter.counter("calls", "Calls")
    def quiet() -> str:
        return "quiet"

    @app.get("/boom")
    @exporter.do_not_track()
    def boom() -> str:
        raise ValueError

    call(app, "/quiet")
    call(app, "/boom")

    assert counted(exporter, "calls_total") == {(): 1}
    for family in (
        "request_total",
        "request_errors_total",
        "request_exceptions_total",
        "requests_in_progress",
    ):
        assert counted(exporter, f"flask_http_{family}") == {}
    assert exporter.core.flight_recorder.read() == []


def test_exclude_all_metrics_hides_a_request_from_its_decorators_too() -> None:
    app, exporter = application()

    @app.get("/quiet")
    @exporter.counter("calls", "Calls")
    @exporter.exclude_all_metrics()
    def quiet() -> str:
        return "quiet"

    call(app, "/quiet")

    assert counted(exporter, "calls_total") == {}
    assert durations(exporter) == {}


@pytest.mark.parametrize("decorator", ["do_not_track", "exclude_all_metrics"])
def test_a_rule_may_hide_some_of_its_requests(decorator: str) -> None:
    app, exporter = application()
    hidden = getattr(exporter, decorator)()(lambda: "hidden")
    app.add_url_rule("/some", "some", lambda: hidden() if request.args else "shown")

    for path in ("/some", "/some?hide=1", "/some"):
        call(app, path)

    assert durations(exporter) == {("GET", "/some", "200"): 2}


@pytest.mark.parametrize(
    ("decorators", "calls"),
    [
        (("counter",), 1),
        (("do_not_track",), 0),
        (("exclude_all_metrics",), 0),
        (("counter", "do_not_track"), 1),
        (("do_not_track", "counter"), 1),
        (("counter", "exclude_all_metrics"), 0),
        (("do_not_track", "exclude_all_metrics"), 0),
    ],
)
@pytest.mark.parametrize("excluded", [None, "/item"])
def test_decorators_take_async_views(decorators: tuple[str, ...], calls: int, excluded: str | None) -> None:
    app, exporter = application(excluded_paths=excluded)

    async def item() -> str:
        return "item"

    view: Any = item
    for name in reversed(decorators):
        decorator = exporter.counter("calls", "Calls") if name == "counter" else getattr(exporter, name)()
        view = decorator(view)
    app.add_url_rule("/item", "item", view)

    assert call(app, "/item").body == b"item"
    assert counted(exporter, "calls_total").get((), 0) == (0 if excluded else calls)


def test_an_async_view_stays_one_for_the_decorators_above() -> None:
    app, exporter = application()

    def outer(view: Any) -> Any:
        async def awaiting() -> str:
            return f"outer {await view()}"

        return awaiting

    @app.get("/item")
    @outer
    @exporter.do_not_track()
    @exporter.exclude_all_metrics()
    async def item() -> str:
        return "item"

    assert call(app, "/item").body == b"outer item"
    assert durations(exporter) == {}


def test_decorators_label_by_value_request_and_response() -> None:
    app, exporter = application()
    by_status = {"status": lambda response: response.status_code, "method": lambda: request.method}

    @app.route("/item/<kind>", methods=["GET", "POST"])
    @exporter.counter("items", "Items", labels={**by_status, "shop": "north"})
    @exporter.histogram("items_seconds", "Seconds", labels=by_status, buckets=(1, 2))
    @exporter.summary("items_summary", "Seconds", labels=by_status)
    @exporter.gauge("items_now", "Now", labels={"kind": lambda: request.view_args["kind"]})  # type: ignore[index]
    def item(kind: str) -> tuple[str, int]:
        assert exporter.registry.get_sample_value("items_now", {"kind": kind}) == 1
        return kind, 202

    call(app, "/item/tea")
    call(app, "/item/tea", "POST")

    assert counted(exporter, "items_total") == {("202", "GET", "north"): 1, ("202", "POST", "north"): 1}
    assert counted(exporter, "items_seconds_count") == {("202", "GET"): 1, ("202", "POST"): 1}
    assert counted(exporter, "items_summary_count") == {("202", "GET"): 1, ("202", "POST"): 1}
    assert counted(exporter, "items_now") == {}


def test_a_label_of_a_decorator_that_no_encoding_can_write_breaks_no_scrape() -> None:
    app, exporter = application()

    @app.post("/item")
    @exporter.counter("items", "Items", labels={"kind": lambda: request.json["kind"]})
    def item() -> str:
        return "item"

    app.test_client().post("/item", json={"kind": "\ud800"})

    assert counted(exporter, "items_total") == {("\ufffd",): 1}
    assert call(app, "/metrics").status == "200 OK"


def test_blueprints_and_method_views_are_measured_and_can_be_decorated() -> None:
    app, exporter = application()
    shop = Blueprint("shop", __name__)

    class Basket(MethodView):
        decorators = [exporter.counter("baskets", "Baskets", labels={"method": lambda: request.method})]  # noqa: RUF012

        def get(self) -> str:
            return "basket"

        def put(self) -> tuple[str, int]:
            return "filled", 201

    shop.add_url_rule("/basket", view_func=Basket.as_view("basket"))
    app.register_blueprint(shop, url_prefix="/shop")

    call(app, "/shop/basket")
    call(app, "/shop/basket", "PUT")

    assert durations(exporter) == {("GET", "/shop/basket", "200"): 1, ("PUT", "/shop/basket", "201"): 1}
    assert counted(exporter, "baskets_total") == {("GET",): 1, ("PUT",): 1}


def test_register_default_decorates_every_endpoint() -> None:
    app, exporter = application()
    exporter.register_default(exporter.counter("by_path", "By path", labels={"path": lambda: request.path}))

    call(app, "/orders/7")
    call(app, "/orders/8")

    assert counted(exporter, "by_path_total") == {("/orders/7",): 1, ("/orders/8",): 1}


def test_info_is_a_gauge_of_one() -> None:
    _, exporter = application()

    exporter.info("build_info", "Build", revision="abc", number=7)

    assert counted(exporter, "build_info") == {("abc", "7"): 1}


# The endpoint


def test_the_metrics_decorator_guards_the_endpoint() -> None:
    def closed(view: Callable[[], Any]) -> Callable[[], Any]:
        def refuse() -> Response:
            assert view.__name__ == "prometheus_metrics"
            return Response("closed", 401)

        return refuse

    app, _ = application(metrics_decorator=closed)

    assert call(app, "/metrics").status == "401 UNAUTHORIZED"


def test_the_path_can_be_moved_or_turned_off() -> None:
    app, _ = application(path="/internal/metrics")
    assert call(app, "/internal/metrics").status == "200 OK"
    assert call(app, "/metrics").status == "404 NOT FOUND"

    app, _ = application(path=None)
    assert call(app, "/metrics").status == "404 NOT FOUND"


def test_another_endpoint_is_no_traffic_either() -> None:
    app, exporter = application(path=None)
    exporter.register_endpoint("/second", app)

    assert call(app, "/second").status == "200 OK"
    assert counted(exporter, "flask_http_request_total") == {}


def test_names_choose_families() -> None:
    app, _ = application()
    call(app, "/orders/7")

    text = call(
        app, "/metrics", variables={"QUERY_STRING": "name[]=flask_http_request_total&name[]=flask_app_info"}
    ).body.decode()

    assert {family.name for family in text_string_to_metric_families(text)} == {
        "flask_http_request",
        "flask_app_info",
    }


def test_generate_metrics_gives_text_and_content_type() -> None:
    app, exporter = application()
    call(app, "/orders/7")

    text, content_type = exporter.generate_metrics(names=["flask_http_request_total"])
    assert 'flask_http_request_total{method="GET",status="200"} 1.0' in text.splitlines()
    assert content_type.startswith("text/plain")
    text, content_type = exporter.generate_metrics("application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    assert content_type.startswith("application/openmetrics-text")


def test_it_serves_metrics_in_debug_mode_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """prometheus_flask_exporter leaves the endpoint out under the reloader."""
    monkeypatch.setenv("WERKZEUG_RUN_MAIN", "true")
    app, _ = application()

    assert call(app, "/metrics").status == "200 OK"


def test_a_failing_scrape_says_why_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    app, exporter = application()

    def broken(*_: Any) -> Any:
        raise OSError("no such directory")

    with monkeypatch.context() as patched:
        patched.setattr(exporter.core.exposition, "render", broken)
        answer = call(app, "/metrics")

    assert answer.status == "500 INTERNAL SERVER ERROR"
    assert answer.body == b"The metrics cannot be read: no such directory\n"
    assert counted(exporter, "flask_exporter_failures_total") == {("scrape",): 1}


# export_defaults


def test_defaults_can_be_exported_late_with_the_constructors_group() -> None:
    app, exporter = application(export_defaults=False, group_by="endpoint")
    exporter.export_defaults()

    call(app, "/orders/7")

    assert durations(exporter) == {("GET", "show", "200"): 1}
    assert counted(exporter, "flask_http_request_duration_seconds_bucket")["GET", "show", "200", "+Inf"] == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("EXPORTER_BUCKET", "1"), ("EXPORTER_BUCKETS", "100,500"), ("PROMETHEUS_MULTIPROC_DIR", "/too/late")],
)
def test_a_warning_about_a_setting_points_to_the_application(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.warns(UserWarning, match=name) as warnings:
        FlaskExporter(Flask("shop"), registry=CollectorRegistry())
    assert {one.filename for one in warnings if one.category is UserWarning} == {__file__}


def test_the_old_argument_for_endpoints_is_a_warning_at_its_place() -> None:
    app, exporter = application(export_defaults=False)
    with pytest.warns(DeprecationWarning, match="please use the new `group_by` argument") as warnings:
        exporter.export_defaults(group_by_endpoint=True)
    call(app, "/orders/7")

    assert [warning.filename for warning in warnings] == [__file__]
    assert durations(exporter) == {("GET", "show", "200"): 1}


def test_defaults_exported_twice_count_once() -> None:
    app, exporter = application()
    exporter.export_defaults()
    exporter.export_defaults(group_by="path")

    call(app, "/orders/7")

    assert durations(exporter) == {("GET", RULE, "200"): 1}


def test_defaults_under_a_second_prefix_are_the_same_requests() -> None:
    """They are recorded once."""
    app, exporter = application()
    exporter.export_defaults(prefix="second")

    call(app, "/orders/7")

    assert counted(exporter, "second_http_request_total") == {("GET", "200"): 1}
    assert durations(exporter) == {("GET", RULE, "200"): 1}
    assert len(exporter.core.flight_recorder.read()) == 1


def test_defaults_of_an_application_in_its_context() -> None:
    app = orders()
    exporter = FlaskExporter.for_app_factory(registry=CollectorRegistry())
    with app.app_context():
        exporter.export_defaults(prefix="late")
        exporter.register_endpoint("/late")
    app.add_url_rule("/boom", "boom", lambda: str(1 / 0))

    call(app, "/orders/7")
    call(app, "/boom")

    assert counted(exporter, "late_http_request_total") == {("GET", "200"): 1, ("GET", "500"): 1}
    assert counted(exporter, "late_http_request_exceptions_total") == {("GET", "500"): 1}
    assert call(app, "/late").status == "200 OK"


def test_without_defaults_nothing_is_measured_but_what_the_user_declares() -> None:
    app, exporter = application(export_defaults=False)
    app.add_url_rule("/item", "item", exporter.counter("items", "Items")(lambda: "item"))

    call(app, "/item")

    assert counted(exporter, "items_total") == {(): 1}
    assert not any("http_request" in family.name for family in exporter.registry.collect())
    assert call(app, "/metrics").status == "200 OK"
    assert call(app, "/health").status == "200 OK"
    assert call(app, "/monitoring/stats").status == "200 OK"


def test_without_defaults_the_application_keeps_its_own_error_handling() -> None:
    """No hook is there for requests that nobody measures; a late `export_defaults()` puts it there."""
    handling = Flask.handle_user_exception
    app, exporter = application(export_defaults=False)
    call(app, "/orders/7")

    assert app.handle_user_exception.__func__ is handling  # type: ignore[attr-defined]
    exporter.export_defaults()
    assert app.handle_user_exception.__func__ is not handling  # type: ignore[attr-defined]


@pytest.mark.parametrize("export", [True, False])
def test_processes_that_end_with_their_request_are_never_silently_wrong(export: bool) -> None:
    app, _ = application(export_defaults=export)

    answer = call(app, "/metrics", variables={"wsgi.run_once": True})

    assert answer.status == "500 INTERNAL SERVER ERROR"
    assert b"set PROMETHEUS_MULTIPROC_DIR to a directory" in answer.body


@pytest.mark.parametrize("export", [True, False])
def test_a_server_that_says_there_may_be_several_processes_proves_nothing(export: bool) -> None:
    app, _ = application(export_defaults=export)
    call(app, "/orders/7", variables={"wsgi.multiprocess": True})

    assert call(app, "/metrics", variables={"wsgi.multiprocess": True}).status == "200 OK"


def test_peers_that_nobody_can_look_for_are_a_failure_and_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    app, exporter = application()
    monkeypatch.setattr("exporter.worker.peers.Peers.join", Raises(PermissionError()))

    assert call(app, "/orders/7").status == "200 OK"
    assert durations(exporter) == {("GET", RULE, "200"): 1}
    assert counted(exporter, "flask_exporter_failures_total") == {("middleware",): 1}
    assert call(app, "/metrics").status == "200 OK"


def test_peers_that_nobody_can_ask_are_a_failure_and_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    app, exporter = application()
    call(app, "/orders/7")
    monkeypatch.setattr("exporter.worker.peers.Peers.present", Raises(PermissionError()))

    assert call(app, "/metrics").status == "200 OK"
    assert counted(exporter, "flask_exporter_failures_total") == {("scrape",): 1}


def test_a_beginning_that_fails_costs_an_unmeasured_application_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, exporter = application(export_defaults=False)
    monkeypatch.setattr("exporter.worker.peers.Peers.join", Raises())

    assert call(app, "/orders/7").body == b"xxxxxxx"
    assert counted(exporter, "flask_exporter_failures_total") == {("middleware",): 1}


def test_the_hooks_of_servers_know_the_application_as_measured() -> None:
    _, exporter = application()

    assert exporter.core in cores


def test_an_import_that_fails_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python turns an AttributeError into "cannot import name 'FlaskExporter'", and nobody sees the cause."""
    monkeypatch.setattr("exporter.import_module", Raises(AttributeError("module 'os' has no attribute 'x'")))

    with pytest.raises(ImportError, match=r"exporter\.extension cannot be imported: module 'os' has no"):
        from exporter import FlaskExporter  # noqa: F401


def test_the_host_keeps_its_logging() -> None:
    """Nothing is added to the root logger, so `logging.basicConfig()` still does something."""
    before = list(logging.getLogger().handlers)

    application()

    assert logging.getLogger().handlers == before


@pytest.mark.parametrize(
    ("own", "level"), [(logging.NOTSET, logging.WARNING), (logging.ERROR, logging.ERROR)]
)
def test_flask_s_plain_lines_end_where_the_request_log_begins(own: int, level: int, tmp_path: Path) -> None:
    """They could be forged with a line feed in a path. A level that the application has set stays."""
    app = orders(f"plain-{own}")
    app.logger.addHandler(default_handler)
    app.logger.setLevel(own)
    log = str(tmp_path / "requests.log")
    exporter = FlaskExporter(app, registry=CollectorRegistry(), request_log=log, log_level="warning")
    exporter.core.request_log.close()

    assert app.logger.handlers == []
    assert app.logger.level == level


def test_a_view_knows_the_id_of_its_request() -> None:
    app, _ = application()
    app.add_url_rule("/id", "id", lambda: request_id())
    answer = call(app, "/id")

    assert answer.body.decode() == dict(answer.headers)["X-Request-ID"]
