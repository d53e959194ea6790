"""What the pages show of services that are new, gone, or were never reached."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from grafana.alerts import STATES
from tests.bench.dashboards import running
from tests.grafana.history import SECONDS, Samples, write_samples
from tests.rig.pages import BOARDS, Pages
from tests.rig.queries import queries_of

FAILURES = "Failures in this time range, instances: ${instance:text}"
FAILED = 30
"""The requests of the new service: all had failed before it was scraped first."""
BEGIN, END = 1800, 1200
"""When the new service came, and when the old one went; the third never answered."""


def _samples(elapsed: float) -> Samples:
    if elapsed >= BEGIN:
        new = {"job": "app", "service": "new", "instance": "n:80"}
        yield "up", new, 1.0
        yield "flask_exporter_info", new | {"version": "1.0"}, 1.0
        request = new | {"method": "GET", "url_rule": "/", "status": "500"}
        yield "flask_http_request_duration_seconds_count", request, FAILED
        yield "flask_http_request_errors_total", request | {"error_type": "ValueError"}, FAILED
    if elapsed < END:
        yield "up", {"job": "app", "service": "old", "instance": "o:80"}, 1.0
    yield "up", {"job": "app", "service": "refused", "instance": "r:80"}, 0.0


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    directory: Path = tmp_path_factory.mktemp("newcomers")
    end = int(time.time()) // 60 * 60
    write_samples(directory, end - SECONDS, _samples)
    with running(directory / "data") as address:
        yield Pages(address, end, SECONDS)


@pytest.mark.parametrize("uid", ["home", "flask-service"])
def test_a_service_that_does_not_answer_can_be_chosen(pages: Pages, uid: str) -> None:
    (variable,) = (query for query in queries_of(BOARDS[uid]) if query.title == "variable service")
    (answers,) = pages.lines(uid, variable.title)

    assert {row.labels["service"] for row in answers} == {"new", "refused"}  # Grafana asks the whole range


def test_a_service_without_targets_is_not_forgotten(pages: Pages) -> None:
    """Nor is one that refuses Prometheus."""
    rows = pages.table("home", "Services, last 5 minutes", "service", "instances")

    assert {key: STATES[int(row["State"])][0] for key, row in rows.items()} == {
        ("new", "1 of 1"): "OK",
        ("old", ""): "Not scraped",
        ("refused", "0 of 1"): "Down",
    }


def test_no_more_requests_fail_than_there_are(pages: Pages) -> None:
    """Though rates do not see what was there at the first scrape."""
    (share,), (failures,) = (
        pages.lines("flask-errors", title)[0]
        for title in ("Share that failed in this time range, worst service", FAILURES)
    )

    assert (share.labels, share.values) == ({"service": "new"}, [1])
    assert failures.values == [FAILED]


def test_nothing_known_is_not_nothing_wrong(pages: Pages) -> None:
    """No 0 where nothing is scraped that would have counted."""
    tiles = {
        panel: pages.lines("monitoring-pipeline", panel)[0]
        for panel in (
            "Rule failures in this time range",
            "Storage failures in this time range",
            "Series capped in this time range",
            "Targets down",
        )
    }

    assert {title for title, rows in tiles.items() if rows} == {
        "Series capped in this time range",
        "Targets down",
    }
    assert pages.lines("flask-errors", FAILURES, service="refused") == [[]]
