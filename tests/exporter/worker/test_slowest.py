"""The slowest requests of each rule: what is kept, and what a reader makes of foreign bytes."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from exporter.worker.slowest import EACH, RECORDS, Slowest, SlowRequest
from tests.rig.descriptors import open_below
from tests.rig.users import as_child
from tests.rig.wsgi import Clock

ORDER = SlowRequest(
    start_time=0.0,
    duration=1.0,
    method="GET",
    url_rule="/orders/<int:id>",
    endpoint="orders.show",
    path="/orders/7",
    status=200,
    request_id="5f2b7c1e9a3d4f60000003e8",
    trace_id="ab" * 16,
    where="orders:load",
    line=7,
    library="sqlalchemy.engine.base:Connection.execute",
    call="cursor.execute",
    shares={"orders:load": 0.9, "orders:view": 0.1},
)


def ended(ago: float = 0.0, **changes: Any) -> SlowRequest:
    """An order that ended so many seconds ago."""
    request = replace(ORDER, **changes)
    return replace(request, start_time=time.time() - ago - request.duration)


def kept(slowest: Slowest) -> Mapping[str, list[float]]:
    return {rule: [request.duration for request in requests] for rule, requests in slowest.read().items()}


@pytest.fixture(params=["memory", "directory"])
def slowest(request: pytest.FixtureRequest, tmp_path: Path) -> Slowest:
    return Slowest(None if request.param == "memory" else str(tmp_path))


def test_a_request_is_read_as_it_was_kept(slowest: Slowest) -> None:
    request = ended(path="/orders/ä\N{SNOWMAN}", url_rule="/ö", where="läden:öffne")
    assert slowest.read() == {}

    slowest.keep(request)

    assert slowest.read() == {"/ö": [request]}


def test_the_ten_slowest_stay_whatever_comes_after_them(slowest: Slowest) -> None:
    for number in range(50):
        slowest.keep(ended(duration=float(number % 25 + 1)))
        slowest.keep(ended(duration=0.5))

    assert kept(slowest) == {ORDER.url_rule: [25, 25, 24, 24, 23, 23, 22, 22, 21, 21]}


def test_of_equal_ones_the_first_stay(slowest: Slowest) -> None:
    for number in range(EACH + 1):
        slowest.keep(ended(path=f"/{number}"))

    paths = {request.path for requests in slowest.read().values() for request in requests}
    assert paths == {f"/{number}" for number in range(EACH)}


def test_an_hour_later_it_makes_room(slowest: Slowest) -> None:
    for number in range(EACH):
        slowest.keep(ended(3599.0 + number, duration=9.0))

    assert kept(slowest) == {ORDER.url_rule: [9.0]}
    for _ in range(3):
        slowest.keep(ended(duration=0.6))
    assert kept(slowest) == {ORDER.url_rule: [9.0, 0.6, 0.6, 0.6]}


def test_an_hour_is_over_after_3600_seconds(slowest: Slowest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 4600.0)
    for _ in range(EACH):
        slowest.keep(replace(ORDER, start_time=991.0, duration=9.0))
    slowest.keep(replace(ORDER, start_time=4599.5, duration=0.5))

    assert kept(slowest) == {ORDER.url_rule: [0.5]}


def test_many_rules_have_fewer_each(slowest: Slowest) -> None:
    """The slowest of every one, and none pushes out all of another's."""
    for number in range(EACH * RECORDS):
        slowest.keep(ended(url_rule=f"/{number % RECORDS}", duration=1.0 + number))

    assert kept(slowest) == {
        f"/{number % RECORDS}": [1.0 + number]
        for number in reversed(range((EACH - 1) * RECORDS, EACH * RECORDS))
    }


def test_a_new_rule_takes_from_the_one_that_has_most(slowest: Slowest) -> None:
    for number in range(RECORDS):
        slowest.keep(ended(url_rule=f"/{number // EACH}", duration=2.0 + number))
    slowest.keep(ended(url_rule="/new", duration=0.5))
    slowest.keep(ended(url_rule="/new", duration=0.6))

    rules = kept(slowest)
    assert rules["/new"] == [0.6, 0.5]
    assert sorted(len(durations) for durations in rules.values())[:3] == [2, 9, 9]
    assert len(rules["/0"]) == 9
    assert min(rules["/0"]) == 3.0


def test_names_without_end_lose_the_shares_and_then_the_record(slowest: Slowest) -> None:
    shares = {f"orders:{'x' * 200}{number}": 0.2 for number in range(5)}
    long = ended(url_rule="/" + "x" * 900, shares=shares)
    slowest.keep(long)

    with pytest.raises(ValueError, match="names too long to be kept"):
        slowest.keep(ended(url_rule="/" + "y" * 2000))

    assert slowest.read() == {long.url_rule: [replace(long, shares={})]}


def test_names_of_any_language_have_their_room(slowest: Slowest) -> None:
    request = ended(url_rule="/" + "주" * 400)
    slowest.keep(request)

    assert slowest.read() == {request.url_rule: [request]}


def test_the_longest_records_leave_those_beside_them(slowest: Slowest) -> None:
    fitting, order = [], ended(shares={})
    for length in range(1500, 2100):
        request = replace(order, url_rule="/" + "x" * length)
        with suppress(ValueError):
            slowest.keep(request)
            fitting.append(request)

    read = slowest.read()
    assert len(json.dumps(asdict(fitting[-1]))) == 2048 - 8
    assert [read.get(request.url_rule) for request in fitting[-20:]] == [[one] for one in fitting[-20:]]


def test_all_workers_are_read_and_the_next_one_goes_on(tmp_path: Path) -> None:
    workers = Slowest(str(tmp_path))

    def keep(rule: str, duration: float) -> None:
        workers.keep(ended(url_rule=rule, duration=duration))

    keep("/a", 1.0)  # and lives
    as_child(lambda: keep("/a", 3.0))
    as_child(lambda: keep("/b", 2.0))

    assert kept(workers) == {"/a": [3.0, 1.0], "/b": [2.0]}
    assert sorted(os.listdir(tmp_path)) == ["slow_0.ring", "slow_1.ring"]


@pytest.mark.parametrize("content", [b"", b"slow0001", b"garbage" * 10_000, b"slow0001" + b"\xff" * 500_000])
def test_a_file_of_garbage_costs_nobody_else(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "slow_7.ring").write_bytes(content)
    slowest = Slowest(str(tmp_path))
    slowest.keep(ended())

    assert kept(slowest) == {ORDER.url_rule: [1.0]}


@pytest.mark.parametrize("content", [b"", b"slow0001", b"garbage" * 10_000, b"slow0001" + b"\xff" * 500_000])
def test_a_file_of_garbage_is_taken_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "slow_0.ring").write_bytes(content)
    slowest = Slowest(str(tmp_path))
    slowest.keep(ended())

    assert os.listdir(tmp_path) == ["slow_0.ring"]
    assert kept(slowest) == {ORDER.url_rule: [1.0]}


def test_a_record_that_is_half_written_is_not_shown(tmp_path: Path) -> None:
    slowest = Slowest(str(tmp_path))
    slowest.keep(ended(duration=2.0))
    slowest.keep(ended(duration=1.0))
    with open(tmp_path / "slow_0.ring", "r+b") as file:
        file.seek(64 + 100)
        file.write(b"?")

    assert kept(slowest) == {ORDER.url_rule: [1.0]}


FIELDS = {name: getattr(ORDER, name) for name in ORDER.__slots__}


@pytest.mark.parametrize(
    "values",
    [
        [],
        {},
        {**FIELDS, "further": 1},
        {**FIELDS, "line": "7"},
        {**FIELDS, "path": None},
        {**FIELDS, "start_time": float("nan")},
        {**FIELDS, "start_time": 1e11},
        {**FIELDS, "duration": 1e11},
        {**FIELDS, "duration": float("inf")},
        {**FIELDS, "duration": -1.0},
        {**FIELDS, "shares": []},
        {**FIELDS, "shares": {"a": "b"}},
        {**FIELDS, "shares": {"a": 1.5}},
    ],
)
def test_a_record_of_somebody_who_knows_the_checksum(
    tmp_path: Path, values: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1.0)  # at the end of the order
    text = json.dumps(values).encode()
    body = len(text).to_bytes(4, "little") + text
    record = zlib.crc32(body).to_bytes(4, "little") + body
    slowest = Slowest(str(tmp_path))
    slowest.keep(ORDER)
    with open(tmp_path / "slow_0.ring", "r+b") as file:
        file.seek(64 + 2048)
        file.write(record)

    assert kept(slowest) == {ORDER.url_rule: [1.0]}


def test_without_room_it_says_so_and_tries_again_after_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    slowest = Slowest(str(tmp_path / "gone"))
    assert slowest.read() == {}

    with pytest.raises(OSError, match="No such file"):
        slowest.keep(ended())
    (tmp_path / "gone").mkdir(mode=0o700)
    clock.advance(0.75)
    with pytest.raises(OSError, match="gone: no ring for slow requests"):
        slowest.keep(ended())
    assert slowest.read() == {}

    clock.advance(0.25)
    slowest.keep(ended())
    assert kept(slowest) == {ORDER.url_rule: [1.0]}


def test_it_costs_one_descriptor(tmp_path: Path) -> None:
    """That which its memory keeps."""
    slowest = Slowest(str(tmp_path))
    for _ in range(3):
        slowest.keep(ended())
        slowest.read()

    assert open_below(tmp_path) == [str(tmp_path / "slow_0.ring")]
