"""Test suites empty or clear a registry between two tests; each then sees its own application's counts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, Counter

from exporter import FlaskExporter
from tests.rig.clientmodel import families, labels_of, native_buckets
from tests.rig.wsgi import call, counted

PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
Empty = Callable[[CollectorRegistry], None]


def unregister_all(registry: CollectorRegistry) -> None:
    for collector in list(registry._collector_to_names):
        registry.unregister(collector)


def unregister_ours(registry: CollectorRegistry) -> None:
    for name, collector in list(registry._names_to_collectors.items()):
        if name.startswith("flask_http") and collector in registry._collector_to_names:
            registry.unregister(collector)


def unregister_one(registry: CollectorRegistry) -> None:
    registry.unregister(registry._names_to_collectors["flask_exporter_info"])


def forget_all(registry: CollectorRegistry) -> None:
    registry._collector_to_names.clear()
    registry._names_to_collectors.clear()


def clear_all(registry: CollectorRegistry) -> None:
    for collector in list(registry._collector_to_names):
        if hasattr(collector, "clear"):
            with suppress(AttributeError):  # the oldest prometheus_client clears no metric without labels
                collector.clear()


def remove_each(registry: CollectorRegistry) -> None:
    for collector in list(registry._collector_to_names):
        for labels in list(getattr(collector, "_metrics", ())):
            collector.remove(*labels)  # type: ignore[attr-defined]


def clear_children(registry: CollectorRegistry) -> None:
    for collector in list(registry._collector_to_names):
        getattr(collector, "_metrics", {}).clear()


def measured(exporter: FlaskExporter) -> Flask:
    app = Flask("orders")
    app.add_url_rule("/orders", "orders", lambda: "orders")
    exporter.init_app(app)
    return app


def is_measured(app: Flask, exporter: FlaskExporter) -> None:
    """Three requests are exactly three, in every family, on the page and in the registry."""
    for _ in range(2):
        call(app, "/orders")
    call(app, "/nowhere")

    assert counted(exporter, "flask_http_request_total") == {("GET", "200"): 2, ("GET", "404"): 1}
    assert counted(exporter, "flask_http_request_duration_seconds_count") == {
        ("GET", "/orders", "200"): 2,
        ("GET", "_unmatched", "404"): 1,
    }
    assert counted(exporter, "flask_http_response_size_bytes_sum")[("GET", "/orders")] == 12
    assert counted(exporter, "flask_http_request_errors_total") == {
        ("GET", "_unmatched", "404", "NotFound"): 1
    }
    assert 'flask_http_request_total{method="GET",status="200"} 2.0' in call(app, "/metrics").body.decode()
    assert counted(exporter, "flask_exporter_failures_total") == {}


EMPTY = [unregister_all, unregister_ours, unregister_one, forget_all]
CLEAR = [clear_all, remove_each]


@pytest.mark.parametrize("between", [*EMPTY, *CLEAR, clear_children])
@pytest.mark.parametrize("shared", [False, True])
def test_each_new_application_has_its_own_counts(between: Empty, shared: bool) -> None:
    registry = CollectorRegistry()
    exporter = FlaskExporter.for_app_factory(registry=registry)
    for _ in range(3):
        is_measured(measured(exporter), exporter)
        between(registry)
        if not shared:
            exporter = FlaskExporter.for_app_factory(registry=registry)


@pytest.mark.parametrize("between", CLEAR)
def test_an_application_that_lives_on_is_measured_after_a_clearing(between: Empty) -> None:
    exporter = FlaskExporter.for_app_factory(registry=CollectorRegistry())
    app = measured(exporter)
    for _ in range(3):
        is_measured(app, exporter)
        between(exporter.registry)


def fail() -> str:
    raise ValueError


@pytest.mark.parametrize("between", CLEAR)
def test_a_clearing_makes_room_below_the_cap(between: Empty) -> None:
    """Series that are gone count no longer, in any family; nor do the native buckets of those that return."""
    exporter = FlaskExporter.for_app_factory(registry=CollectorRegistry(), max_series=10, slow=1e-9)
    app = measured(exporter)
    for number in range(20):
        app.add_url_rule(f"/{number}", f"view{number}", fail)
    for number in range(15):
        call(app, f"/{number}")
    between(exporter.registry)
    call(app, "/19")
    call(app, "/0")

    where = f"{__name__}:fail"
    assert counted(exporter, "flask_http_request_errors_total") == {
        ("GET", rule, "500", "ValueError"): 1 for rule in ("/19", "/0")
    }
    assert set(counted(exporter, "flask_http_request_slow_seconds_total")) == {("/19", where), ("/0", where)}
    groups = counted(exporter, "flask_http_request_error_group_total")
    assert [names[1:] for names in groups] == [("ValueError", where)] * 2
    body = call(app, "/metrics", variables={"HTTP_ACCEPT": PROTOBUF}).body
    (durations,) = (family for family in families(body) if family.name.endswith("_duration_seconds"))
    assert {
        labels_of(metric)["url_rule"]: sum(native_buckets(metric.histogram).values())
        for metric in durations.metric
    } == {
        "/19": 1,
        "/0": 1,
    }


def test_metrics_of_the_user_come_back_too() -> None:
    exporter = FlaskExporter.for_app_factory(registry=CollectorRegistry())

    def create_app() -> Flask:
        app = measured(exporter)
        view: Any = exporter.counter("calls", "Calls", labels={"shop": "north"})(lambda: "call")
        app.add_url_rule("/call", "call", view)
        return app

    for _ in range(2):
        call(create_app(), "/call")

        assert counted(exporter, "calls_total") == {("north",): 1}
        unregister_all(exporter.registry)


def test_a_name_that_somebody_else_took_meanwhile_is_an_error() -> None:
    registry = CollectorRegistry()
    measured(FlaskExporter.for_app_factory(registry=registry))
    unregister_all(registry)
    Counter("flask_log_messages", "mine", registry=registry)

    with pytest.raises(ValueError, match="flask_log_messages"):
        measured(FlaskExporter.for_app_factory(registry=registry))
