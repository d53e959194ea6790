"""The dashboards' expressions have exact values, as promtool evaluates them."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana import promql
from prometheus.tools.toolbox import executable

TARGET = 'job="app",service="orders",instance="a:1"'
ERRORS = "flask_http_request_errors_total"
COUNT = "flask_http_request_duration_seconds_count"
BUCKET = "flask_http_request_duration_seconds_bucket"
CHOSEN = {"$job": "app", "$service": ".*", "$instance": ".*"}
WINDOWS = {"$__range": "30m", "$__interval": "5m", "$__rate_interval": "4m"}


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


def test_apdex(tmp_path: Path) -> None:
    """4 satisfied, 2 tolerating, 1 frustrated by time and 1 by an error: (4 + 2 / 2) / 8."""
    labels = f'{TARGET},method="GET",url_rule="/",status="%s"'
    series = {
        f'{BUCKET}{{{labels % "200"},le="0.5"}}': "0+4x60",
        f'{BUCKET}{{{labels % "200"},le="2.5"}}': "0+6x60",
        f'{BUCKET}{{{labels % "200"},le="+Inf"}}': "0+7x60",
        f"{COUNT}{{{labels % '200'}}}": "0+7x60",
        f'{BUCKET}{{{labels % "500"},le="0.5"}}': "0+1x60",
        f'{BUCKET}{{{labels % "500"},le="2.5"}}': "0+1x60",
        f'{BUCKET}{{{labels % "500"},le="+Inf"}}': "0+1x60",
        f"{COUNT}{{{labels % '500'}}}": "0+1x60",
    }

    check(tmp_path, promql.apdex(), series, {'{url_rule="/"}': 0.625})
