"""The dashboards' expressions have exact values, as promtool evaluates them."""

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana import promql
from grafana.boards import pipeline
from grafana.build import documents
from prometheus.tools.toolbox import executable

TARGET = 'job="app",service="orders",instance="a:1"'
ERRORS = "flask_http_request_errors_total"
COUNT = "flask_http_request_duration_seconds_count"
BUCKET = "flask_http_request_duration_seconds_bucket"
CHOSEN = {"$job": "app", "${service:regex}": ".*", "$instance": ".*"}
WINDOWS = {"$__range": "30m", "$__interval": "5m", "$__rate_interval": "4m", "$window": "5m"}
ENDPOINT = '{service="orders", url_rule="/"}'


def check(
    directory: Path, expression: str, series: dict[str, str], expected: dict[str, float], at: str = "60m"
) -> None:
    """Evaluate on series of one sample a minute (promtool's notation); AssertionError with its diff."""
    for name, value in (CHOSEN | WINDOWS).items():
        expression = expression.replace(name, value)
    test: dict[str, Any] = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": expression,
                "eval_time": at,
                "exp_samples": [{"labels": labels, "value": value} for labels, value in expected.items()],
            }
        ],
    }
    file = directory / "test.yml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "fuzzy_compare": True, "tests": [test]}))
    run = subprocess.run(
        [executable("promtool"), "test", "rules", file], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def errors(kind: str) -> str:
    return f'{ERRORS}{{{TARGET},error_type="{kind}"}}'


@pytest.mark.parametrize(
    ("values", "events"),
    [
        ("_x50 1x10", 1),  # the first and only one, 10 minutes ago
        ("_x50 1 3x9", 3),  # the first brought two more with it
        ("7x60", 0),  # seven, all before the range
        ("_x35 1+1x4 5x4 0 0 1x13", 5),  # five, one after the other, a restart, and one more
    ],
    ids=["first", "burst", "old", "restart"],
)
def test_count_has_the_first_error_of_a_kind(tmp_path: Path, values: str, events: float) -> None:
    """A new counter counts from its first event on, an old one only its increase."""
    check(
        tmp_path,
        f"round({promql.count(ERRORS, by='error_type')})",  # as the panels do: increase() extrapolates
        {errors("ValueError"): values},
        {'{error_type="ValueError"}': events},
    )


def test_bars_have_the_first_error_of_a_kind(tmp_path: Path) -> None:
    """The bar in which a counter appears shows its value, the next bar its increase."""
    series = {errors("ValueError"): "_x57 2 2 2"}
    check(
        tmp_path,
        promql.count_per_bar(ERRORS, by="error_type"),
        series,
        {'{error_type="ValueError"}': 2},
        "59m",
    )
    check(tmp_path, promql.count_per_bar(ERRORS), {errors("ValueError"): "2x60"}, {"{}": 0})


def test_error_ratio_is_zero_without_errors_and_absent_without_traffic(tmp_path: Path) -> None:
    """Statuses of 500 and more are errors, those that the series cap folded too; 4xx are not."""
    endpoint = f'{COUNT}{{{TARGET},method="GET",url_rule="%s",status="%s"}}'
    series = {
        endpoint % ("/fine", "200"): "0+3x60",
        endpoint % ("/fine", "404"): "0+1x60",
        endpoint % ("/broken", "200"): "0+6x60",
        endpoint % ("/broken", "500"): "0+1x60",
        endpoint % ("/broken", "5xx"): "0+1x60",
        endpoint % ("/idle", "200"): "5x60",
        endpoint % ("/idle", "500"): "0x60",
    }
    expected = {'{url_rule="/fine"}': 0, '{url_rule="/broken"}': 0.25}

    check(tmp_path, promql.error_ratio(COUNT, by="url_rule"), series, expected)


@pytest.mark.parametrize(("pace", "expected"), [(1, {ENDPOINT: 0.625}), (0.005, {})], ids=["many", "few"])
def test_apdex(tmp_path: Path, pace: float, expected: dict[str, float]) -> None:
    """4 satisfied, 2 tolerating, 1 frustrated by time and 1 by an error: (4 + 2 / 2) / 8."""
    series = {
        f'instance_url_rule:{BUCKET}:good_rate_5m{{{TARGET},url_rule="/",le="{le}"}}': f"{count * pace}x60"
        for le, count in (("0.5", 4), ("2.5", 6))
    }
    series[f'instance_url_rule:{RECORDED}:rate_5m{{{TARGET},url_rule="/"}}'] = f"{8 * pace}x60"

    check(tmp_path, promql.apdex(), series, expected)


RECORDED = "flask_http_request_duration_seconds"
# A quarter of a native bucket of schema 3 at offset -24, which ends at 0.125 s, and of the next one.
SPREAD = "{{schema:3 offset:-24 sum:1 count:10 buckets:[5 5]}}x60"
P95 = 0.125 * 2 ** (0.9 / 8)


def recorded(
    instance: str, *, native: str = "", slowest: str = "", level: str = "instance"
) -> dict[str, str]:
    """Series of ten requests a second within a quarter of a second, at an instance."""
    labels = f'job="app",service="orders",instance="{instance}"'
    labels += ',url_rule="/"' if level == "instance_url_rule" else ""
    series = {
        f"{level}:{RECORDED}:rate_5m{{{labels}}}": "10x60",
        f'{level}:{RECORDED}_bucket:rate_5m{{{labels},le="0.25"}}': "10x60",
        f'{level}:{RECORDED}_bucket:rate_5m{{{labels},le="+Inf"}}': "10x60",
    }
    if native:
        series[f"{level}:{RECORDED}:histogram_rate_5m{{{labels}}}"] = native
    if slowest:
        name = f'job="app",service="orders",instance="{instance}",url_rule="/"'
        series[f"flask_http_request_duration_max_seconds{{{name}}}"] = slowest
    return series


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        (recorded("a:1", native=SPREAD), P95),
        (recorded("a:1"), 0.2375),
        (recorded("a:1", native=SPREAD) | recorded("b:1", native=SPREAD), P95),
        (recorded("a:1", native=SPREAD) | recorded("b:1"), 0.2375),
        (recorded("a:1", slowest="0.2x60"), 0.2),
        (recorded("a:1", native=SPREAD, slowest="0.13x60"), 0.13),
        (recorded("a:1", native=SPREAD, slowest="0.5x60"), P95),
        (recorded("a:1", slowest="0.1x60") | recorded("b:1", slowest="0.1x55 0.21x2 0.1x60"), 0.21),
    ],
    ids=["both", "classic", "two", "one of two", "slowest", "slowest native", "wide", "slowest of 5 minutes"],
)
def test_a_percentile_is_that_of_the_histogram_that_has_all_requests(
    tmp_path: Path, series: dict[str, str], expected: float
) -> None:
    """The native one if it has, else the classic one, and not above the slowest request."""
    check(tmp_path, f"round(1e6 * {promql.quantile(0.95)})", series, {"{}": round(1e6 * expected)})


def test_a_percentile_is_absent_without_traffic(tmp_path: Path) -> None:
    """Also as long as the slowest request is remembered."""
    series = dict.fromkeys(recorded("a:1"), "0x60")
    series |= {f'flask_http_request_duration_max_seconds{{{TARGET},url_rule="/"}}': "0.3x60"}

    check(tmp_path, promql.quantile(0.95), series, {})


@pytest.mark.parametrize(
    ("native", "expected"),
    [
        (SPREAD, P95),
        ("", 0.2375),
        ("_x45 {{schema:3 offset:-24 sum:1 count:10 buckets:[5 5]}}x15", 0.2375),  # of half of the range
    ],
    ids=["native", "classic", "half"],
)
def test_a_percentile_of_the_whole_range(tmp_path: Path, native: str, expected: float) -> None:
    series = recorded("a:1", native=native, level="instance_url_rule")
    expression = promql.quantile_by_endpoint(0.95, window="$__range")

    check(tmp_path, f"round(1e6 * {expression})", series, {ENDPOINT: round(1e6 * expected)})


def test_the_slowest_of_the_whole_range_limits_its_percentiles(tmp_path: Path) -> None:
    """Each endpoint has its own."""
    series = recorded("a:1", slowest="0.1x40 0.22x2 0.1x20", level="instance_url_rule")
    expression = promql.quantile_by_endpoint(0.95, window="$__range")

    check(tmp_path, f"round({expression}, 0.01)", series, {ENDPOINT: 0.22})


def test_a_heat_map_is_of_one_kind(tmp_path: Path) -> None:
    """Of native histograms where they have all requests, else of classic buckets."""
    classic = {'{le="0.25"}': 20.0, '{le="+Inf"}': 20.0}
    both = recorded("a:1", native=SPREAD) | recorded("b:1", native=SPREAD)
    half = recorded("a:1", native=SPREAD) | recorded("b:1")

    check(tmp_path, promql.spread("instance"), half, classic)
    check(tmp_path, f"histogram_count({promql.spread('instance')})", both, {"{}": 20.0})
    check(tmp_path, f"count({promql.spread('instance')})", both, {"{}": 1})


def test_time_in_the_queue(tmp_path: Path) -> None:
    name = "flask_http_request_queue_seconds"
    step = "{{schema:3 offset:-24 sum:1 count:10 buckets:[5 5]}}"
    classic = {
        f"{name}_count{{{TARGET}}}": "0+10x60",
        f'{name}_bucket{{{TARGET},le="0.25"}}': "0+10x60",
        f'{name}_bucket{{{TARGET},le="+Inf"}}': "0+10x60",
    }
    native = {f"{name}{{{TARGET}}}": f"{step}+{step}x60"}
    expression = f"round(1e6 * {promql.queue_quantile(0.95)})"

    check(tmp_path, expression, classic, {"{}": 237500})
    check(tmp_path, expression, classic | native, {"{}": round(1e6 * P95)})


@pytest.mark.parametrize(
    ("values", "minutes", "left"),
    [
        ("900-10x60", 5, None),
        ("900-10x60", 29, None),
        ("900-10x60", 30, 3600),
        ("900-10x60", 40, 3000),
        ("900x60", 29, None),
        ("900x60", 40, math.inf),
        ("900-10x5 _x30 900-10x30", 40, None),  # the half hour has a gap
    ],
)
def test_forecasts_are_silent_for_half_an_hour(
    tmp_path: Path, values: str, minutes: int, left: float | None
) -> None:
    """A disk that fills while the host starts is not told to be full soon, nor to be fine."""
    (board,) = (json.loads(text) for path, text in documents().items() if path.endswith("workers.json"))
    forecasts = {panel["title"]: panel for panel in board["panels"] if panel["title"].endswith("full in")}

    for title, (series, labels) in {
        "Memory full in": ("node_memory_MemAvailable_bytes", '{instance="h:9100"}'),
        "Disk full in": ("node_filesystem_avail_bytes", '{instance="h:9100", fstype="ext4"}'),
    }.items():
        panel = forecasts.pop(title)
        expression = panel["targets"][0]["expr"].replace("$host", ".*")
        ((horizon, text),) = panel["fieldConfig"]["defaults"]["mappings"][0]["options"].items()
        told = {} if left is None else {labels: min(left, float(horizon))}

        assert text["text"] == f"Not within {int(horizon) // 3600} h"
        check(tmp_path, f"round({expression})", {series + labels: values}, told, f"{minutes}m")
    assert not forecasts


@pytest.mark.parametrize(
    ("values", "workers"),
    [
        ("4x60", 0),
        ("4x40 5x20", 1),
        ("4x40 2x20", 0),  # a deploy: the service begins anew
        ("2x40 2x5 3x15", 1),
        ("4x40 2x5 5x15", 3),  # a deploy, and three that died afterwards
        ("_x40 4x20", 0),  # a service that is new
    ],
    ids=["none", "one", "deploy", "late", "deploy and three", "new"],
)
def test_workers_that_start_with_the_service_replace_none(tmp_path: Path, values: str, workers: int) -> None:
    """A death raises the number of starts while the service goes on; a restart sets it back."""
    expression = f"sum_over_time({promql.replaced_workers('service', '1m')}[30m:1m])"
    series = {f"flask_worker_starts_total{{{TARGET}}}": values}

    check(tmp_path, f"sum({expression}) or vector(0)", series, {"{}": workers})


@pytest.mark.parametrize(
    ("switch", "receivers", "state"),
    [("_x60", "0x60", "Silent"), ("1x60", "_x60", "To nobody"), ("1x60", "0x60", "Alive")],
)
def test_alerting_is_alive_when_somebody_is_told(
    tmp_path: Path, switch: str, receivers: str, state: str
) -> None:
    """An Alertmanager without receivers takes every alert, and no person hears of it."""
    (board,) = (json.loads(text) for path, text in documents().items() if path.endswith("pipeline.json"))
    (panel,) = (panel for panel in board["panels"] if panel["title"] == "Alerting")
    series = {
        'ALERTS{alertname="MonitoringDeadMansSwitch",alertstate="firing"}': switch,
        "prometheus_notifications_alertmanagers_discovered": "1x60",
        'alertmanager_notifications_total{integration="email"}': receivers,
    }
    (number,) = (number for number, (word, _) in pipeline.ALIVE.items() if word == state)

    check(tmp_path, panel["targets"][0]["expr"], series, {"{}": number})


@pytest.mark.parametrize(
    ("left", "pace", "covered", "expected"),
    [
        ("0.5x5000", "2x5000", "1x5000", {"left": 0.5, "lasts": 0.5 * 30 * 86_400 / 2}),
        ("-3x5000", "2x5000", "1x5000", {"left": 0, "lasts": 0}),  # spent, and no more than that
        ("0.5x5000", "0.5x5000", "1x5000", {"left": 0.5}),  # it lasts
        ("0.5x5000", "2x5000", "0.4x5000", {"left": 0.5}),  # no half of the hour has been seen
        ("_x1000 0.5x4000", "2x5000", "1x5000", {}),  # younger than three days
        ("_x1000 -3x4000", "2x5000", "1x5000", {}),
    ],
    ids=["burns", "spent", "lasts", "unseen", "young", "young and spent"],
)
def test_a_budget_is_told_from_the_third_day_on(
    tmp_path: Path, left: str, pace: str, covered: str, expected: dict[str, float]
) -> None:
    """What is left of it, no less than none, and how long that lasts at the pace of the last hour."""
    (board,) = (json.loads(text) for path, text in documents().items() if path.endswith("slo.json"))
    (panel,) = (panel for panel in board["panels"] if panel["title"] == "Objectives, over 30 days")
    columns = panel["transformations"][-1]["options"]["renameByName"]
    names = {"Budget left": "left", "Exhausted in": "lasts"}
    labels = 'job="app",service="orders",slo="errors"'
    series = {
        f"slo:flask_http_requests:{name}{{{labels}}}": values
        for name, values in {"budget_left_30d": left, "burn_rate_1h": pace, "covered_1h": covered}.items()
    }
    for target in panel["targets"]:
        if name := names.get(columns[f"Value #{target['refId']}"]):
            value = {'{service="orders", slo="errors"}': expected[name]} if name in expected else {}
            check(tmp_path, target["expr"].replace("$slo", ".*"), series, value, "5000m")
