"""The metric table: every family with its type and labels, what exists at 0, and what a recorder adds."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from exporter import FlaskExporter
from tests.rig.users import as_child
from tests.rig.wsgi import Clock, Counts, application, call, counted, exposition

RULE = "/orders/<int:number>"
REQUEST = {"method", "url_rule", "status"}

# Family: type, labels. The names are those of the text format, in which counters have their suffix.
TABLE: dict[str, tuple[str, set[str]]] = {
    "flask_http_request_duration_seconds": ("histogram", REQUEST),
    "flask_http_request_total": ("counter", {"method", "status"}),
    "flask_http_request_exceptions_total": ("counter", {"method", "status"}),
    "flask_http_request_errors_total": ("counter", REQUEST | {"error_type"}),
    "flask_http_request_error_group_total": ("counter", {"error_group", "error_type", "where"}),
    "flask_http_requests_in_progress": ("gauge", set()),
    "flask_http_request_oldest_seconds": ("gauge", {"url_rule", "worker"}),
    "flask_http_requests_lost_total": ("counter", {"url_rule", "cause"}),
    "flask_http_request_duration_max_seconds": ("gauge", {"url_rule"}),
    "flask_http_request_duration_min_seconds": ("gauge", {"url_rule"}),
    "flask_http_request_size_bytes": ("histogram", {"method", "url_rule"}),
    "flask_http_response_size_bytes": ("histogram", {"method", "url_rule"}),
    "flask_http_request_queue_seconds": ("histogram", set()),
    "flask_http_request_slow_seconds_total": ("counter", {"url_rule", "where"}),
    "flask_http_client_disconnects_total": ("counter", {"url_rule"}),
    "flask_log_messages_total": ("counter", {"level"}),
    "flask_health_check_up": ("gauge", {"check"}),
    "flask_worker_threads": ("gauge", set()),
    "flask_worker_threads_busy": ("gauge", set()),
    "flask_worker_resident_memory_bytes": ("gauge", set()),
    "flask_worker_cpu_seconds_total": ("counter", set()),
    "flask_worker_gc_seconds_total": ("counter", set()),
    "flask_worker_starts_total": ("counter", set()),
    "flask_worker_deaths_total": ("counter", {"cause"}),
    "flask_app_info": ("gauge", {"version"}),
    "flask_exporter_info": ("gauge", {"version"}),
    "flask_exporter_mode": ("gauge", {"mode"}),
    "flask_exporter_series_dropped_total": ("counter", set()),
    "flask_exporter_worker_files": ("gauge", {"state"}),
    "flask_exporter_scrape_seconds": ("histogram", set()),
    "flask_exporter_failures_total": ("counter", {"stage"}),
}
LABELS = ("method", "url_rule", "status", "stage", "level", "state")
STAGES = {
    "middleware", "labels", "instruments", "slots", "recent", "deaths", "slow", "worker_file", "error_groups",
    "request_log", "scrape", "fold", "health",
}  # fmt: skip


def test_every_family_of_the_table_has_its_type_and_labels() -> None:
    """And there is no other: names are a contract with rules and dashboards."""
    found = families(exposition())

    assert found == TABLE


def test_the_families_are_the_same_with_worker_files(tmp_path: Path) -> None:
    """They are merged from the workers' files, where a gauge has no pid and a counter no other type."""
    script = "from tests.rig.wsgi import exposition; print(exposition(), end='')"
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )

    assert families(done.stdout) == TABLE


def families(text: str) -> dict[str, tuple[str, set[str]]]:
    """Type and label names of each family; `_created` ones are the client library's."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            {name for sample in family.samples for name in sample.labels} - {"le"},
        )
        for family in plain(text)
        if not family.name.endswith("_created")
    }


def test_both_formats_are_well_formed_and_say_the_same() -> None:
    app, _ = application()
    call(app, "/orders/7")
    accept = {"HTTP_ACCEPT": "application/openmetrics-text; version=1.0.0"}

    modern = call(app, "/metrics", variables=accept).body.decode()
    text = call(app, "/metrics").body.decode()

    assert modern.endswith("# EOF\n")
    found = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in openmetrics(modern)  # type: ignore[no-untyped-call]
    }
    assert found == families(text).keys()


def test_what_is_true_of_a_process_is_1() -> None:
    _, exporter = application(app_version="1.4")

    assert counted(exporter, "flask_app_info") == {("1.4",): 1}
    assert counted(exporter, "flask_exporter_mode") == {("single",): 1}


def test_what_a_burst_needs_exists_at_zero() -> None:
    """GET/200 and GET/500 of each rule, the first method of others, every stage, level, state."""
    app, exporter = application()
    app.add_url_rule("/upload", "upload", lambda: "", methods=["POST", "PUT"])

    text = call(app, "/metrics").body.decode()
    assert counted(exporter, "flask_http_request_total") == {}

    samples = {family.name: family.samples for family in plain(text)}

    def values(family: str, sample: str) -> dict[tuple[str, ...], float]:
        return {
            tuple(one.labels[name] for name in LABELS if name in one.labels): one.value
            for one in samples[family]
            if one.name == sample
        }

    durations = values("flask_http_request_duration_seconds", "flask_http_request_duration_seconds_count")
    assert durations == {
        (method, rule, status): 0
        for method, rule in (
            ("GET", RULE),
            ("GET", "/static/<path:filename>"),
            ("POST", "/upload"),
            ("PUT", "/upload"),
        )
        for status in ("200", "500")
    }
    totals = values("flask_http_request", "flask_http_request_total")
    assert totals == {(method, status): 0 for method in ("GET", "POST", "PUT") for status in ("200", "500")}
    failures = values("flask_exporter_failures", "flask_exporter_failures_total")
    assert failures == dict.fromkeys([(stage,) for stage in STAGES], 0)
    levels = values("flask_log_messages", "flask_log_messages_total")
    assert levels.keys() == {("DEBUG",), ("INFO",), ("WARNING",), ("ERROR",), ("CRITICAL",)}
    assert values("flask_exporter_worker_files", "flask_exporter_worker_files") == {
        ("live",): 0,
        ("archive",): 0,
        ("corrupt",): 0,
    }
    for name in ("requests_in_progress", "request_queue_seconds_count"):
        assert exporter.registry.get_sample_value(f"flask_http_{name}") == 0
    assert exporter.registry.get_sample_value("flask_exporter_series_dropped_total") == 0


def test_the_buckets_are_the_librarys_and_contain_the_objective() -> None:
    app, exporter = application()
    call(app, "/orders/7")

    bounds = [
        float(sample.labels["le"])
        for family in exporter.registry.collect()
        for sample in family.samples
        if sample.name == "flask_http_request_duration_seconds_bucket"
        and sample.labels["url_rule"] == RULE
        and sample.labels["status"] == "200"
    ]
    assert bounds == [
        0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, math.inf
    ]  # fmt: skip


@pytest.mark.parametrize("seconds", [0.0, 0.005, 0.0051, 0.5, 10.0, 10.5])
def test_a_duration_falls_into_the_bucket_that_ends_at_it(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    clock.now = 0.0
    app, exporter = application()
    app.add_url_rule("/slow", "slow", lambda: clock.advance(seconds))

    call(app, "/slow")

    buckets = counted(exporter, "flask_http_request_duration_seconds_bucket")
    assert {float(labels[-1]) for labels in buckets} == {
        bound for bound in exporter.settings.buckets if seconds <= bound
    }
    assert set(buckets.values()) == {1}


def test_a_summary_has_sum_and_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    app, exporter = application(default_latency_as_histogram=False)
    app.add_url_rule("/slow", "slow", lambda: clock.advance(0.25))

    call(app, "/slow")
    call(app, "/slow")

    name = "flask_http_request_duration_seconds"
    assert counted(exporter, f"{name}_sum") == {("GET", "/slow", "200"): 0.5}
    assert counted(exporter, f"{name}_count") == {("GET", "/slow", "200"): 2}
    assert counted(exporter, f"{name}_bucket") == {}
    lines = call(app, "/metrics").body.decode().splitlines()
    labels = 'method="GET",status="200",url_rule="/slow"'
    assert {f"{name}_count{{{labels}}} 2.0", f"{name}_sum{{{labels}}} 0.5"} <= {*lines}


def test_the_minimum_and_maximum_of_the_last_minute_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    app, exporter = application()
    app.add_url_rule("/<float:seconds>", "slow", lambda seconds: clock.advance(seconds))

    def extremes() -> tuple[float | None, float | None]:
        labels = {"url_rule": "/<float:seconds>"}
        value = exporter.registry.get_sample_value
        return (
            value("flask_http_request_duration_min_seconds", labels),
            value("flask_http_request_duration_max_seconds", labels),
        )

    clock.now = 1000.0
    call(app, "/0.5")
    call(app, "/0.125")
    call(app, "/0.25")
    assert extremes() == (0.125, 0.5)

    clock.now = 1030.0
    call(app, "/0.375")
    assert extremes() == (0.125, 0.5)

    clock.now = 1059.9
    assert extremes() == (0.125, 0.5)
    clock.now = 1061.0
    assert extremes() == (0.375, 0.375)
    clock.now = 1090.0
    assert extremes() == (None, None)


def test_a_slot_of_an_earlier_minute_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 60 slots are used again: what they hold of a minute ago must not add to the new second."""
    clock = Clock(monkeypatch)
    app, exporter = application()
    app.add_url_rule("/boom", "boom", lambda: str(1 / 0))

    for _ in range(3):
        call(app, "/boom")
    assert exporter.core.worker.slots.totals(clock.now) == (3, 3)

    clock.advance(60)
    assert exporter.core.worker.slots.totals(clock.now) == (0, 0)
    call(app, "/orders/7")
    assert exporter.core.worker.slots.totals(clock.now) == (1, 0)


def test_the_parents_metrics_alone_can_be_had() -> None:
    app, exporter = application(extended=False, monitoring_path="off", health_path="off")

    answer = call(app, "/orders/7")
    call(app, "/nowhere")

    assert "X-Request-ID" not in dict(answer.headers)
    assert {name for name in families(call(app, "/metrics").body.decode()) if "http" in name} == {
        "flask_http_request_duration_seconds",
        "flask_http_request_total",
        "flask_http_request_exceptions_total",
    }
    assert counted(exporter, "flask_http_request_total") == {("GET", "200"): 1, ("GET", "404"): 1}


def test_two_prefixes_on_one_application_each_count_each_request_once() -> None:
    app = Flask("measured")
    exporter = FlaskExporter(app, registry=CollectorRegistry(), defaults_prefix="one")
    exporter.export_defaults(prefix="two")

    @app.errorhandler(KeyError)
    def explain(_: KeyError) -> tuple[str, int]:
        return "no", 400

    @app.get("/<kind>")
    def view(kind: str) -> str:
        if kind == "handled":
            raise KeyError(kind)
        return str(1 / len(kind.removeprefix("unhandled")))

    for kind in ("ok", "handled", "unhandled"):
        call(app, f"/{kind}")

    for prefix in ("one", "two"):
        assert counted(exporter, f"{prefix}_http_request_total") == {
            ("GET", "200"): 1,
            ("GET", "400"): 1,
            ("GET", "500"): 1,
        }
        assert counted(exporter, f"{prefix}_http_request_errors_total") == {
            ("GET", "/<kind>", "400", "KeyError"): 1,
            ("GET", "/<kind>", "500", "ZeroDivisionError"): 1,
        }
        assert counted(exporter, f"{prefix}_http_request_exceptions_total") == {("GET", "500"): 1}
        assert counted(exporter, f"{prefix}_http_requests_in_progress") == {}
    assert counted(exporter, "flask_worker_threads_busy") == {}
    assert len(exporter.core.flight_recorder.read()) == 3
    assert exporter.core.window() == (3, 1)


@pytest.mark.parametrize("rules", [3, 50, 300])
def test_series_before_the_first_request_have_a_budget(rules: int) -> None:
    """Those of 50 rules, which are some 3,000; the rest begin with their first request."""
    app = Flask("large", static_folder=None)
    for number in range(rules):
        app.add_url_rule(f"/rule/{number}", f"rule{number}", lambda: "")
    exporter = FlaskExporter(app, registry=CollectorRegistry())
    call(app, "/metrics")
    samples = [sample for family in exporter.registry.collect() for sample in family.samples]
    counts = {
        (sample.labels["url_rule"], sample.labels["status"])
        for sample in samples
        if sample.name == "flask_http_request_duration_seconds_count"
    }

    assert len(counts) == 2 * min(rules, 50)
    assert len(samples) < 3_200
    call(app, f"/rule/{rules - 1}")
    assert counted(exporter, "flask_http_request_duration_seconds_count") == {
        ("GET", f"/rule/{rules - 1}", "200"): 1
    }


@pytest.mark.parametrize(("cap", "series"), [(10, 5), (31, 15), (10_000, 100)])
def test_half_of_the_cap_is_free_at_the_first_request(cap: int, series: int) -> None:
    app = Flask("large", static_folder=None)
    for number in range(60):
        app.add_url_rule(f"/rule/{number}", f"rule{number}", lambda: "")
    exporter = FlaskExporter(app, registry=CollectorRegistry(), max_series=cap)
    call(app, "/metrics")
    name = "flask_http_request_duration_seconds_count"

    found = [one for family in exporter.registry.collect() for one in family.samples if one.name == name]
    assert len(found) == series


@pytest.mark.parametrize("extended", [True, False])
def test_after_a_clearing_what_comes_first_has_the_places_below_the_cap(extended: bool) -> None:
    """And the rest is counted together again."""
    app, exporter = application(max_series=10, extended=extended, flask={"static_folder": None})
    app.add_url_rule("/<int:code>", "answer", lambda code: ("", code))
    counts = []
    for paths in ["orders/7", "orders/7", *range(400, 415)], [*range(414, 399, -1), "orders/7"]:
        for path in paths:
            call(app, f"/{path}")
        counts.append(Counts(exporter))
        for collector in list(exporter.registry._collector_to_names):
            if hasattr(collector, "clear"):
                with suppress(AttributeError):  # the oldest prometheus_client clears none without labels
                    collector.clear()

    first, second = counts
    # Two statuses of each rule exist from the beginning.
    assert first.durations == {
        ("GET", RULE, "200"): 2,
        **{("GET", "/<int:code>", f"{code}"): 1 for code in range(400, 406)},
        ("_OTHER", "/<int:code>", "4xx"): 9,
    }
    assert first.total == {
        ("GET", "200"): 2,
        **{("GET", f"{code}"): 1 for code in range(400, 406)},
        ("_OTHER", "4xx"): 9,
    }
    assert second.durations == {
        **{("GET", "/<int:code>", f"{code}"): 1 for code in range(405, 415)},
        ("_OTHER", "/<int:code>", "4xx"): 5,
        ("_OTHER", RULE, "2xx"): 1,
    }
    assert second.total == {
        **{("GET", f"{code}"): 1 for code in range(405, 415)},
        ("_OTHER", "4xx"): 5,
        ("_OTHER", "2xx"): 1,
    }
    assert (first.failures, second.failures) == ({}, {})
    if extended:
        assert [sum(one.errors.values()) for one in counts] == [15, 15]
        # 9 and 6 durations, 5 errors each time
        assert counted(exporter, "flask_exporter_series_dropped_total") == {(): 25}


def test_a_child_that_is_forked_amid_requests_waits_for_none_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither for one that is counted, nor for one whose series are made."""
    app, exporter = application()
    call(app, "/orders/7")
    (instruments,) = exporter.core.worker.instruments.values()
    making, go = threading.Event(), threading.Event()
    labels = instruments.metrics.duration.labels

    def make(*values: str) -> Any:
        making.set()
        assert go.wait(60)
        return labels(*values)

    def answer() -> None:
        signal.alarm(20)
        monkeypatch.undo()
        call(app, "/orders/7")
        call(app, "/nowhere")
        assert Counts(exporter).total == {("GET", "200"): 2, ("GET", "404"): 1}

    monkeypatch.setattr(instruments.metrics.duration, "labels", make)
    thread = threading.Thread(target=call, args=(app, "/nowhere"))
    thread.start()
    assert making.wait(60)
    try:
        with instruments.lock:
            as_child(answer)
    finally:
        go.set()
        thread.join()


def test_errors_have_the_default_labels_behind_their_type() -> None:
    app, exporter = application(default_labels={"host": "a", "zone": "b"})
    call(app, "/nowhere")
    name = "flask_http_request_errors_total"

    labels = {"method": "GET", "url_rule": "_unmatched", "status": "404", "error_type": "NotFound"}
    assert exporter.registry.get_sample_value(name, {**labels, "host": "a", "zone": "b"}) == 1
