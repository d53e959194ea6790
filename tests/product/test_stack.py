"""The whole stack on real traffic: a burst of errors becomes an alert in Alertmanager.

The shipped rules and configurations, with every duration divided by 60.
"""

import json
import re
import time
import urllib.error
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.rig.deadline import eventually
from tests.rig.network import get_json
from tests.rig.stack import Run, running, settings

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


def exemplars(stack: Run, series: str) -> list[dict[str, Any]]:
    """The exemplars of the last minute as dashboards ask for them, with the labels of their series."""
    now = time.time()
    query = f"{series} offset 100y"
    parameters = urllib.parse.urlencode({"query": query, "start": now - 60, "end": now + 1})
    found = get_json(stack.url("PROMETHEUS_PORT", f"/api/v1/query_exemplars?{parameters}"))["data"]
    return [{**one["seriesLabels"], **exemplar} for one in found for exemplar in one["exemplars"]]


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

    assert eventually(lambda: stack.query(series) == {"{}": 100.0}, "100 requests are counted", 20)
    workers = "flask_worker_starts_total"
    assert list(stack.query(workers).values()) == [2.0]


def test_only_flask_services_have_native_histograms(stack: Run) -> None:
    """As with compose's Prometheus; the older one of Debian would ask everybody, and end itself by chance."""
    natives = 'count by (job) (histogram_count({__name__=~".+_seconds"}))'
    eventually(lambda: stack.query(natives), "native histograms")
    assert stack.query(natives).keys() == {'{"job": "app"}'}


def test_a_point_on_a_graph_leads_to_the_line_of_its_request(stack: Run) -> None:
    """Prometheus gives out the request's id as an exemplar, and the log that the run names has its line."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {"X-Request-ID": "known-1", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        urlopen(Request(stack.url("APP_PORT", "/orders/424242"), headers=headers), timeout=10)
    with refused.value as answer:
        page = json.load(answer)
    rule = "/orders/<int:order_id>"
    series = f'flask_http_request_errors_total{{url_rule="{rule}"}}'
    errors = eventually(lambda: exemplars(stack, series), "Prometheus has the exemplar", 20)
    slow = exemplars(stack, f'flask_http_request_duration_seconds_bucket{{url_rule="{rule}"}}')
    named = re.search(r"\(no Loki: .* logs its requests to (\S+)\)", stack.output)
    assert named is not None
    lines = [json.loads(line) for line in Path(named[1]).read_bytes().splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == "known-1"]

    assert (answer.headers["X-Request-ID"], page["request_id"]) == ("known-1", "known-1")
    for found in errors, slow:
        assert [one["labels"] for one in found] == [{"request_id": "known-1", "trace_id": trace}]
    assert [(one["error_type"], one["status"], one["value"]) for one in errors] == [("NotFound", "404", "1")]
    assert float(slow[0]["value"]) == pytest.approx(line["duration_seconds"], abs=1e-6)
    assert (line["url_rule"], line["status"], line["error_type"]) == (rule, 404, "NotFound")
    assert line["trace_id"] == trace


def test_alert_fires(stack: Run) -> None:
    """A burst of /test/error fires the shipped error ratio alert, which reaches Alertmanager."""
    assert ALERT not in alerts(stack)

    def burst() -> dict[str, Any] | None:
        assert [request(stack, "/test/error") for _ in range(20)] == [500] * 20
        return alerts(stack).get(ALERT)

    alert = eventually(burst, f"{ALERT} reaches Alertmanager", 40)

    assert alert["labels"] == {"alertname": ALERT, "job": "app", "service": "orders", "severity": "critical"}
    assert alert["status"]["state"] == "active"
    assert alert["annotations"]["summary"] == "More than a tenth of the requests fail."
    assert alert["annotations"]["runbook_url"] == stack.url("PROMETHEUS_PORT", f"/user/{ALERT}.md")
    assert alert["generatorURL"].startswith(stack.url("PROMETHEUS_PORT", "/graph?"))
