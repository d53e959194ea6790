"""Rings of requests: the first and the last values that a reader takes for a request, and for a ring."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from exporter.observation import Delay
from exporter.worker import requests
from exporter.worker.requests import HEAD_AT, HEADER, RECORD, Content, Header, InFlight
from tests.rig.exchanges import exchange, keep, opened
from tests.rig.users import as_child


def head(start: float, lead: float) -> bytes:
    """The head of a request that is running."""
    return requests.head.pack(0.0, b"id", b"GET", 0, b"/orders", 1, lead, start)


def test_a_number_is_written_at_once() -> None:
    """Python writes numbers of a standard byte order byte by byte, and a duration was read half written."""
    assert (requests.head.format[0], requests.tail.format[0]) == ("@", "@")


@pytest.mark.parametrize(
    ("lead", "start_time"),
    [
        (-5.0, 0.0),
        (1000.0, 1005.0),
        (1e11 - 6.0, 1e11 - 1.0),
        (-5.5, None),
        (1e11 - 5.0, None),
    ],
)
def test_a_request_in_progress_begins_after_the_epoch_and_before_the_year_5138(
    lead: float, start_time: float | None
) -> None:
    request = InFlight.of(1, 5.0, head(5.0, lead))

    assert (request and request.start_time) == start_time


@pytest.mark.parametrize(("start", "paths"), [(1e11 - 1.0, ["/orders"]), (1e11, [])])
def test_a_start_of_no_clock_is_no_request(start: float, paths: list[str]) -> None:
    header = Header(2, 5.0, 1, "flask_")
    data = bytearray(header.pack().ljust(header.length, b"\0"))
    struct.pack_into("<d", data, HEADER + 8, start)
    at = header.first + RECORD + HEAD_AT
    data[at : at + requests.head.size] = head(start, 1000.0 - start)
    content = Content.of(bytes(data))

    assert content is not None
    assert [request.path for request in requests.in_flight(content)] == paths


@pytest.mark.parametrize(
    ("duration", "start_time", "shown"),
    [
        (0.5, 0.0, True),
        (0.5, -0.5, False),
        (0.5, 1e11 - 1.0, True),
        (0.5, 1e11, False),
        (1e11 - 1.0, 5.0, True),
        (1e11, 5.0, False),
    ],
)
def test_an_answered_request_has_times_that_can_be(
    duration: float, start_time: float, shown: bool, tmp_path: Path
) -> None:
    keep(opened(1, str(tmp_path)), duration=duration, started=5.0)
    ((_, content, _),) = requests.read(str(tmp_path), 100)
    data = bytearray(content.data)
    struct.pack_into("<d", data, content.header.first + RECORD + RECORD - 16, start_time - 5.0)
    changed = content._replace(data=bytes(data))

    found = [(one.start_time, one.duration) for one in requests.history(changed, changed)]
    assert found == ([(start_time, duration)] if shown else [])


@pytest.mark.parametrize(("failed", "disconnected"), [(True, False), (False, True)])
def test_an_error_is_no_disconnect(failed: bool, disconnected: bool) -> None:
    recorder = opened(1)
    keep(recorder, failed=failed, disconnected=disconnected)

    assert [(one.failed, one.disconnected) for one in recorder.read()] == [(failed, disconnected)]


@pytest.mark.parametrize("header", [Header(2, 0.0, 0, ""), Header(1_000_001, 5.0, 1, "flask_")])
def test_the_smallest_and_the_largest_ring_have_a_header(header: Header) -> None:
    assert Header.of(header.pack()) == header
    assert Header.of(header._replace(records=1_000_002).pack()) is None


def test_a_ring_of_just_so_many_records_is_read(tmp_path: Path) -> None:
    keep(opened(0, str(tmp_path), threads=9))

    assert [number for number, _, _ in requests.read(str(tmp_path), 10)] == [0]
    assert list(requests.read(str(tmp_path), 9)) == []


def test_the_next_worker_overwrites_the_oldest_request_wherever_it_is(tmp_path: Path) -> None:
    """The former one has begun anew with the first place."""

    def former() -> None:
        recorder = opened(2, str(tmp_path), threads=2)
        for number in (1, 2, 3):
            keep(recorder, started=float(number), path=f"/{number}")

    as_child(former)
    recorder = opened(2, str(tmp_path), threads=2)
    keep(recorder, started=4.0, path="/4")

    assert [request.path for request in recorder.read()] == ["/4", "/3"]


@pytest.mark.parametrize(
    ("call", "shown"),
    [("x" * 137, "x" * 137), ("x" * 138, "")],
)
def test_a_slow_request_shows_as_much_of_its_delay_as_fits(call: str, shown: str) -> None:
    """Of the second place, and without what stands behind the names."""
    recorder = opened(2)
    keep(recorder, started=1.0)
    request = exchange(started=2.0, request_size=7, delay=Delay("orders:load", 12, "sqlite3", call, {}))
    recorder.enter(request)
    recorder.record(request)
    recorder.explain(request)

    slow, fast = recorder.read()
    assert (slow.where, slow.line, slow.library, slow.call) == ("orders:load", 12, "sqlite3", shown)
    assert (slow.url_rule, slow.endpoint, slow.request_size) == ("/orders/<int:id>", "orders.show", 7)
    assert (fast.where, fast.line, fast.library, fast.call) == ("", 0, "", "")
