"""Four real workers answer as one, and a request is found everywhere by its id."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as plain_families

from tests.rig.clients import drive
from tests.rig.server import Server, threaded

CLIENTS = 8
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def _mixed(count: int) -> Callable[[int], Iterator[tuple[str, str, dict[str, str]]]]:
    """For each client `count` requests of every kind that the service knows; their ids say which they are."""

    def requests(client: int) -> Iterator[tuple[str, str, dict[str, str]]]:
        for number in range(count):
            method, path = "GET", f"/orders/{number % 200}"
            if number % 7 == 0:
                method, path = "POST", "/orders"
            elif number % 50 == 1:
                path = "/boom"
            elif number % 25 == 2:
                path = f"/wp-admin/{client}/{number}.php"
            yield method, path, {"X-Request-ID": f"{client}.{number}", "Content-Length": "0"}

    return requests


def _total(service: Server) -> Counter[tuple[str, int]]:
    """`flask_http_request_total` by method and status."""
    samples: Counter[tuple[str, int]] = Counter()
    for family in plain_families(service.get("/metrics").text):
        for sample in family.samples:
            if sample.name == "flask_http_request_total" and sample.value:
                samples[sample.labels["method"], int(sample.labels["status"])] += int(sample.value)
    return samples


def _steady(stats: dict[str, Any]) -> dict[str, Any]:
    """Without what changes by itself."""
    return {
        name: value for name, value in stats.items() if name not in ("uptime_seconds", "requests_per_second")
    }


def _by_status(counts: Counter[tuple[str, int]]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for (_, status), count in counts.items():
        found[str(status)] += count
    return dict(found)


@pytest.mark.parametrize("requests", [800, pytest.param(10_000, marks=pytest.mark.soak)])
def test_mixed_requests(tmp_path: Path, requests: int) -> None:
    """/monitoring, /metrics and the client agree, whichever worker is asked."""
    with threaded(tmp_path, EXPORTER_RECENT=str(requests)) as service:
        sent = drive(service.port, CLIENTS, _mixed(requests // CLIENTS))
        stats = service.get("/monitoring/stats").json
        found = service.get("/monitoring/requests?limit=10000").json
        endpoints = service.get("/monitoring/endpoints").json
        again = [
            service.get(f"/monitoring/{page}").json for page in ("stats", "endpoints") for _ in range(10)
        ]
        uptimes = [service.get("/monitoring/stats").json["uptime_seconds"] for _ in range(20)]

        assert sent.total() == requests
        assert _total(service) == sent

    assert (stats["total_requests"], stats["status_codes"]) == (requests, _by_status(sent))
    assert stats["total_errors"] == sum(count for (_, status), count in sent.items() if status >= 500)
    assert stats["error_types"]["ValueError"] == stats["total_errors"]

    durations = [one["duration_ms"] for one in found]
    assert stats["response_time_percentiles"] == {
        f"p{percent}": pytest.approx(numpy.percentile(durations, percent), abs=2e-6)
        for percent in (50, 95, 99)
    }
    assert (stats["min_response_time_ms"], stats["max_response_time_ms"]) == (min(durations), max(durations))

    ids = [one["request_id"] for one in found]
    assert sorted(ids) == sorted(
        f"{client}.{number}" for client in range(CLIENTS) for number in range(requests // CLIENTS)
    )
    times = [one["timestamp"] for one in found]
    assert times == sorted(times, reverse=True)

    assert {name: one["request_count"] for name, one in endpoints.items()} == Counter(
        one["url_rule"] for one in found
    )
    assert [_steady(one) for one in again[:10]] == [_steady(stats)] * 10
    assert again[10:] == [endpoints] * 10
    assert uptimes == sorted(uptimes)


def test_reading_while_four_workers_write(tmp_path: Path) -> None:
    _read_while_four_write(tmp_path, seconds=1)


@pytest.mark.soak
def test_reading_while_four_workers_write_for_long(tmp_path: Path) -> None:
    _read_while_four_write(tmp_path, seconds=30)


def _read_while_four_write(directory: Path, seconds: float) -> None:
    """For so long, and until every ring is full."""
    stop = threading.Event()

    def paired(client: int) -> Iterator[tuple[str, str, dict[str, str]]]:
        for number in itertools.count():
            if stop.is_set():
                return
            padding = "p" * (number % 40)
            yield "GET", f"/none/{client}.{number}{padding}", {"X-Request-ID": f"{client}.{number}{padding}"}

    with threaded(directory, EXPORTER_RECENT="100") as service:
        writing = threading.Thread(target=drive, args=(service.port, CLIENTS, paired))
        writing.start()
        end, deadline = time.monotonic() + seconds, time.monotonic() + seconds + 60
        requests: list[dict[str, Any]] = []
        try:
            while time.monotonic() < end or (len(requests) < 400 and time.monotonic() < deadline):
                found = service.get("/monitoring/requests?limit=10000")
                pages = [service.get(f"/monitoring/{page}").status for page in ("stats", "endpoints")]

                assert (found.status, *pages) == (200, 200, 200)
                requests = found.json
                assert all(one["path"] == f"/none/{one['request_id']}" for one in requests)
                assert len({one["request_id"] for one in requests}) == len(requests)
                times = [one["timestamp"] for one in requests]
                assert times == sorted(times, reverse=True)
        finally:
            stop.set()
            writing.join()
        assert len(service.get("/monitoring/requests?limit=10000").json) == 400
        failed = [
            sample.value
            for family in plain_families(service.get("/metrics").text)
            for sample in family.samples
            if sample.name == "flask_exporter_failures_total"
        ]
    assert set(failed) == {0.0}


def test_a_request_is_found_by_its_id_in_four_places(tmp_path: Path) -> None:
    """Its answer's header, the log line, the exemplar, the list of requests: under four workers."""
    log = tmp_path / "requests.log"
    trace = "0af7651916cd43dd8448eb211c80319c"
    with threaded(tmp_path, EXPORTER_REQUEST_LOG=str(log)) as service:
        drive(service.port, CLIENTS, _mixed(100))
        headers = {"X-Request-ID": "known-1", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        answer = service.get("/boom", headers)
        listed = service.get("/monitoring/requests?request_id=known-1").json
        metrics = service.get("/metrics", OPENMETRICS).text

    assert (answer.status, answer.headers["X-Request-ID"]) == (500, "known-1")

    lines = [json.loads(line) for line in log.read_bytes().splitlines()]
    record, line = [one for one in lines if one.get("request_id") == "known-1"]
    assert (record["logger"], record["error_type"], record["trace_id"]) == ("orders", "ValueError", trace)
    assert (line["logger"], line["error_type"], line["trace_id"]) == ("exporter.request", "ValueError", trace)
    requests = [one["request_id"] for one in lines if one["logger"] == "exporter.request"]
    assert len(requests) == len(set(requests)) == CLIENTS * 100 + 1

    assert [(one["request_id"], one["trace_id"], one["url_rule"]) for one in listed] == [
        ("known-1", trace, "/boom")
    ]

    exemplars = {
        (sample.name, sample.exemplar.labels["trace_id"])
        for family in text_string_to_metric_families(metrics)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar and sample.exemplar.labels["request_id"] == "known-1"
    }
    assert exemplars == {
        ("flask_http_request_duration_seconds_bucket", trace),
        ("flask_http_request_errors_total", trace),
    }


def test_health_is_the_same_whichever_worker_is_asked(tmp_path: Path) -> None:
    with threaded(tmp_path) as service:
        drive(service.port, CLIENTS, _mixed(200))
        answers = [service.get("/health").json for _ in range(20)]

        assert {answer["status"] for answer in answers} == {"healthy"}
        assert len({answer["error_rate"] for answer in answers}) == 1
        assert answers[0]["error_rate"] == 0.02
        assert service.get("/health/ready").json == {"status": "ready", "checks": {}}


@pytest.mark.parametrize(
    "page", ["/metrics", "/monitoring/stats", "/monitoring/requests", "/monitoring/endpoints"]
)
def test_spoofed_headers_do_not_open_a_page(guarded: tuple[Server, Server], page: str) -> None:
    plain, with_token = guarded
    for spoofed in ("X-Forwarded-For", "X-Real-IP", "Forwarded"):
        value = "for=127.0.0.1" if spoofed == "Forwarded" else "127.0.0.1"

        assert plain.get(page, {spoofed: value}).status == 403
        assert with_token.get(page, {spoofed: value}).status == 401
    assert plain.get(page).status == 200
    assert with_token.get(page).status == 401
    assert with_token.get(page, {"Authorization": "Bearer s3cret"}).status == 200
    assert plain.get("/health", {"X-Forwarded-For": "127.0.0.1"}).json == {"status": "healthy"}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """A service with the default access, and one with a token."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.write_text("s3cret\n")
    directories = [tmp_path_factory.mktemp(name) for name in ("plain", "guarded")]
    with (
        threaded(directories[0], workers=2) as plain,
        threaded(directories[1], workers=2, EXPORTER_TOKEN_FILE=str(token)) as with_token,
    ):
        yield plain, with_token


def test_a_new_run_does_not_show_the_requests_of_the_last_one(tmp_path: Path) -> None:
    with threaded(tmp_path) as service:
        drive(service.port, CLIENTS, _mixed(10))
    with threaded(tmp_path) as service:
        service.get("/orders/1")
        stats = service.get("/monitoring/stats").json

        assert (stats["total_requests"], stats["recent_request_count"]) == (1, 1)
        assert service.get("/health").json["error_rate"] == 0.0
