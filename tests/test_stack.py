"""The whole stack on real traffic: a burst of errors becomes an alert in Alertmanager, and goes again.

The shipped rules and configurations, with every duration divided by 60.
"""

import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.running import Run, eventually, get_json, running, settings

ALERT = "FlaskErrorRatioCritical"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """gunicorn with two workers, Prometheus and Alertmanager, without simulated customers."""
    run_directory: Path = tmp_path_factory.mktemp("stack") / "run"
    with running(settings(run_directory, TIME_SCALE="60", TRAFFIC_USERS="0", WEB_CONCURRENCY="2")) as run:
        run.wait_until_up()
        yield run


def request(stack: Run, path: str) -> int:
    """Status of one request to the app."""
    try:
        with urlopen(stack.url("APP_PORT", path), timeout=10) as answer:
            status: int = answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    return status


def alerts(stack: Run) -> dict[str, Any]:
    """What Alertmanager has, by alert name."""
    return {
        alert["labels"]["alertname"]: alert
        for alert in get_json(stack.url("ALERTMANAGER_PORT", "/api/v2/alerts"))
    }


def test_counts(stack: Run) -> None:
    """Prometheus has exactly the requests that were sent, however the two workers shared them."""
    statuses = [request(stack, "/orders") for _ in range(100)]
    assert statuses == [200] * 100

    series = 'sum(flask_http_request_duration_seconds_count{url_rule="/orders",method="GET",status="200"})'

    assert eventually(lambda: stack.query(series) == {"{}": 100.0}, 20, "100 requests are counted")
    workers = "flask_worker_starts_total"
    assert list(stack.query(workers).values()) == [2.0]


def test_alert_fires_and_resolves(stack: Run) -> None:
    """A burst of /test/error fires the shipped error ratio alert, which reaches Alertmanager and resolves."""
    assert ALERT not in alerts(stack)

    def burst() -> dict[str, Any] | None:
        assert [request(stack, "/test/error") for _ in range(20)] == [500] * 20
        return alerts(stack).get(ALERT)

    alert = eventually(burst, 40, f"{ALERT} reaches Alertmanager")

    assert alert["labels"] == {"alertname": ALERT, "job": "app", "service": "orders", "severity": "critical"}
    assert alert["status"]["state"] == "active"
    assert alert["annotations"]["summary"] == "More than a tenth of the requests fail."
    assert alert["annotations"]["runbook_url"] == stack.url("PROMETHEUS_PORT", f"/user/{ALERT}.md")
    assert alert["generatorURL"].startswith(stack.url("PROMETHEUS_PORT", "/graph?"))

    assert eventually(lambda: ALERT not in alerts(stack), 60, f"{ALERT} resolves")
    assert stack.query(f'ALERTS{{alertname="{ALERT}"}}') == {}
