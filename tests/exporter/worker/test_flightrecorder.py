"""The flight recorder: what it shows is what happened, whoever wrote it and however that writer ended."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.worker.flightrecorder import FlightRecorder, Request
from tests.rig.deadline import eventually
from tests.rig.exchanges import exchange

_processes = multiprocessing.get_context("fork")


def _numbered(number: int, **changes: Any) -> Any:
    return exchange(start_time=1_767_225_600.0 + number, path=f"/orders/{number}", **changes)


def _paths(recorder: FlightRecorder) -> list[str]:
    return [request.path for request in recorder.read()]


def _run(target: Callable[..., None], *arguments: object) -> None:
    """Run in another process, to its good end."""
    process = _processes.Process(target=target, args=arguments)
    process.start()
    process.join(30)

    assert process.exitcode == 0


def _record(directory: str, size: int, first: int, count: int) -> None:
    recorder = FlightRecorder(size, directory)
    for number in range(first, first + count):
        recorder.record(_numbered(number))


def _shapely(identity: int) -> Any:
    """A record in which every part follows from its number, so that a mixture of two is seen."""
    text = f"{identity:x}-" * (1 + identity % 12)
    return exchange(
        start_time=float(identity), duration=float(identity), request_size=identity, response_size=identity,
        request_id=text[:64], endpoint=text, rule=f"/{text}", path=f"/p/{text}",
    )  # fmt: skip


def _is_whole(request: Request) -> bool:
    made = _shapely(request.request_size)
    return (
        made.start_time,
        made.duration,
        made.response_size,
        made.request_id,
        made.endpoint,
        made.rule,
    ) == (
        request.start_time,
        request.duration,
        request.response_size,
        request.request_id,
        request.endpoint,
        request.url_rule,
    ) and request.path == made.path


def _write_until_told(directory: str, offset: int, stop: Any) -> None:
    recorder = FlightRecorder(200, directory)
    number = offset
    while not stop.is_set():
        recorder.record(_shapely(number))
        number += 4


@pytest.fixture(params=["memory", "directory"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> str | None:
    return str(tmp_path) if request.param == "directory" else None


class TestRecord:
    def test_everything_is_read_back(self, directory: str | None) -> None:
        recorder = FlightRecorder(10, directory)
        failure = {"status": 503, "failed": True, "error_type": "Überlast", "disconnected": True}
        recorder.record(exchange(**failure, request_size=17, trace_id="ab" * 16))

        expected = Request(
            start_time=1_767_225_600.25,
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
        recorder = FlightRecorder(10, directory)
        for number in range(25):
            recorder.record(_numbered(number))

        assert _paths(recorder) == [f"/orders/{number}" for number in range(24, 14, -1)]

    def test_nothing_is_kept_and_no_file_made_with_size_0(self, tmp_path: Path) -> None:
        recorder = FlightRecorder(0, str(tmp_path))
        recorder.record(exchange())

        assert recorder.read() == []
        assert recorder.started() <= time.monotonic()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("path", "shown"),
        [
            ("/caf\u00c3\u00a9", "/café"),  # UTF-8 as WSGI hands it over
            ("/\u00ff", "/\ufffd"),
            ("/\udcff", "/?"),
            ("/a\0b\r\nc\x1b[31m", "/a\0b\r\nc\x1b[31m"),
            ("/" + "x" * 1_000_000, "/" + "x" * 255),
            ("/" + "\u00c3\u00a9" * 500_000, "/" + "é" * 127 + "\ufffd"),
            ("", ""),
        ],
    )
    def test_any_path_is_kept_within_bounds(self, directory: str | None, path: str, shown: str) -> None:
        recorder = FlightRecorder(3, directory)
        recorder.record(exchange(path=path))
        (request,) = recorder.read()

        assert (request.path, request.url_rule, request.endpoint) == (
            shown,
            "/orders/<int:id>",
            "orders.show",
        )

    @pytest.mark.parametrize("rule", ["/a\0b", "/" + "r" * 5000, "/é\U0001f600\udc80"])
    def test_any_rule_leaves_the_other_fields_alone(self, directory: str | None, rule: str) -> None:
        recorder = FlightRecorder(3, directory)
        recorder.record(exchange(rule=rule))
        (request,) = recorder.read()

        assert request.url_rule == rule[:216].replace("\udc80", "?")
        assert (request.path, request.endpoint) == ("/orders/7", "orders.show")

    def test_names_that_are_too_long_cost_only_the_names_that_follow(self, directory: str | None) -> None:
        recorder = FlightRecorder(3, directory)
        recorder.record(exchange(error_type="E" * 9000))
        (request,) = recorder.read()

        assert (request.status, request.method, set(request.error_type)) == (200, "GET", {"E"})
        assert (request.endpoint, request.url_rule, request.path) == ("", "", "/orders/7")

    def test_threads_do_not_disturb_each_other(self, directory: str | None) -> None:
        recorder = FlightRecorder(1000, directory)

        def write(first: int) -> None:
            for number in range(first, first + 5000):
                recorder.record(_shapely(number))

        threads = [threading.Thread(target=write, args=(5000 * number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = recorder.read()

        assert len(found) == len({request.request_size for request in found}) == 1000
        assert all(map(_is_whole, found))


class TestWorkers:
    def test_all_are_seen_by_all(self, tmp_path: Path) -> None:
        mine = FlightRecorder(10, str(tmp_path))
        mine.record(_numbered(1))
        _run(_record, str(tmp_path), 10, 2, 2)
        mine.record(_numbered(4))

        assert _paths(mine) == ["/orders/4", "/orders/3", "/orders/2", "/orders/1"]
        assert _paths(FlightRecorder(10, str(tmp_path))) == _paths(mine)

    def test_one_that_follows_inherits_the_ring(self, tmp_path: Path) -> None:
        for number in range(5):
            _run(_record, str(tmp_path), 4, 2 * number, 2)

        assert [path.name for path in tmp_path.iterdir()] == ["recent_0.ring"]
        assert _paths(FlightRecorder(4, str(tmp_path))) == [f"/orders/{number}" for number in (9, 8, 7, 6)]

    def test_a_forked_one_writes_a_ring_of_its_own(self, directory: str | None) -> None:
        recorder = FlightRecorder(10, directory)
        recorder.record(_numbered(1))
        child = os.fork()
        if not child:
            try:
                recorder.record(_numbered(2))
                os._exit(0 if "/orders/2" in _paths(recorder) else 1)
            finally:
                os._exit(2)

        assert os.waitpid(child, 0)[1] == 0
        recorder.record(_numbered(3))
        assert _paths(recorder) == ["/orders/3", *(["/orders/2"] if directory else []), "/orders/1"]

    def test_a_forked_one_does_not_hold_its_parents_ring(self, tmp_path: Path) -> None:
        """Else the ring of a master that has recorded would be lost for every later worker."""
        recorder = FlightRecorder(10, str(tmp_path))
        recorder.record(_numbered(1))
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.read(reading, 1)
            os._exit(0)
        try:
            del recorder
            _run(_record, str(tmp_path), 10, 2, 1)

            assert [path.name for path in tmp_path.iterdir()] == ["recent_0.ring"]
        finally:
            os.write(writing, b"x")
            os.waitpid(child, 0)
            os.close(reading)
            os.close(writing)

    def test_one_that_was_killed_leaves_its_requests_behind(self, tmp_path: Path) -> None:
        stop = _processes.Event()
        process = _processes.Process(target=_write_until_told, args=(str(tmp_path), 0, stop))
        process.start()
        reader = FlightRecorder(200, str(tmp_path))
        eventually(lambda: len(reader.read()) >= 199, "a full ring")
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        found = reader.read()

        assert len(found) >= 199  # the one that it was writing may be torn, and is not shown
        assert all(map(_is_whole, found))

    def test_no_torn_record_is_shown_while_four_write(self, tmp_path: Path) -> None:
        _read_while_four_write(tmp_path, seconds=1.0)

    @pytest.mark.soak
    def test_no_torn_record_is_shown_while_four_write_for_long(self, tmp_path: Path) -> None:
        _read_while_four_write(tmp_path, seconds=30.0)

    def test_the_start_of_the_service_outlives_its_workers(self, tmp_path: Path) -> None:
        first = FlightRecorder(10, str(tmp_path))
        started = first.started()
        _run(_record, str(tmp_path), 10, 1, 1)

        assert FlightRecorder(10, str(tmp_path)).started() == started


def _read_while_four_write(directory: Path, seconds: float) -> None:
    stop = _processes.Event()
    writers = [
        _processes.Process(target=_write_until_told, args=(str(directory), number, stop))
        for number in range(4)
    ]
    for writer in writers:
        writer.start()
    reader = FlightRecorder(200, str(directory))
    eventually(lambda: len(list(directory.glob("*.ring"))) == 4, "four rings")
    end = time.monotonic() + seconds
    seen = rounds = 0
    try:
        while time.monotonic() < end or rounds <= 5:
            found = reader.read()
            seen, rounds = seen + len(found), rounds + 1
            times = [request.start_time for request in found]

            assert all(map(_is_whole, found))
            assert times == sorted(times, reverse=True)
            assert len(set(times)) == len(times)
    finally:
        stop.set()
        for writer in writers:
            writer.join(30)
    assert len(reader.read()) == 800
    assert seen > 790 * (rounds - 5)  # one of each writer may be under way


class TestDamage:
    def test_a_changed_byte_costs_its_record_and_no_other(self, tmp_path: Path) -> None:
        recorder = FlightRecorder(3, str(tmp_path))
        for number in range(3):
            recorder.record(_numbered(number))
        (path,) = tmp_path.iterdir()
        content = path.read_bytes()
        used = 4 + 44 + len("20000GET\0\0orders.show\0/orders/<int:id>5f2b7c1e9a3d4f60000003e8\0\0/orders/1")
        start = 64 + 640  # the second record

        for at in range(start, start + used):
            path.write_bytes(content[:at] + bytes([content[at] ^ 0x41]) + content[at + 1 :])
            assert _paths(recorder) == ["/orders/2", "/orders/0"], at - start
        path.write_bytes(content)
        assert len(recorder.read()) == 3

    @pytest.mark.parametrize(
        "content", [b"", b"flight02", b"x" * 10_000, bytes(64 + 640 * 10), b"flight02" * 1000]
    )
    def test_a_broken_ring_costs_itself_and_is_made_anew(self, tmp_path: Path, content: bytes) -> None:
        _run(_record, str(tmp_path), 10, 1, 1)
        (tmp_path / "recent_1.ring").write_bytes(content)
        (tmp_path / "recent_x.ring").write_bytes(content)

        assert _paths(FlightRecorder(10, str(tmp_path))) == ["/orders/1"]

        first, second = FlightRecorder(10, str(tmp_path)), FlightRecorder(10, str(tmp_path))
        first.record(_numbered(2))
        second.record(_numbered(3))

        assert _paths(first) == ["/orders/3", "/orders/2", "/orders/1"]

    def test_another_size_begins_a_new_ring(self, tmp_path: Path) -> None:
        _run(_record, str(tmp_path), 10, 1, 3)
        recorder = FlightRecorder(5, str(tmp_path))
        recorder.record(_numbered(9))

        assert _paths(recorder) == ["/orders/9"]
        assert (tmp_path / "recent_0.ring").stat().st_size == 64 + 5 * 640

    def test_a_full_disk_is_an_error_and_no_signal_and_heals(self, tmp_path: Path) -> None:
        """SIGBUS at a write would end the worker; a limit on file sizes stands in for the full disk."""
        program = f"""
import resource
from exporter.worker import flightrecorder
from tests.rig.deadline import eventually
from tests.rig.exchanges import exchange

flightrecorder._RETRY_SECONDS = 0.0
recorder = flightrecorder.FlightRecorder(10, {str(tmp_path)!r})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for _ in range(3):
    try:
        recorder.record(exchange())
    except OSError:
        print("refused")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
recorder.record(exchange())
print(len(recorder.read()))
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)

        assert (done.stdout.split(), done.stderr) == (["refused"] * 3 + ["1"], "")

    def test_a_directory_that_cannot_be_used_is_tried_once_a_second(self, tmp_path: Path) -> None:
        recorder = FlightRecorder(10, str(tmp_path / "none"))
        for _ in range(2):
            with pytest.raises(OSError, match="none"):
                recorder.record(exchange())
        (tmp_path / "none").mkdir()
        recorder._retry_at = 0.0
        recorder.record(exchange())

        assert len(recorder.read()) == 1


def test_a_request_is_frozen() -> None:
    recorder = FlightRecorder(1)
    recorder.record(exchange())

    with pytest.raises(dataclasses.FrozenInstanceError):
        recorder.read()[0].status = 500  # type: ignore[misc]


class TestHostileFiles:
    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
    def test_what_is_no_file_is_left_out(self, make: Callable[[Path], None], tmp_path: Path) -> None:
        make(tmp_path / "recent_9.ring")
        recorder = FlightRecorder(10, str(tmp_path))
        recorder.record(exchange())

        assert len(recorder.read()) == 1

    @pytest.mark.parametrize("size", [1 << 40, 64 + 640 * 1_000_000])
    def test_a_file_that_is_too_large_is_left_out(self, size: int, tmp_path: Path) -> None:
        """Also where its header goes with it."""
        recorder = FlightRecorder(10, str(tmp_path))
        recorder.record(exchange())
        with open(tmp_path / "recent_9.ring", "wb") as file:
            file.write(struct.pack("<8sIId", b"flight03", 640, size // 640, 0.0))
            file.truncate(size)

        assert len(recorder.read()) == 1

    @pytest.mark.parametrize(
        ("names", "texts", "start"),
        [
            (b"20000GET\0\0x\0/", b"no separators", 1.0),
            (b"20000GET\0\0x\0/", b"one\0only", 1.0),
            (b"2000", b"id\0trace\0/", 1.0),
            (b"abc00GET", b"id\0trace\0/", 1.0),
            (b"20000GET\0\0x\0/", b"id\0trace\0/", math.nan),
            (b"20000GET\0\0x\0/", b"id\0trace\0/", math.inf),
            (b"20000GET\0\0x\0/", b"id\0trace\0/", -1e300),
        ],
    )
    def test_a_record_that_nobody_of_ours_has_written_is_left_out(
        self, names: bytes, texts: bytes, start: float, tmp_path: Path
    ) -> None:
        """Its checksum is right, the rest is not."""
        recorder = FlightRecorder(2, str(tmp_path))
        recorder.record(exchange())
        body = struct.pack("<HHQddqq", len(names), len(texts), 9, start, 0.1, 0, 0) + names + texts
        with open(tmp_path / "recent_0.ring", "r+b") as file:
            file.seek(64 + 640)
            file.write(zlib.crc32(body).to_bytes(4, "little") + body)

        assert [request.path for request in recorder.read()] == ["/orders/7"]


def test_uptime_is_of_a_clock_that_nobody_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the wall clock jumps; and a ring of before the machine's last start says nothing."""
    recorder = FlightRecorder(10, str(tmp_path))
    recorder.record(exchange())
    started = time.monotonic()
    for jump in (-86_400.0, 3600.0):
        monkeypatch.setattr(time, "time", lambda jump=jump: 1.8e9 + jump)
        assert 0.0 <= started - recorder.started() < 60.0

    with open(tmp_path / "recent_9.ring", "wb") as file:
        file.write(struct.pack("<8sIId", b"flight03", 640, 0, started + 1e6).ljust(64, b"\0"))
    assert recorder.started() <= started
