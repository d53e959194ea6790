"""Services of other frameworks that know nothing of the exporter: two workers of gunicorn measure them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.clients import drive
from tests.rig.frameworks import CONDITIONS, SERVICES, Service, import_path
from tests.rig.server import serving

CLIENTS = 4


def requests_of(service: Service, number_of_requests: int) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Four fifths orders, a tenth errors, a tenth of what is not there."""
    for number in range(number_of_requests):
        path = {8: service.boom, 9: f"{service.nothing}/{number}"}.get(
            number % 10, f"{service.order}{number}"
        )
        yield "GET", path, {}


@pytest.mark.parametrize("each", [50, pytest.param(500, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", [pytest.param(name, marks=CONDITIONS.get(name, ())) for name in SERVICES])
def test_every_request_is_counted_under_its_route_and_has_its_line(
    tmp_path: Path, name: str, each: int
) -> None:
    service = SERVICES[name]
    variables = {"PYTHONPATH": import_path(tmp_path), "EXPORTER_REQUEST_LOG": f"{tmp_path}/requests.log"}
    with serving(tmp_path, source=service.source, workers=2, **variables) as server:
        answers = drive(server.port, CLIENTS, lambda _: requests_of(service, each))
        samples = server.samples()
        outside = server.get("/monitoring/stats", {"X-Forwarded-For": "203.0.113.9"})
        inside = server.get("/monitoring/stats")
        missing = server.get("/health/ready")
    total = CLIENTS * each

    assert answers == {("GET", 200): total * 8 // 10, ("GET", 500): total // 10, ("GET", 404): total // 10}
    counts = {
        name: count
        for name, count in samples.items()
        if name.startswith("flask_http_request_duration_seconds_count") and count
    }
    assert counts == {
        durations("200", service.rule): total * 8 // 10,
        durations("500", service.boom): total // 10,
        durations("404", "_unmatched"): total // 10,
    }
    bug = f'error_type="ValueError",method="GET",status="500",url_rule="{service.boom}"'
    assert samples[f"flask_http_request_errors_total{{{bug}}}"] == total // 10
    assert samples['flask_http_request_exceptions_total{method="GET",status="500"}'] == total // 10
    assert not any(count for name, count in samples.items() if name.startswith("flask_exporter_failures"))
    assert (outside.status, inside.status, missing.status) == (403, 200, 200)
    assert inside.json["total_requests"] == total

    lines = [json.loads(line) for line in (tmp_path / "requests.log").read_text().splitlines()]
    requests = {
        line["request_id"]: line
        for line in lines
        if line["logger"] == "exporter.request" and "status" in line
    }
    records = [line for line in lines if line["logger"] == "shop"]
    assert len(requests) == total
    assert len(records) == total * 8 // 10
    assert all(
        requests[record["request_id"]]["url_rule"] == record["url_rule"] == service.rule for record in records
    )
    tracebacks = Counter(line["request_id"] for line in lines if "traceback" in line)
    assert tracebacks == dict.fromkeys((key for key, line in requests.items() if line["status"] == 500), 1)


def durations(status: str, rule: str) -> str:
    """The series of durations for GET."""
    return f'flask_http_request_duration_seconds_count{{method="GET",status="{status}",url_rule="{rule}"}}'
