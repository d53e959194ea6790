"""The flight recorder: what it shows is what happened, whoever wrote it and however that writer ended."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from exporter.measure.exchange import Exchange
from exporter.observation import EXCHANGE
from exporter.worker import crash, flightrecorder, requests, ring, writers
from exporter.worker.flightrecorder import FlightRecorder
from exporter.worker.inflight import Tally, tallies
from exporter.worker.requests import COUNTED, HEAD_AT, RECORD, Header, Request
from exporter.worker.writers import CrowdedError
from tests.rig.deadline import eventually
from tests.rig.descriptors import open_below
from tests.rig.exchanges import exchange, keep, opened
from tests.rig.users import as_child

_processes = multiprocessing.get_context("fork")


def _numbered(number: int, **changes: Any) -> dict[str, Any]:
    return {"started": 1.0 + number, "path": f"/orders/{number}", **changes}


def _paths(recorder: FlightRecorder) -> list[str]:
    return [request.path for request in recorder.read()]


def _run(target: Callable[..., None], *arguments: object) -> None:
    """Run in another process, to its good end."""
    process = _processes.Process(target=target, args=arguments)
    process.start()
    process.join(30)

    assert process.exitcode == 0


def _record(directory: str, size: int, first: int, count: int) -> None:
    recorder = opened(size, directory)
    for number in range(first, first + count):
        keep(recorder, **_numbered(number))


def _shapely(identity: int) -> dict[str, Any]:
    """A record in which every part follows from its number, so that a mixture of two is seen."""
    text = f"{identity:x}-" * (1 + identity % 12)
    return {
        "started": float(identity), "duration": float(identity), "request_size": identity,
        "response_size": identity, "request_id": text[:64], "endpoint": text, "rule": f"/{text}",
        "path": f"/p/{text}",
    }  # fmt: skip


# What the wall clock is ahead of the monotonic one, in seconds.
LEAD = time.time() - time.perf_counter()


def _is_whole(request: Request) -> bool:
    shape = exchange(**_shapely(request.request_size))
    return (
        shape.duration,
        shape.response_size,
        shape.request_id,
        shape.endpoint,
        shape.rule,
        shape.path,
        round(shape.started),
    ) == (
        request.duration,
        request.response_size,
        request.request_id,
        request.endpoint,
        request.url_rule,
        request.path,
        round(request.start_time - LEAD),
    )


def _write_until_told(directory: str, offset: int, stop: Any) -> None:
    recorder = opened(200, directory)
    number = offset
    while not stop.is_set():
        keep(recorder, **_shapely(number))
        number += 4


def told(directory: Path) -> list[tuple[str, int, float | None]]:
    """What each living worker is answering: the prefix, the number, and when the oldest came in."""
    return [
        (tally.prefix, tally.requests, tally.oldest and tally.oldest.started)  # type: ignore[misc]
        for tally in tallies(str(directory))
    ]


def in_progress(recorder: FlightRecorder, directory: str | None) -> int:
    """The number of this worker's requests in progress."""
    tally = recorder.tally() if directory is None else tallies(directory)[0]
    return tally.requests if tally else -1


def _running(directory: Path) -> list[str]:
    """The paths of the requests in progress, as any process reads them."""
    contents = [content for _, content, _ in requests.read(str(directory), 1001)]
    return [request.path for content in contents for request in requests.in_flight(content)]


@pytest.fixture(params=["memory", "directory"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    return str(tmp_path) if request.param == "directory" else None


class TestRecord:
    def test_everything_is_read_back(self, directory: str | None) -> None:
        recorder = opened(10, directory)
        failure = {"status": 503, "failed": True, "error_type": "Überlast", "disconnected": True}
        keep(recorder, **failure, request_size=17, trace_id="ab" * 16)

        start: Any = pytest.approx(LEAD + 1.0, abs=0.5)
        expected = Request(
            start_time=start,
            duration=0.0125,
            method="GET",
            url_rule="/orders/<int:id>",
            endpoint="orders.show",
            path="/orders/7",
            status=503,
            failed=True,
            error_type="Überlast",
            request_size=17,
            response_size=512,
            request_id="5f2b7c1e9a3d4f60000003e8",
            trace_id="ab" * 16,
            disconnected=True,
        )
        assert recorder.read() == [expected]

    def test_the_last_ones_are_kept_newest_first(self, directory: str | None) -> None:
        recorder = opened(10, directory)
        for number in range(250):
            keep(recorder, **_numbered(number))

        assert _paths(recorder) == [f"/orders/{number}" for number in range(249, 239, -1)]

    def test_none_are_shown_with_size_0(self, directory: str | None) -> None:
        recorder = opened(0, directory)
        keep(recorder)

        assert recorder.read() == []

    @pytest.mark.parametrize(
        ("path", "shown"),
        [
            ("/caf\u00c3\u00a9", "/café"),  # UTF-8 as WSGI hands it over
            ("/\u00ff", "/\ufffd"),
            ("/\udcff", "/?"),
            ("/a\0b\r\nc\x1b[31m", "/a\0b\r\nc\x1b[31m"),
            ("/" + "x" * 1_000_000, "/" + "x" * 253),
            ("/" + "\u00c3\u00a9" * 500_000, "/" + "é" * 126 + "\ufffd"),
            ("", ""),
        ],
    )
    def test_any_path_is_kept_within_bounds(self, directory: str | None, path: str, shown: str) -> None:
        recorder = opened(3, directory)
        keep(recorder, path=path)
        (request,) = recorder.read()

        assert (request.path, request.url_rule, request.endpoint) == (
            shown,
            "/orders/<int:id>",
            "orders.show",
        )

    @pytest.mark.parametrize("rule", ["/a\0b", "/" + "r" * 5000, "/é\U0001f600\udc80"])
    def test_any_rule_leaves_the_other_fields_alone(self, directory: str | None, rule: str) -> None:
        recorder = opened(3, directory)
        keep(recorder, rule=rule)
        (request,) = recorder.read()

        assert request.url_rule == rule[: 200 - len("20000GET\0\0orders.show\0")].replace("\udc80", "?")
        assert (request.path, request.endpoint) == ("/orders/7", "orders.show")

    def test_names_that_are_too_long_cost_only_the_names_that_follow(self, directory: str | None) -> None:
        recorder = opened(3, directory)
        keep(recorder, error_type="E" * 9000)
        (request,) = recorder.read()

        assert (request.status, request.method, set(request.error_type)) == (200, "GET", {"E"})
        assert (request.endpoint, request.url_rule, request.path) == ("", "", "/orders/7")

    def test_threads_do_not_disturb_each_other(self, directory: str | None) -> None:
        recorder = opened(1000, directory)

        def write(first: int) -> None:
            for number in range(first, first + 2000):
                keep(recorder, **_shapely(number))

        threads = [threading.Thread(target=write, args=(2000 * number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = recorder.read()

        assert len(found) == len({request.request_size for request in found}) == 1000
        assert all(map(_is_whole, found))


class TestInProgress:
    def test_a_request_is_listed_from_its_beginning_to_its_close(self, tmp_path: Path) -> None:
        recorder = opened(10, str(tmp_path))
        request = exchange(started=time.perf_counter(), script_name="/shop", method="GET")
        recorder.enter(request)
        ((_, content, _),) = requests.read(str(tmp_path), 100)
        (running,) = requests.in_flight(content)
        assert (running.path, running.script_name, running.method, running.request_id) == (
            "/shop/orders/7",
            "/shop",
            "GET",
            "5f2b7c1e9a3d4f60000003e8",
        )
        assert (running.started, running.thread) == (request.started, threading.get_ident())
        assert (running.is_sending, running.is_answered, recorder.read()) == (False, False, [])
        assert recorder.live[request.slot] is request

        recorder.record(request)
        ((_, content, _),) = requests.read(str(tmp_path), 100)
        (sending,) = requests.in_flight(content)
        assert (sending.is_sending, sending.is_answered, len(recorder.read())) == (True, True, 1)

        recorder.leave(request)
        recorder.leave(request)
        assert (_running(tmp_path), len(recorder.read())) == ([], 1)
        assert set(recorder.live) == {None}

    @pytest.mark.parametrize(
        ("upgrade", "streamed", "oldest"),
        [(None, False, True), ("h2c", False, True), ("WebSocket", False, False), (None, True, False)],
    )
    def test_streams_and_websockets_are_no_old_requests(
        self, upgrade: str | None, streamed: bool, oldest: bool, tmp_path: Path
    ) -> None:
        """They are meant to last; what clients offer to everybody is none."""
        recorder = opened(10, str(tmp_path))
        request = exchange(started=5.0)
        request.environ |= {"HTTP_UPGRADE": upgrade} if upgrade else {}
        recorder.enter(request)
        if streamed:
            recorder.stream(request)

        assert told(tmp_path) == [("flask_", 1, 5.0 if oldest else None)]

    def test_a_running_request_is_never_overwritten(self, directory: str | None) -> None:
        """And then it is the last one to be."""
        recorder = opened(3, directory, threads=3)
        stuck = exchange(**_numbered(0))
        recorder.enter(stuck)
        for number in range(1, 100):
            keep(recorder, **_numbered(number))
        recorder.record(stuck)

        assert recorder.live[stuck.slot] is stuck
        recorder.leave(stuck)
        for number in (100, 101):
            keep(recorder, **_numbered(number))
        assert sorted(_paths(recorder)) == ["/orders/0", "/orders/100", "/orders/101"]

    def test_what_is_counted_is_answered(self, directory: str | None) -> None:
        """So it is not lost if its worker dies before the record is complete."""
        recorder, request = opened(2, directory), exchange()
        recorder.enter(request)
        request.durations[request.slot] = COUNTED

        assert [entry.request.is_answered for entry in recorder.in_flight()] == [True]
        assert recorder.read() == []

        recorder.record(request)
        assert _paths(recorder) == ["/orders/7"]

    def test_more_than_there_are_places_for_are_counted(self, directory: str | None) -> None:
        """They are in progress, have no record, and say so; the next ones have places again."""
        recorder = opened(2, directory, threads=2)
        crowd = [exchange(**_numbered(number)) for number in range(5)]
        for request in crowd:
            recorder.enter(request)

        assert (in_progress(recorder, directory), [request.slot for request in crowd]) == (5, [1, 2, 0, 0, 0])
        assert {request.thread for request in crowd} == {threading.get_ident()}
        for request in crowd[2:]:
            with pytest.raises(
                CrowdedError, match=r"more than 2 requests are in progress: set EXPORTER_RECENT"
            ):
                recorder.record(request)
        for request in crowd:
            recorder.leave(request)
        assert (in_progress(recorder, directory), _paths(recorder)) == (0, [])
        keep(recorder, **_numbered(9))
        assert _paths(recorder) == ["/orders/9"]

    def test_the_recorders_of_two_applications_have_places_of_their_own(self, tmp_path: Path) -> None:
        """Each lists the requests of both, however few places it has itself."""
        small, large = opened(1, str(tmp_path), threads=1), opened(9, str(tmp_path))
        for number in range(3):
            large.enter(exchange(**_numbered(number)))

        assert [entry.request.slot for entry in small.in_flight()] == [1, 2, 3]

    @pytest.mark.parametrize("look", ["settle", "in_flight", "tally"])
    def test_what_nobody_knows_any_more_is_freed_by_whoever_looks(self, look: str) -> None:
        """Also where its error might have ended the process: then no `close()` frees its slot."""
        recorder = opened(10)
        known, forgotten, failed = (exchange(started=time.perf_counter()) for _ in range(3))
        for request in (known, forgotten, failed):
            recorder.enter(request)
            recorder.record(request)
            request.recorded = True
        failed.slot = 0
        del request, forgotten, failed
        getattr(recorder, look)()

        assert [one for one in recorder.live if one is not None] == [known]

    def test_a_request_that_has_no_answer_and_that_nobody_knows_is_abandoned(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its own environ does not count."""
        abandoned: list[str] = []
        monkeypatch.setattr(Exchange, "abandon", lambda self: abandoned.append(self.path))
        recorder, known = opened(10), []
        for path in ("/known", "/known/in-environ", "/forgotten", "/forgotten/in-environ"):
            request = exchange(path=path)
            recorder.enter(request)
            if path.endswith("in-environ"):
                request.environ[EXCHANGE] = request
            if path.startswith("/known"):
                known.append(request)
        del request
        recorder.settle()

        assert abandoned == ["/forgotten", "/forgotten/in-environ"]

    def test_what_no_server_closes_is_freed_after_an_hour(
        self, directory: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With a place or without one, unless it has not been answered."""
        recorder = opened(2, directory, threads=2)
        crowd = [exchange(started=1000.0) for _ in range(4)]
        for request in crowd:
            recorder.enter(request)
        for request in crowd[::2]:
            request.recorded = True

        for age, live, number in ((3600.0, crowd[:2], 4), (3600.5, [None, crowd[1]], 2)):
            monkeypatch.setattr(flightrecorder, "perf_counter", lambda age=age: 1000.0 + age)
            recorder.settle()
            assert recorder.live[1:] == live
            assert in_progress(recorder, directory) == number

    @pytest.mark.parametrize("place", ["memory", "directory"])
    def test_a_worker_alone_has_the_number_0(self, place: str, tmp_path: Path) -> None:
        """Also before its first request, and where others cannot read its ring."""
        recorder = FlightRecorder(10, str(tmp_path / "missing") if place == "directory" else None)
        assert (recorder.read(), recorder.tally(), recorder.in_flight()) == ([], None, [])
        with suppress(FileNotFoundError):
            recorder.open()

        assert recorder.tally() == Tally(0, "flask_", 0)
        request = exchange()
        recorder.enter(request)
        assert [(entry.worker, entry.request.path) for entry in recorder.in_flight()] == [(0, "/orders/7")]
        assert len(recorder.live) == 65

    def test_a_forked_child_leaves_the_parents_requests_alone(self, tmp_path: Path) -> None:
        recorder = opened(10, str(tmp_path))
        request = exchange(started=5.0)
        recorder.enter(request)
        child = os.fork()
        if not child:
            try:
                recorder.open()
                other = exchange(started=6.0, path="/other")
                recorder.enter(other)
                recorder.record(request)
                recorder.leave(request)
                os._exit(0 if recorder.live[other.slot] is other else 1)
            finally:
                os._exit(2)

        assert os.waitpid(child, 0)[1] == 0
        assert _running(tmp_path) == ["/orders/7", "/other"]
        assert recorder.read() == []

    def test_a_dead_workers_requests_are_not_in_progress_and_not_overwritten(self, tmp_path: Path) -> None:
        """Until somebody has read what it was answering; others take other numbers meanwhile."""
        _run(_die_answering, str(tmp_path))
        opened(10, str(tmp_path))

        assert told(tmp_path) == [("flask_", 0, None)]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["requests_0.ring", "requests_1.ring"]

    def test_a_directory_that_vanishes_takes_no_request_with_it(self, tmp_path: Path) -> None:
        place = tmp_path / "workers"
        place.mkdir(mode=0o700)
        recorder = opened(10, str(place))
        keep(recorder, **_numbered(1))
        request = exchange(**_numbered(2))
        recorder.enter(request)
        shutil.rmtree(place)
        recorder.settle(removal=True)
        tally = recorder.tally()
        assert (recorder.is_shared, tally and (tally.requests, tally.oldest and tally.oldest.started)) == (
            False,
            (1, 3.0),
        )

        place.mkdir(mode=0o700)
        keep(recorder, **_numbered(3))
        recorder.settle()
        assert (recorder.is_shared, _running(place)) == (True, ["/orders/2"])
        recorder.record(request)
        recorder.leave(request)
        assert _paths(FlightRecorder(10, str(place))) == ["/orders/3", "/orders/2", "/orders/1"]

        recorder.settle()
        assert [path.name for path in place.iterdir()] == ["requests_0.ring"]
        assert [name for name in open_below(place) if name.endswith("(deleted)")] == []


def _die_answering(directory: str) -> None:
    recorder = opened(10, directory)
    recorder.enter(exchange())


class TestWorkers:
    def test_all_are_seen_by_all(self, tmp_path: Path) -> None:
        mine = opened(10, str(tmp_path))
        keep(mine, **_numbered(1))
        _run(_record, str(tmp_path), 10, 2, 2)
        keep(mine, **_numbered(4))

        assert _paths(mine) == ["/orders/4", "/orders/3", "/orders/2", "/orders/1"]
        assert _paths(FlightRecorder(10, str(tmp_path))) == _paths(mine)

    def test_the_latest_of_a_kind_is_never_older_than_before(self, tmp_path: Path) -> None:
        """Also if the ring of a busy worker has lost it, and that of an idle one still has an older one."""
        chance = random.Random(7)
        busy, idle = (opened(4, str(tmp_path), threads=1) for _ in range(2))
        told: dict[int, float] = {}
        for now in range(1, 500):
            duration = chance.choice((0.25, 0.25, 0.25, 0.25, 2.5, 20.5))
            recorder = idle if chance.random() < 0.1 else busy
            keep(recorder, started=1000.0 + now - duration, duration=duration, status=int(duration * 4))

            latest = {request.status: request.end_time for request in reversed(recorder.latest())}
            assert {kind: end for kind, end in latest.items() if end < told.get(kind, 0.0)} == {}
            told |= latest
        assert told.keys() == {1, 10, 82}
        assert len(busy.latest()) < len(busy.read())

    def test_a_ring_that_has_lost_nothing_keeps_all_exemplars(self, tmp_path: Path) -> None:
        mine = opened(3, str(tmp_path), threads=1)
        _run(_record, str(tmp_path), 10, 1, 2)
        keep(mine, **_numbered(3))
        keep(mine, **_numbered(4))
        assert [request.path for request in mine.latest()] == [f"/orders/{number}" for number in (4, 3, 2, 1)]
        keep(mine, **_numbered(5))

        assert [request.path for request in mine.latest()] == [f"/orders/{number}" for number in (5, 4, 3)]
        assert FlightRecorder(0, str(tmp_path)).latest() == []

    def test_one_that_follows_inherits_the_ring(self, tmp_path: Path) -> None:
        """And overwrites the oldest record of it first."""
        for number in range(50):
            _run(_record, str(tmp_path), 4, 2 * number, 2)

        assert [path.name for path in tmp_path.iterdir()] == ["requests_0.ring"]
        numbers = (99, 98, 97, 96)
        assert _paths(FlightRecorder(4, str(tmp_path))) == [f"/orders/{number}" for number in numbers]

    def test_a_forked_one_writes_a_ring_of_its_own(self, directory: str | None) -> None:
        recorder = opened(10, directory)
        keep(recorder, **_numbered(1))
        child = os.fork()
        if not child:
            try:
                recorder.open()
                keep(recorder, **_numbered(2))
                os._exit(0 if "/orders/2" in _paths(recorder) else 1)
            finally:
                os._exit(2)

        assert os.waitpid(child, 0)[1] == 0
        keep(recorder, **_numbered(3))
        assert _paths(recorder) == ["/orders/3", *(["/orders/2"] if directory else []), "/orders/1"]

    def test_a_forked_one_does_not_hold_its_parents_ring(self, tmp_path: Path) -> None:
        """Else the ring of a master that has recorded would be lost for every later worker.

        A view may fork, too: a child that outlives its worker would let that one's requests be in progress.
        """
        recorder = opened(10, str(tmp_path))
        keep(recorder, **_numbered(1))
        in_progress = recorder.leave
        (ready, forked), (reading, writing) = os.pipe(), os.pipe()
        child = os.fork()
        if not child:
            os.write(forked, b"x")
            os.read(reading, 1)
            os._exit(0)
        try:
            os.read(ready, 1)
            del recorder, in_progress
            _run(_record, str(tmp_path), 10, 2, 1)

            assert [path.name for path in tmp_path.iterdir()] == ["requests_0.ring"]
        finally:
            os.write(writing, b"x")
            os.waitpid(child, 0)
            for descriptor in (ready, forked, reading, writing):
                os.close(descriptor)

    def test_a_forked_one_keeps_its_own_ring_and_nothing_of_its_parents(self, tmp_path: Path) -> None:
        recorder = opened(10, str(tmp_path))
        keep(recorder)

        def child() -> None:
            assert open_below(tmp_path) == []
            assert str(tmp_path) not in Path("/proc/self/maps").read_text()
            recorder.open()
            assert recorder.in_flight() == []
            assert ring.claim(tmp_path, "requests")[0] == 2

        as_child(child)

    def test_a_worker_holds_its_ring_until_its_very_end(self, tmp_path: Path) -> None:
        """Longer than Python calls what is to be called at its exit, and its crash is told beside it."""
        program = f"""
import atexit, os, resource, signal
atexit.register(lambda: (print(ring.claim({str(tmp_path)!r}, "requests")[0]), os.abort()))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from exporter.worker import ring
from tests.rig.exchanges import opened
recorder = opened(10, {str(tmp_path)!r})
"""
        done = subprocess.run(
            [sys.executable, "-u", "-c", program], capture_output=True, text=True, timeout=60
        )

        assert (done.stdout, done.stderr) == ("1\n", "")
        assert crash.lines(str(tmp_path), 0)[:1] == ["Fatal Python error: Aborted"]

    def test_one_that_was_killed_leaves_its_requests_behind(self, tmp_path: Path) -> None:
        stop = _processes.Event()
        process = _processes.Process(target=_write_until_told, args=(str(tmp_path), 0, stop))
        process.start()
        reader = FlightRecorder(200, str(tmp_path))
        try:
            # What is written while the ring is read is left out, so it seldom shows as full.
            eventually(lambda: any(one.start_time > LEAD + 4 * 201 for one in reader.read()), "a full ring")
        finally:
            process.kill()
            process.join()
        found = reader.read()

        assert len(found) >= 199  # the one that it was writing is still running
        assert all(map(_is_whole, found))

    def test_no_torn_record_is_shown_while_four_write(self, tmp_path: Path) -> None:
        _read_while_four_write(tmp_path, seconds=1.0)

    @pytest.mark.soak
    def test_no_torn_record_is_shown_while_four_write_for_long(self, tmp_path: Path) -> None:
        _read_while_four_write(tmp_path, seconds=30.0)

    def test_one_that_answers_little_keeps_little_in_memory(self, tmp_path: Path) -> None:
        recorder = opened(1000, str(tmp_path))
        keep(recorder)
        mapping = Path("/proc/self/smaps").read_text().partition(f"{tmp_path}/requests_0.ring")[2]
        resident, *_ = re.findall(r"^Rss: +(\d+) kB$", mapping, re.MULTILINE)

        assert int(resident) * 1024 < 1000 * RECORD // 4
        assert _paths(recorder) == ["/orders/7"]

    def test_the_start_of_the_service_outlives_its_workers(self, tmp_path: Path) -> None:
        first = FlightRecorder(10, str(tmp_path))
        started = first.birth()
        first.open()
        del first
        _run(_record, str(tmp_path), 10, 1, 1)

        assert FlightRecorder(10, str(tmp_path)).birth() == started


def _read_while_four_write(directory: Path, seconds: float) -> None:
    stop = _processes.Event()
    writers = [
        _processes.Process(target=_write_until_told, args=(str(directory), number, stop))
        for number in range(4)
    ]
    for writer in writers:
        writer.start()
    reader = FlightRecorder(200, str(directory))
    eventually(lambda: len(reader.read()) >= 790, "four full rings")
    end = time.monotonic() + seconds
    seen = rounds = 0
    try:
        while time.monotonic() < end or rounds <= 5:
            found = reader.read()
            seen, rounds = seen + len(found), rounds + 1
            running = [
                one for _, ring, _ in requests.read(str(directory), 201) for one in requests.in_flight(ring)
            ]

            assert all(map(_is_whole, found))
            assert all(
                (one.path, one.request_id)
                == ((shape := exchange(**_shapely(round(one.started)))).path, shape.request_id)
                for one in running
            )
    finally:
        stop.set()
        for writer in writers:
            writer.join(30)
    assert len(reader.read()) == 800
    assert seen > 400 * rounds  # what is written while a ring is read is left out


class TestDamage:
    @pytest.mark.parametrize("at", [40, HEAD_AT, HEAD_AT + 100, RECORD - 8])
    def test_a_record_that_changes_while_it_is_read_is_left_out(self, at: int, tmp_path: Path) -> None:
        _run(_record, str(tmp_path), 10, 1, 3)
        ((_, before, after),) = requests.read(str(tmp_path), 100)
        data = bytearray(before.data)
        data[before.header.offsets()[2] + at] ^= 0x41
        changed = before._replace(data=bytes(data))

        for first, second in ((changed, after), (before, changed)):
            assert sorted(request.path for request in requests.history(first, second)) == [
                "/orders/1",
                "/orders/3",
            ]

    @pytest.mark.parametrize(
        "content", [b"", b"flight03", b"x" * 10_000, bytes(64 + 616 * 65), b"request1" * 1000]
    )
    def test_a_broken_ring_costs_itself_and_is_made_anew(self, tmp_path: Path, content: bytes) -> None:
        _run(_record, str(tmp_path), 10, 1, 1)
        (tmp_path / "requests_1.ring").write_bytes(content)
        (tmp_path / "requests_x.ring").write_bytes(content)

        assert _paths(FlightRecorder(10, str(tmp_path))) == ["/orders/1"]

        first, second = opened(10, str(tmp_path)), opened(10, str(tmp_path))
        keep(first, **_numbered(2))
        keep(second, **_numbered(3))

        assert _paths(first) == ["/orders/3", "/orders/2", "/orders/1"]

    def test_a_ring_of_more_than_ten_thousand_requests_is_read_by_its_own_worker(
        self, tmp_path: Path
    ) -> None:
        recorder = opened(10_001, str(tmp_path))
        keep(recorder)

        assert _paths(recorder) == ["/orders/7"]

    def test_another_size_begins_a_new_ring(self, tmp_path: Path) -> None:
        _run(_record, str(tmp_path), 100, 1, 3)
        recorder = opened(70, str(tmp_path))
        keep(recorder, **_numbered(9))

        assert _paths(recorder) == ["/orders/9"]
        assert (tmp_path / "requests_0.ring").stat().st_size == 64 + 71 * 616

    @pytest.mark.parametrize(
        ("recent", "threads", "records"),
        [(0, 0, 65), (0, 8, 9), (10, 8, 11), (10, 2000, 2001), (100, 0, 101)],
    )
    def test_there_is_a_place_for_every_thread(
        self, recent: int, threads: int, records: int, tmp_path: Path
    ) -> None:
        """And one that is nobody's."""
        recorder = opened(recent, str(tmp_path), threads)

        assert len(recorder.live) == records
        assert (tmp_path / "requests_0.ring").stat().st_size == 64 + 616 * records

    def test_a_full_disk_is_an_error_and_no_signal_and_heals(self, tmp_path: Path) -> None:
        """SIGBUS at a write would end the worker; a limit on file sizes stands in for the full disk."""
        program = f"""
import pathlib, resource
from exporter.worker import flightrecorder
from tests.rig.descriptors import open_below
from tests.rig.exchanges import keep

recorder = flightrecorder.FlightRecorder(10, {str(tmp_path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    recorder.open()
except OSError:
    print("refused", open_below(pathlib.Path({str(tmp_path)!r})))
keep(recorder, started=5.0)
recorder.settle()
print(recorder.is_shared, len(recorder.read()))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
recorder.settle()
keep(recorder, started=6.0)
print(recorder.is_shared, len(recorder.read()))
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

        assert (done.stdout.split(), done.stderr) == (["refused", "[]", "False", "1", "True", "2"], "")


def test_a_slot_that_another_request_has_taken_shows_none_of_it() -> None:
    record = requests.head.pack(0.0, b"id", b"GET", 0, b"/", 1, 1000.0, 5.0)

    assert requests.InFlight.of(1, 5.0, record) is not None
    assert requests.InFlight.of(1, 4.0, record) is None


def test_a_request_is_frozen() -> None:
    recorder = opened(1)
    keep(recorder)

    with pytest.raises(dataclasses.FrozenInstanceError):
        recorder.read()[0].status = 500  # type: ignore[misc]


class TestHostileFiles:
    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
    def test_what_is_no_file_is_left_out(self, make: Callable[[Path], None], tmp_path: Path) -> None:
        make(tmp_path / "requests_9.ring")
        recorder = opened(10, str(tmp_path))
        keep(recorder)

        assert len(recorder.read()) == 1
        assert told(tmp_path) == [("flask_", 0, None)]

    @pytest.mark.parametrize("size", [1 << 40, 64 + 616 * 1_000_000])
    def test_a_file_that_is_too_large_is_left_out(self, size: int, tmp_path: Path) -> None:
        """Also where its header goes with it."""
        recorder = opened(10, str(tmp_path))
        keep(recorder)
        with open(tmp_path / "requests_9.ring", "wb") as file:
            file.write(Header((size - 64) // 616 & 0xFFFFF, 0.0, 0, "flask_").pack())
            file.truncate(size)

        assert len(recorder.read()) == 1

    @pytest.mark.parametrize(
        ("names", "lead", "duration"),
        [
            (b"2000", 0.0, 0.1),
            (b"abc00GET", 0.0, 0.1),
            (b"", 0.0, 0.1),
            (b"20000GET\0\0x\0/", math.nan, 0.1),
            (b"20000GET\0\0x\0/", math.inf, 0.1),
            (b"20000GET\0\0x\0/", -1e300, 0.1),
            (b"20000GET\0\0x\0/", 0.0, math.nan),
            (b"20000GET\0\0x\0/", 0.0, math.inf),
            (b"20000GET\0\0x\0/", 0.0, -1.0),
        ],
    )
    def test_a_record_that_nobody_of_ours_has_written_is_left_out(
        self, names: bytes, lead: float, duration: float, tmp_path: Path
    ) -> None:
        recorder = opened(2, str(tmp_path))
        keep(recorder)
        record = bytearray(RECORD)
        requests.tail.pack_into(record, 0, b"", names, 0, 0, 0.0)
        requests.head.pack_into(record, HEAD_AT, duration, b"id", b"GET", 0, b"/", 0, lead, 1.0)
        with open(tmp_path / "requests_0.ring", "r+b") as file:
            file.seek(64 + 8 * 65 + 2 * RECORD)
            file.write(record)

        assert [request.path for request in recorder.read()] == ["/orders/7"]

    @pytest.mark.parametrize("start", [math.nan, math.inf, -math.inf, -1.0, 1e300])
    def test_a_start_that_cannot_be_is_no_request(self, start: float, tmp_path: Path) -> None:
        recorder = opened(2, str(tmp_path))
        recorder.enter(exchange(started=5.0))
        with open(tmp_path / "requests_0.ring", "r+b") as file:
            file.seek(64)
            file.write(struct.pack("<3d", start, 5.0, start))

        assert told(tmp_path) == [("flask_", 1, 5.0)]
        assert _running(tmp_path) == ["/orders/7"]


@pytest.mark.parametrize(
    ("at", "change"),
    [
        (0, b"flight03"),
        (8, struct.pack("<I", RECORD + 8)),
        (12, struct.pack("<I", 1)),
        (12, struct.pack("<I", 1 << 31)),
        (16, struct.pack("<d", -1.0)),
        (16, struct.pack("<d", math.nan)),
    ],
)
def test_a_header_that_nobody_of_ours_has_written_is_none(at: int, change: bytes) -> None:
    content = Header(10, 5.0, 1, "flask_").pack()
    assert Header.of(content) == Header(10, 5.0, 1, "flask_")

    assert Header.of(content[:at] + change + content[at + len(change) :]) is None


def test_uptime_is_of_a_clock_that_nobody_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the wall clock jumps; and a ring of before the machine's last start says nothing."""
    recorder = opened(10, str(tmp_path))
    keep(recorder)
    started = time.monotonic()
    for jump in (-86_400.0, 3600.0):
        monkeypatch.setattr(writers, "time", lambda jump=jump: 1.8e9 + jump)
        recorder.settle()
        assert 0.0 <= started - recorder.birth() < 60.0

    header = Header(2, started + 1e6, 0, "flask_")
    (tmp_path / "requests_9.ring").write_bytes(header.pack().ljust(header.length, b"\0"))
    assert recorder.birth() <= started


def test_a_wall_clock_that_is_set_holds_for_what_begins_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = opened(10)
    keep(recorder, started=5.0)
    now = time.time()
    monkeypatch.setattr(writers, "time", lambda: now + 7200.0)
    recorder.settle()
    keep(recorder, started=5.0)

    later, earlier = recorder.read()
    assert later.start_time - earlier.start_time == pytest.approx(7200.0, abs=5.0)
