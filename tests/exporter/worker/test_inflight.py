"""Requests in progress: how many each worker has, and how old the oldest is that waits for its answer."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric

from exporter.worker import inflight, requests
from exporter.worker.inflight import Busy, InProgress, Tally, count, in_flight, tallies
from exporter.worker.requests import HEADER, Header
from tests.rig.exchanges import exchange, keep, opened


def samples(families: Any) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The labels and the value of each sample, by the name of the family."""
    found: list[Metric] = list(families)
    return {family.name: [(one.labels, one.value) for one in family.samples] for family in found}


def request(slot: int, started: float) -> requests.InFlight:
    """A request for an order that has begun at this moment."""
    head = requests.head.pack(0.0, b"id", b"GET", len(b"/shop"), b"/shop/orders/7", 1, 1000.0, started)
    found = requests.InFlight.of(slot, started, head)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("starts", "now", "age", "labels"),
    [
        ([], 7.0, 0.0, ("", "")),
        ([6.75], 7.0, 0.25, ("", "")),
        ([8.0], 7.0, 0.0, ("", "")),
        ([6.0], 7.0, 1.0, ("GET /orders/7", "0")),
        ([6.5, 4.0, 5.0], 7.0, 3.0, ("GET /orders/7", "1")),
    ],
    ids=["none", "young", "of another clock", "a second", "the oldest of three"],
)
def test_the_oldest_request_has_a_rule_and_a_worker_from_a_second_on(
    starts: list[float], now: float, age: float, labels: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inflight, "perf_counter", lambda: now)
    workers = [Tally(number, "flask_", 2, request(1, start)) for number, start in enumerate(starts)]
    workers.append(Tally(7, "flask_", 1))
    in_progress = InProgress(lambda: workers, "shop_", rule=lambda method, path: f"{method} {path}")

    assert samples(in_progress.collect()) == {
        "shop_http_requests_in_progress": [({}, 2.0 * len(starts) + 1)],
        "shop_http_request_oldest_seconds": [(dict(zip(("url_rule", "worker"), labels, strict=True)), age)],
    }


def test_without_prefixes_those_of_the_workers_count() -> None:
    """Each exporter of an application counts all of its requests."""
    workers = [Tally(0, "shop_", 2), Tally(1, "flask_", 1), Tally(2, "shop_", 4)]

    families = samples(InProgress(lambda: workers).collect())
    assert families == {
        name: [({}, 7)] if name.endswith("progress") else [({"url_rule": "", "worker": ""}, 0.0)]
        for prefix in ("flask_", "shop_")
        for name in (f"{prefix}http_requests_in_progress", f"{prefix}http_request_oldest_seconds")
    }
    assert samples(Busy(lambda: workers, "shop_").collect()) == {"shop_worker_threads_busy": [({}, 7)]}


def test_streams_without_a_place_are_counted(tmp_path: Path) -> None:
    recorder = opened(1, str(tmp_path), threads=1)
    for _ in range(2):
        stream = exchange()
        recorder.enter(stream)
        recorder.stream(stream)

    assert tallies(str(tmp_path)) == [Tally(0, "flask_", 2)]


def test_what_has_been_answered_is_not_in_progress_however_large_the_ring_is(tmp_path: Path) -> None:
    recorder = opened(1000, str(tmp_path))
    for _ in range(3):
        keep(recorder, request_size=17)

    assert tallies(str(tmp_path)) == [Tally(0, "flask_", 0)]


@pytest.mark.parametrize(
    ("crowd", "start", "counted"),
    [(1.0, 1.0, 2), (999_999.0, 1.0, 1_000_000), (1e6, 1.0, 1), (0.0, 1e11, 0), (0.0, 0.5, 1)],
)
def test_numbers_that_cannot_be_are_not_counted(crowd: float, start: float, counted: int) -> None:
    """A ring begins with the number of requests without a place."""
    header = Header(2, 0.0, 1, "flask_")
    data = struct.pack("=2d", crowd, start)

    for rest in (b"", b"half"):  # of a file that was cut off
        assert count(3, header, data + rest, lambda *_: b"") == Tally(3, "flask_", counted)


def test_a_ring_that_nobody_holds_has_no_requests(tmp_path: Path) -> None:
    """Nor has a file that is none; a living worker has its own."""
    (tmp_path / "requests_7.ring").write_bytes(b"garbage" * 100)
    header = Header(2, 0.0, 0, "flask_")
    content = header.pack().ljust(HEADER, b"\0") + struct.pack("=2d", 0.0, 5.0)
    (tmp_path / "requests_8.ring").write_bytes(content.ljust(header.length, b"\0"))
    recorder = opened(10, str(tmp_path))
    recorder.enter(exchange())

    assert [(one.worker, one.requests) for one in tallies(str(tmp_path))] == [(0, 1)]
    assert [(one.worker, one.pid) for one in in_flight(str(tmp_path), 1000)] == [(0, os.getpid())]
