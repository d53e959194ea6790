"""The request log: every line whole, true and once, whatever a client sends and however many write."""

from __future__ import annotations

import errno
import fcntl
import gc
import http.client
import json
import logging
import multiprocessing
import os
import re
import select
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, copy_current_request_context, request, stream_with_context
from prometheus_client import CollectorRegistry

from exporter import FlaskExporter
from exporter.log.destinations import Stdout, Syslog, shorten
from exporter.log.records import RequestContext
from exporter.log.requestlog import RequestLog
from exporter.log.rotating import RotatingFile, UnsharedFile
from exporter.observation import EXCHANGE, Delay
from exporter.settings import Settings, SettingsError
from tests.rig.clients import ask
from tests.rig.deadline import eventually
from tests.rig.descriptors import open_below
from tests.rig.exchanges import exchange
from tests.rig.network import free_ports
from tests.rig.places import ROOT
from tests.rig.program import Program, module
from tests.rig.wsgi import application, call

_processes = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "requests.log"


@pytest.fixture
def log(path: Path) -> Iterator[Callable[..., RequestLog]]:
    """Makes request logs into `path`, closed at the end."""
    made: list[RequestLog] = []

    def make(**settings: Any) -> RequestLog:
        made.append(RequestLog(Settings.load({}, **{"request_log": str(path), **settings})))
        return made[-1]

    yield make
    for one in made:
        one.close()


def _lines(path: Path) -> list[dict[str, Any]]:
    """The records of a log; each line must be whole JSON of printable ASCII."""
    lines = path.read_bytes().split(b"\n")

    assert lines.pop() == b""
    assert all(re.fullmatch(rb"[\x20-\x7e]+", line) for line in lines)
    return [json.loads(line) for line in lines]


class TestLine:
    def test_it_has_these_fields(self, log: Callable[..., RequestLog], path: Path) -> None:
        log().write(exchange(trace_id="ab" * 16, request_size=17))

        expected = {
            "timestamp": "2026-01-01T00:00:00.262500Z",
            "level": "INFO",
            "logger": "exporter.request",
            "instance": socket.gethostname(),
            "message": "GET /orders/<int:id> 200",
            "request_id": "5f2b7c1e9a3d4f60000003e8",
            "trace_id": "ab" * 16,
            "method": "GET",
            "path": "/orders/7",
            "url_rule": "/orders/<int:id>",
            "endpoint": "orders.show",
            "status": 200,
            "duration_seconds": 0.0125,
            "request_bytes": 17,
            "response_bytes": 512,
            "remote_addr": "192.0.2.7",
            "error_type": "",
            "error_group": "",
        }
        assert [expected] == _lines(path)
        assert list(expected) == list(_lines(path)[0])

    @pytest.mark.parametrize("recent", [0, 100])
    def test_the_next_one_of_its_kind_has_them_too(self, path: Path, recent: int) -> None:
        """What the recorder knows of a kind is not looked for again."""
        app, exporter = application(request_log=str(path), recent=recent)
        for _ in range(3):
            call(app, "/orders/7")
        exporter.core.request_log.close()

        own = {"timestamp", "request_id", "duration_seconds"}
        kinds = [{name: line[name] for name in line.keys() - own} for line in _lines(path)]
        assert kinds == kinds[:1] * 3
        assert (kinds[0]["method"], kinds[0]["status"], kinds[0]["endpoint"]) == ("GET", 200, "show")

    def test_a_slow_one_has_these_too(self, log: Callable[..., RequestLog], path: Path) -> None:
        shares = {"orders:load": 0.75, 'orders:f"': 0.25}
        log().write(exchange(delay=Delay("orders:load", 7, "sqlalchemy:execute", "cursor.execute", shares)))
        log().write(exchange(delay=Delay("-", 0, "interpreter blocked", "", {"-": 1.0})))
        log().write(exchange())

        fields = [dict(list(line.items())[18:]) for line in _lines(path)]
        assert fields == [
            {
                "where": "orders:load",
                "line": 7,
                "library": "sqlalchemy:execute",
                "call": "cursor.execute",
                "shares": shares,
            },
            {"where": "-", "line": 0, "library": "interpreter blocked", "call": "", "shares": {"-": 1}},
            {},
        ]

    def test_it_names_the_instance_as_told(self, log: Callable[..., RequestLog], path: Path) -> None:
        log(instance='10.0.0.7:8000"').write(exchange())

        assert [line["instance"] for line in _lines(path)] == ['10.0.0.7:8000"']

    @pytest.mark.parametrize(
        ("status", "failed", "level"),
        [
            (200, False, "INFO"),
            (302, False, "INFO"),
            (399, False, "INFO"),
            (400, False, "WARNING"),
            (404, False, "WARNING"),
            (500, True, "ERROR"),
            (200, True, "ERROR"),
        ],
    )
    def test_its_level_follows_from_the_answer(
        self, log: Callable[..., RequestLog], path: Path, status: int, failed: bool, level: str
    ) -> None:
        log().write(exchange(status=status, failed=failed))

        assert [level] == [line["level"] for line in _lines(path)]

    @pytest.mark.parametrize(
        ("end", "stamp"),
        [
            (0.0, "1970-01-01T00:00:00.000000Z"),
            (1_767_225_600 + 2**-10, "2026-01-01T00:00:00.000976Z"),
            (1_767_225_600.0625, "2026-01-01T00:00:00.062500Z"),
        ],
    )
    def test_its_time_has_six_digits(
        self, log: Callable[..., RequestLog], path: Path, end: float, stamp: str
    ) -> None:
        log().write(exchange(start_time=end, duration=0.0))

        assert [stamp] == [line["timestamp"] for line in _lines(path)]

    def test_the_setting_leaves_lower_levels_out(self, log: Callable[..., RequestLog], path: Path) -> None:
        written = log(log_level="WARNING")
        for status in (200, 404, 500):
            written.write(exchange(status=status, failed=status == 500))

        assert [line["status"] for line in _lines(path)] == [404, 500]

    @pytest.mark.parametrize(
        ("sent", "shown"),
        [
            ('/a\r\n{"level":"ERROR"}', '/a\r\n{"level":"ERROR"}'),
            ("/\x1b[31m\x1b]0;title\x07\x9b\x7f", "/\x1b[31m\x1b]0;title\x07\ufffd\x7f"),
            ("/\udcff\ud800", "/??"),
            ("/caf\u00c3\u00a9\u00e2\u0080\u00a8", "/café\u2028"),
            ("/" + "x" * 511, "/" + "x" * 511),
            ("/" + "x" * 512, "/" + "x" * 511 + "…"),
            ("/" + "x" * 1_000_000, "/" + "x" * 511 + "…"),
            ('"\\', '"\\'),
        ],
    )
    def test_no_path_can_forge_a_line(
        self, log: Callable[..., RequestLog], path: Path, sent: str, shown: str
    ) -> None:
        log(log_query=True).write(
            exchange(path=sent, environ={"QUERY_STRING": sent, "REMOTE_ADDR": "127.0.0.1"})
        )
        (line,) = _lines(path)

        assert line["path"] == shown
        assert len(path.read_bytes()) < 4096

    def test_what_a_client_can_choose_fits_into_one_atomic_write_to_a_pipe(
        self, log: Callable[..., RequestLog], path: Path
    ) -> None:
        worst = "\U0001f600".encode().decode("latin-1") * 10_000
        log().write(exchange(path=worst, request_id="i" * 64, trace_id="t" * 32))

        assert len(path.read_bytes()) <= 4096

    def test_the_address_is_the_client_s_behind_a_declared_proxy(
        self, log: Callable[..., RequestLog], path: Path
    ) -> None:
        environ = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "198.51.100.1, 203.0.113.9"}
        log(trusted_proxies="10.0.0.1").write(exchange(environ=environ))
        log().write(exchange(environ=environ))
        log(trusted_proxies="10.0.0.9").write(exchange(environ=environ))

        assert [line["remote_addr"] for line in _lines(path)] == ["203.0.113.9", "10.0.0.1", "10.0.0.1"]


class TestQuery:
    def test_it_is_left_out_by_default(self, log: Callable[..., RequestLog], path: Path) -> None:
        log().write(exchange(environ={"QUERY_STRING": "password=hunter2"}))

        assert "query" not in _lines(path)[0]
        assert b"hunter2" not in path.read_bytes()

    @pytest.mark.parametrize(
        ("query", "shown"),
        [
            ("", ""),
            ("page=2&size=10", "page=2&size=10"),
            ("page=2&password=hunter2&x=", "page=2&password=***&x="),
            ("PassWord=hunter2", "PassWord=***"),
            ("pass%77ord=hunter2", "pass%77ord=***"),
            ("user[password]=hunter2&user%5Btoken%5D=t", "user[password]=***&user%5Btoken%5D=***"),
            ("token[]=a&token[]=b", "token[]=***&token[]=***"),
            ("a.secret=b=c", "a.secret=***"),
            ("token", "token"),
            *(
                (f"{name}=hunter2", f"{name}=***")
                for name in (
                    "client_secret",
                    "refresh_token",
                    "id_token",
                    "new_password",
                    "auth",
                    "apikey",
                    "api-key",
                    "access-token",
                    "X-Api-Key",
                    "sig",
                    "X-Amz-Signature",
                    "pwd",
                    "session",
                    "PHPSESSID",
                    "jwt",
                    "code",
                    "authorization",
                    "private_key",
                    "user-password",
                    "credentials",
                    "otp",
                )
            ),
            ("password:hunter2", "password:***"),
            ("a=1;password=hunter2;b=2", "a=1;password=***;b=2"),
            ("next=%2Flogin%3Fpassword%3Dhunter2", "next=***"),
            ("next=%252Flogin%253Ftoken%253Dhunter2", "next=***"),
            ("q=%7B%22secret%22%3A%22hunter2%22%7D", "q=***"),
            ("author=me&zipcode=12345&t=10:20", "author=me&zipcode=12345&t=10:20"),
            ("keyboard=1&monkey=2", "keyboard=1&monkey=2"),
            ("a=" + "x" * 1000 + "&token=t", "a=" + "x" * 510),
        ],
    )
    def test_named_parameters_are_masked(
        self, log: Callable[..., RequestLog], path: Path, query: str, shown: str
    ) -> None:
        log(log_query=True).write(exchange(environ={"QUERY_STRING": query}))

        assert shown == _lines(path)[0]["query"]

    def test_which_ones_is_a_setting(self, log: Callable[..., RequestLog], path: Path) -> None:
        log(log_query=True, log_mask="iban").write(exchange(environ={"QUERY_STRING": "iban=1&token=2"}))

        assert _lines(path)[0]["query"] == "iban=***&token=2"


def _all_written(path: Path) -> list[bytes]:
    return [line for file in sorted(path.parent.iterdir()) for line in file.read_bytes().splitlines()]


def _write_numbers(path: Path, limit: int, backups: int, worker: int, count: int) -> None:
    to = RotatingFile(str(path), limit, backups)
    padding = b"." * 300
    for number in range(count):
        to.write(b"%d %d %s\n" % (worker, number, padding), 6)


def _rotate_under_four_workers(path: Path, lines: int, limit: int) -> list[int]:
    """The sizes of the files."""
    workers = [
        _processes.Process(target=_write_numbers, args=(path, limit, 1000, worker, lines // 4))
        for worker in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    found = _all_written(path)
    expected = {
        b"%d %d %s" % (worker, number, b"." * 300) for worker in range(4) for number in range(lines // 4)
    }
    assert len(found) == lines
    assert set(found) == expected
    return [file.stat().st_size for file in path.parent.iterdir()]


class TestRotation:
    @pytest.mark.parametrize(("lines", "limit"), [(20_000, 100_000), (200_000, 1_000_000)])
    def test_four_workers_lose_and_mix_no_line(
        self, path: Path, lines: int, limit: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nor grows a file, where nobody gives up because the one that rotates waits for a processor."""
        monkeypatch.setattr("exporter.log.rotating._PATIENCE", 60.0)
        sizes = _rotate_under_four_workers(path, lines, limit)

        assert len(sizes) > lines * 300 // limit // 2
        assert max(sizes) < limit + 4 * 320  # a line of each writer

    def test_four_workers_that_never_wait_lose_and_mix_no_line(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("exporter.log.rotating._PATIENCE", 0.0)
        _rotate_under_four_workers(path, lines=20_000, limit=100_000)

    def test_the_first_line_begins_the_file(self, path: Path) -> None:
        RotatingFile(str(path), 100, 2).write(b"one\n", 6)

        assert path.read_bytes() == b"one\n"

    def test_the_oldest_backup_goes(self, path: Path) -> None:
        to = RotatingFile(str(path), 10, 2)
        for number in range(5):
            to.write(b"%09d\n" % number, 6)
        to.close()

        names = {file.name: file.read_bytes() for file in path.parent.iterdir()}
        expected = {"requests.log": b"", "requests.log.1": b"000000004\n", "requests.log.2": b"000000003\n"}
        assert names == expected

    def test_it_leaves_no_descriptor_open(self, path: Path) -> None:
        to = RotatingFile(str(path), 10, 2)
        assert open_below(path.parent) == [str(path)]
        for number in range(20):
            to.write(b"%09d\n" % number, 6)
        command = ["ls", "-l", "/proc/self/fd"]
        inherited = subprocess.run(command, close_fds=False, capture_output=True, check=True)

        assert path.name.encode() not in inherited.stdout
        assert open_below(path.parent) == [str(path)]
        to.close()
        assert open_below(path.parent) == []

    def test_a_lock_whose_holder_has_removed_its_file_is_taken_anew(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = fcntl.flock
        removed: list[Path] = []

        def flock(file: int, operation: int) -> None:
            if not removed:
                removed.append(path.with_name(f".{path.name}.lock"))
                removed[0].unlink()
            real(file, operation)

        to = RotatingFile(str(path), 10, 2)
        monkeypatch.setattr(fcntl, "flock", flock)
        to.write(b"%09d\n" % 1, 6)

        assert (path.read_bytes(), path.with_name(f"{path.name}.1").read_bytes()) == (b"", b"000000001\n")
        assert open_below(path.parent) == [str(path)]
        to.close()

    def test_a_child_that_is_forked_during_a_rotation_holds_no_lock(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody waits for it who has opened the lock by then."""
        reading, writing = os.pipe()
        real = os.unlink
        waiting: list[int] = []
        children: list[int] = []

        def fork_and_unlink(name: str) -> None:
            waiting.append(os.open(name, os.O_RDONLY))
            children.append(os.fork())
            if not children[-1]:
                os.close(writing)
                os.read(reading, 1)
                os._exit(0)
            real(name)

        to = RotatingFile(str(path), 10, 2)
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", fork_and_unlink)
            to.write(b"%09d\n" % 1, 6)
        to.close()
        try:
            fcntl.flock(waiting[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            for descriptor in (reading, writing, *waiting):
                os.close(descriptor)
            os.waitpid(children[0], 0)

    def test_who_may_read_it_is_a_matter_of_the_umask(self, path: Path) -> None:
        before = os.umask(0o026)
        try:
            RotatingFile(str(path), 100, 1).close()
        finally:
            os.umask(before)

        assert stat.S_IMODE(path.stat().st_mode) == 0o640

    def test_its_descriptor_goes_with_the_last_who_knows_it(self, path: Path) -> None:
        """As a suite of tests that makes an application for each test."""
        applications = [RequestLog(Settings.load({}, request_log=str(path))) for _ in range(3)]
        assert open_below(path.parent) == [str(path)] * 3
        applications.clear()
        gc.collect()

        assert open_below(path.parent) == []

    def test_an_idle_worker_s_line_is_kept_though_its_file_was_rotated_out_of_existence(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(time, "monotonic", lambda: 100.0)  # nobody looks whether the file has moved
        idle, busy = RotatingFile(str(path), 20, 1), RotatingFile(str(path), 20, 1)
        for number in range(6):
            busy.write(b"%09d\n" % number, 6)
        idle.write(b"idle 1\n", 6)
        idle.write(b"idle 2\n", 6)

        assert _all_written(path) == [b"idle 1", b"idle 2", b"000000004", b"000000005"]

    @pytest.mark.parametrize("happening", ["moved", "removed"])
    def test_a_file_that_somebody_else_moves_is_made_anew_within_a_second(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, happening: str
    ) -> None:
        clock = [100.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        to = RotatingFile(str(path), 1000, 1)
        to.write(b"before\n", 6)
        if happening == "moved":
            path.rename(path.with_name("elsewhere"))
        else:
            path.unlink()
        clock[0] += 1.0
        to.write(b"after\n", 6)

        assert path.read_bytes() == b"after\n"

    def test_a_directory_that_was_removed_is_made_anew_and_no_line_is_lost(self, path: Path) -> None:
        """The line that went into a file without a name is written again."""
        (path.parent / "logs").mkdir()
        to = RotatingFile(str(path.parent / "logs" / "r.log"), 1_000_000, 1)
        for round_ in range(3):
            (path.parent / "logs" / "r.log").unlink()
            (path.parent / "logs").rmdir()
            for number in range(100):
                to.write(b"%d %d\n" % (round_, number), 6)
            written = (path.parent / "logs" / "r.log").read_bytes().splitlines()
            assert written == [b"%d %d" % (round_, number) for number in range(100)]
        to.close()

    @pytest.mark.parametrize("held", ["the directory", "the log", "the lock"])
    def test_a_lock_that_somebody_keeps_hangs_no_request(self, held: str, path: Path) -> None:
        """Whoever can read the directory can lock it: that stops nothing. Without the lock the file grows."""
        to = RotatingFile(str(path), 1000, 1000)
        target = {
            "the directory": path.parent,
            "the log": path,
            "the lock": path.parent / f".{path.name}.lock",
        }
        if held == "the lock":
            target[held].touch(0o600)
        descriptor = os.open(target[held], os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        start = time.monotonic()
        for number in range(500):
            to.write(b"%0100d\n" % number, 6)
        assert time.monotonic() - start < 10  # one wait of a fortieth of a second
        os.close(descriptor)
        to.write(b"last\n", 6)
        to.close()

        assert sorted(_all_written(path)) == sorted([*(b"%0100d" % number for number in range(500)), b"last"])

    def test_a_line_that_was_cut_short_spoils_no_other(self, path: Path) -> None:
        """A full disk takes a part of a line; a limit on file sizes stands in for it."""
        program = f"""
import resource
from exporter.log.rotating import RotatingFile

to = RotatingFile({str(path)!r}, 10_000, 1)
to.write(b"first\\n", 6)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
for _ in range(2):
    try:
        to.write(b"cut short\\n", 6)
    except OSError as error:
        print(error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
to.write(b"whole\\n", 6)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)

        assert (done.stdout.split(), done.stderr) == (["28", "27"], "")
        assert path.read_bytes() == b"first\ncut \nwhole\n"

    def test_threads_may_write_while_it_rotates(self, path: Path) -> None:
        to = RotatingFile(str(path), 2000, 1000)

        def write(worker: int) -> None:
            for number in range(2000):
                to.write(b"%d %d\n" % (worker, number), 6)

        threads = [threading.Thread(target=write, args=(worker,)) for worker in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        to.close()

        assert set(_all_written(path)) == {b"%d %d" % (w, n) for w in range(8) for n in range(2000)}
        assert len(_all_written(path)) == 16_000

    def test_a_file_that_cannot_be_shared_is_written_at_once_and_rotated_closed(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Windows renames no file that is open."""
        replace = os.replace
        open_then: list[list[str]] = []

        def look_and_replace(old: str, new: str) -> None:
            open_then.append(open_below(path.parent))
            replace(old, new)

        to = UnsharedFile(str(path), 20, 3)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", look_and_replace)
            for number in range(9):
                to.write(b"%09d\n" % number, 6)

            assert path.read_bytes() == b"000000008\n"
        to.close()

        assert not any(open_then)
        assert open_below(path.parent) == []
        assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == {
            "requests.log": b"000000008\n",
            "requests.log.1": b"000000006\n000000007\n",
            "requests.log.2": b"000000004\n000000005\n",
            "requests.log.3": b"000000002\n000000003\n",
        }


class TestDestinations:
    def test_it_is_off_unless_asked_for(self) -> None:
        before = list(logging.getLogger().handlers)
        log = RequestLog(Settings.load({}))
        log.attach()
        log.write(exchange())

        assert not log.on
        assert logging.getLogger().handlers == before

    def test_one_that_is_closed_gets_no_records(self, log: Callable[..., RequestLog]) -> None:
        before = list(logging.getLogger().handlers)
        written = log()
        written.attach()
        written.close()

        assert not written.on
        assert logging.getLogger().handlers == before

    @pytest.mark.parametrize(
        "target", ["/no/such/directory/requests.log", "/etc", "syslog://", "syslog:", "syslog://host:port"]
    )
    def test_one_that_cannot_be_used_is_an_error_at_start_up_that_names_it(self, target: str) -> None:
        with pytest.raises(SettingsError, match=re.escape(f"EXPORTER_REQUEST_LOG={target!r}")):
            RequestLog(Settings.load({}, request_log=target))

    @pytest.mark.parametrize("most", [1, 3, 4096])
    def test_stdout_gets_the_rest_of_a_line_that_it_takes_in_parts(
        self, most: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a signal in the middle of a write, or a terminal, has it."""
        written: list[bytes] = []

        def write(_: int, data: bytes) -> int:
            written.append(data[:most])
            return len(written[-1])

        to = Stdout()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            to.write(b'{"whole":1}\n', 6)
            to.write(b'{"whole":2}\n', 6)

        assert b"".join(written) == b'{"whole":1}\n{"whole":2}\n'

    def test_stdout_ends_a_line_that_was_cut_before_the_next_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As where the reader of a pipe goes in the middle of it, and another one comes."""
        written: list[bytes] = []

        def write(_: int, data: bytes) -> int:
            written.append(data[:9])
            if len(written) == 2:
                raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
            return len(written[-1])

        to = Stdout()
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            with pytest.raises(BrokenPipeError):
                to.write(b'{"whole":1}\n', 6)
            to.write(b'{"n":2}\n', 6)

        assert written == [b'{"whole":', b"1}\n", b'\n{"n":2}\n']

    def test_only_the_first_line_waits_for_a_full_pipe(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A second; and again, when there has been room in between."""
        rooms = [False, False, True, False]
        waits: list[float] = []
        written: list[bytes] = []

        class Poll:
            def register(self, *_: int) -> None:
                """Watch what the test watches."""

            def poll(self, milliseconds: float) -> bool:
                waits.append(milliseconds)
                return rooms[len(waits) - 1]

        def write(_: int, data: bytes) -> int:
            written.append(data)
            return len(data)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fstat", lambda _: os.stat_result([stat.S_IFIFO, *[0] * 9]))
            patch.setattr(select, "poll", Poll)
            patch.setattr(os, "write", write)
            to = Stdout()
            for room in rooms:
                with nullcontext() if room else pytest.raises(OSError, match="nobody reads the standard"):
                    to.write(b"line\n", 6)

        assert waits == [1000, 0, 0, 1000]
        assert written == [b"line\n"]

    def test_stdout_takes_whole_lines_from_several_processes(self) -> None:
        """The reader is slower than the writers, so the pipe is full most of the time."""
        program = """
import os
from exporter.log.requestlog import RequestLog
from exporter.settings import Settings
from tests.rig.exchanges import exchange

worst = "\\U0001f600".encode().decode("latin-1") * 10_000
log = RequestLog(Settings.load({}, request_log="stdout"))
children = []
for worker in range(4):
    child = os.fork()
    if not child:
        for number in range(200):
            log.write(exchange(path=worst, request_id=f"{worker}-{number}"))
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
"""
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as writing:
            assert writing.stdout is not None
            ids = [json.loads(line)["request_id"] for line in writing.stdout]

        assert writing.returncode == 0
        assert sorted(ids) == sorted(f"{worker}-{number}" for worker in range(4) for number in range(200))

    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (os.mkfifo, "it is a link, a pipe or a device"),
            (os.mkdir, "Is a directory"),
            (lambda path: path.symlink_to("/tmp/elsewhere"), "it is a link, a pipe or a device"),
        ],
    )
    def test_a_file_is_a_regular_one(self, make: Callable[[Path], None], reason: str, path: Path) -> None:
        """Nobody waits for the reader of a pipe, and no link decides what root writes into."""
        make(path)
        with pytest.raises(SettingsError, match=f"EXPORTER_REQUEST_LOG='{path}': .*{reason}"):
            RequestLog(Settings.load({}, request_log=str(path)))

    def test_an_output_that_nobody_reads_costs_lines_and_no_requests(self) -> None:
        """The first line that finds no room waits a second, the others do not; then lines come again."""
        program = """
import os, sys, time
from exporter.log.destinations import Stdout, Syslog, shorten

out = Stdout()
lost, start = 0, time.monotonic()
for number in range(1000):
    try:
        out.write(b"%d %s\\n" % (number, b"." * 1000), 6)
    except OSError:
        lost += 1
print(lost > 800, 0.9 < time.monotonic() - start < 20, file=sys.stderr, flush=True)
os.read(0, 1)
out.write(b"again\\n", 6)
"""
        with subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as writing:  # fmt: skip
            assert writing.stdout is not None
            assert writing.stdin is not None
            assert writing.stderr is not None
            assert writing.stderr.readline() == b"True True\n"
            lines = [os.read(writing.stdout.fileno(), 1 << 20)]
            writing.stdin.write(b"x")
            writing.stdin.close()
            lines.append(writing.stdout.read())

        written = b"".join(lines).split(b"\n")
        assert written[-2:] == [b"again", b""]
        assert all(re.fullmatch(rb"\d+ \.{1000}", line) for line in written[:-2])

    def test_a_syslog_daemon_that_does_not_read_costs_lines_and_no_requests(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
            daemon.bind(str(tmp_path / "log"))
            log = RequestLog(Settings.load({}, request_log=f"syslog://{tmp_path / 'log'}"))
            with suppress(BlockingIOError):
                for _ in range(100_000):
                    log.write(exchange())
            with pytest.raises(BlockingIOError):
                log.write(exchange())
            daemon.recv(65536)
            log.write(exchange())
            log.close()

    @pytest.mark.parametrize("text", ["é" * 12_000, "x" * 60_000, "\U0001f600" * 9_000])
    @pytest.mark.parametrize("local", [False, True])
    def test_a_record_that_is_too_long_for_a_datagram_is_cut_and_arrives(
        self, text: str, local: bool, tmp_path: Path
    ) -> None:
        """As JSON, with the end of its traceback."""
        address: Any = str(tmp_path / "log") if local else ("127.0.0.1", 0)
        with socket.socket(socket.AF_UNIX if local else socket.AF_INET, socket.SOCK_DGRAM) as daemon:
            daemon.bind(address)
            daemon.settimeout(10)
            target = address if local else f"127.0.0.1:{daemon.getsockname()[1]}"
            log = RequestLog(Settings.load({}, request_log=f"syslog://{target}"))
            try:
                raise ValueError(f"bad item {text}!")
            except ValueError as error:
                log.write(exchange(exception=error, status=500, failed=True))
            datagrams = [daemon.recv(1 << 20) for _ in range(2)]
            log.close()

        record = json.loads(datagrams[1][datagrams[1].index(b"{") :])
        assert record["error_type"] == "ValueError"
        assert record["traceback"].endswith(text[-1] + "!")

    @pytest.mark.parametrize(
        ("text", "limit", "shown"),
        [
            ("x" * 100, 108, "x" * 100),
            ("x" * 100, 107, "…" + "x" * 92),
            ("x" * 100, 58, "…" + "x" * 43),
            ("é" * 100, 607, "…" + "é" * 92),
            ("x" * 8, 15, None),
            ("x", 8, None),
        ],
    )
    def test_a_line_loses_no_more_than_it_must(self, text: str, limit: int, shown: str | None) -> None:
        """At its beginning; one that would have to lose all of a text is lost."""
        line = json.dumps({"a": text}, separators=(",", ":")).encode()
        if shown is None:
            with pytest.raises(OSError, match="too many fields for a datagram"):
                shorten(line, limit)
        else:
            cut = shorten(line, limit)
            assert (json.loads(cut), len(cut) <= limit) == ({"a": shown}, True)

    def test_the_port_of_syslog_is_514_unless_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """RFC 5426, section 3.3."""
        addresses: list[object] = []
        monkeypatch.setattr(socket.socket, "sendto", lambda _, __, address: addresses.append(address))
        for url in ("syslog://127.0.0.1", "syslog://127.0.0.1:5514"):
            to = Syslog(url)
            to.write(b"{}\n", 6)
            to.close()

        assert addresses == [("127.0.0.1", 514), ("127.0.0.1", 5514)]

    @pytest.mark.parametrize(("status", "priority"), [(200, 14), (404, 12), (500, 11)])
    def test_syslog_over_udp_speaks_rfc_5424(self, status: int, priority: int) -> None:
        """The priority is that of the facility `user` and the severity."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
            daemon.bind(("127.0.0.1", 0))
            daemon.settimeout(10)
            log = RequestLog(Settings.load({}, request_log=f"syslog://127.0.0.1:{daemon.getsockname()[1]}"))
            log.write(exchange(status=status, failed=status == 500))
            datagram = daemon.recv(65536)
            log.close()

        found = re.fullmatch(
            rb"<%d>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) (\S+) flask (\d+) - - (\{.*\})" % priority, datagram
        )
        assert found is not None
        assert (found[2].decode(), int(found[3])) == (socket.gethostname(), os.getpid())
        assert json.loads(found[4])["status"] == status

    def test_syslog_on_a_socket_speaks_the_local_format_and_survives_the_daemon(self, tmp_path: Path) -> None:
        address = str(tmp_path / "log")
        log = RequestLog(Settings.load({}, request_log=f"syslog://{address}"))
        for number in (1, 2):
            with pytest.raises(OSError, match=r"No such file|refused"):
                log.write(exchange())
            (tmp_path / "log").unlink(missing_ok=True)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
                daemon.bind(address)
                daemon.settimeout(10)
                log.write(exchange(request_size=number))
                datagram = daemon.recv(65536)

            found = re.fullmatch(rb"<14>\w{3} [ \d]\d \d\d:\d\d:\d\d flask\[\d+\]: (\{.*\})", datagram)
            assert found is not None
            assert json.loads(found[1])["request_bytes"] == number
        log.close()


@pytest.fixture
def app(path: Path) -> Iterator[Flask]:
    """An application with the request log on."""
    app = Flask("orders")
    exporter = FlaskExporter(app, registry=CollectorRegistry(), request_log=str(path))

    @app.get("/orders/<int:number>")
    def show(number: int) -> str:
        logging.getLogger("stock").warning(
            "low\n%s", "\x1b[31mred", extra={"left": 3, "parts": [1], "at": float("nan")}
        )
        return str(number)

    @app.get("/boom")
    def boom() -> str:
        raise ValueError("bad\r\nnumber")

    @app.get("/stream/<int:chunks>")
    def stream(chunks: int) -> Iterator[str]:
        yield from ["chunk"] * chunks
        raise ValueError("half-way")

    yield app
    exporter.core.request_log.close()


SHOP = """
from flask import Flask, request
from exporter import FlaskExporter

app = Flask("shop")
FlaskExporter(app)

@app.get("/items/<int:number>")
def show(number):
    app.logger.warning("slow: %s", request.url.replace("card", "key"))
    return "item"
"""


class TestRecords:
    def test_each_made_during_a_request_carries_its_id(self, app: Flask, path: Path) -> None:
        trace = "0af7651916cd43dd8448eb211c80319c"
        headers = {"X-Request-ID": "known-1", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        answer = app.test_client().get("/orders/7", headers=headers)
        record, line = _lines(path)

        assert answer.headers["X-Request-ID"] == "known-1"
        assert (line["request_id"], line["trace_id"], line["url_rule"]) == (
            "known-1",
            trace,
            "/orders/<int:number>",
        )
        assert record == {
            "timestamp": record["timestamp"],
            "level": "WARNING",
            "logger": "stock",
            "instance": socket.gethostname(),
            "message": "low\nred",
            "request_id": "known-1",
            "trace_id": trace,
            "method": "GET",
            "path": "/orders/7",
            "url_rule": "/orders/<int:number>",
            "endpoint": "show",
            "left": 3,
            "parts": "[1]",
            "at": "nan",
        }
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record["timestamp"])

    @pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\u00e9", "<script>", "a;b"])
    def test_an_id_that_is_not_well_formed_is_replaced(self, app: Flask, path: Path, given: str) -> None:
        answer = app.test_client().get("/orders/7", headers={"X-Request-ID": given})
        replaced = answer.headers["X-Request-ID"]

        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", replaced)
        assert replaced != given
        assert [replaced] * 2 == [line["request_id"] for line in _lines(path)]

    def test_an_exception_is_one_record_with_its_traceback(self, app: Flask, path: Path) -> None:
        answer = app.test_client().get("/boom")
        record, line = _lines(path)

        assert record["message"] == "Exception on /boom [GET]"
        assert (record["level"], record["error_type"]) == ("ERROR", "ValueError")
        assert record["traceback"].startswith("Traceback (most recent call last):\n")
        assert record["traceback"].endswith("ValueError: bad\r\nnumber")
        assert record["request_id"] == line["request_id"] == answer.headers["X-Request-ID"]
        assert (line["level"], line["status"], line["error_type"]) == ("ERROR", 500, "ValueError")

    @pytest.mark.parametrize(("path_of_body", "status"), [("/stream/1", 200), ("/stream/0", 500)])
    def test_a_body_that_raises_leaves_its_traceback(
        self, app: Flask, path: Path, path_of_body: str, status: int
    ) -> None:
        """Flask, which is through with the request by then, logs nothing."""
        with pytest.raises(ValueError, match="half-way"):
            app.test_client().get(path_of_body, headers={"X-Request-ID": "known-3"}, buffered=True)
        line, record = _lines(path)

        assert (line["status"], line["level"], line["error_type"]) == (status, "ERROR", "ValueError")
        assert (record["message"], record["level"]) == (f"Exception on {path_of_body} [GET]", "ERROR")
        assert record["traceback"].endswith("ValueError: half-way")
        assert line["request_id"] == record["request_id"] == "known-3"

    def test_one_made_while_a_body_is_streamed_carries_the_id_too(self, app: Flask, path: Path) -> None:
        """Flask's context is gone by then, unless the view has asked for it to stay."""

        @app.get("/export")
        def export() -> Iterator[str]:
            logging.getLogger("stock").warning("first row")
            yield "row"
            logging.getLogger("stock").warning("second row")

        app.test_client().get("/export", headers={"X-Request-ID": "known-4"}, buffered=True)
        logging.getLogger("stock").warning("later")
        *records, later = [line for line in _lines(path) if line["logger"] == "stock"]

        assert [(one["request_id"], one["url_rule"], one["endpoint"]) for one in records] == [
            ("known-4", "/export", "export")
        ] * 2
        assert "request_id" not in later

    def test_an_exception_that_flask_propagates_leaves_its_traceback(self, app: Flask, path: Path) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = True
        with pytest.raises(ValueError, match="bad"):
            app.test_client().get("/boom")
        line, record = _lines(path)

        assert (record["message"], record["error_type"]) == ("Exception on /boom [GET]", "ValueError")
        assert record["request_id"] == line["request_id"]

    @pytest.mark.parametrize("propagate", [True, False])
    def test_a_handled_exception_in_the_log_hides_no_unhandled_one(
        self, app: Flask, path: Path, propagate: bool
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = propagate

        @app.get("/twice")
        def twice() -> str:
            try:
                return os.environ["NO_SUCH_ORDER"]
            except KeyError:
                app.logger.exception("no such order")
            raise ValueError("worse")

        with suppress(ValueError):
            app.test_client().get("/twice")

        logged = [line["traceback"].splitlines()[-1] for line in _lines(path) if "traceback" in line]
        assert logged == ["KeyError: 'NO_SUCH_ORDER'", "ValueError: worse"]

    @pytest.mark.parametrize("size", [16_384, 20_000, 100_000])
    def test_of_a_long_traceback_the_end_stays(self, app: Flask, path: Path, size: int) -> None:
        """There it says what has happened."""

        @app.get("/long")
        def long() -> str:
            raise ValueError("x" * size + " and the end")

        app.test_client().get("/long")
        record, _ = _lines(path)

        assert len(record["traceback"]) == 16_384
        assert record["traceback"].endswith("xx and the end")

    def test_outside_of_a_request_there_is_no_id(self, app: Flask, path: Path) -> None:
        app.logger.error("starting")
        (record,) = _lines(path)

        assert (record["message"], "request_id" in record) == ("starting", False)

    def test_lower_levels_are_left_out(self, app: Flask, path: Path) -> None:
        app.logger.debug("no")
        app.logger.info("yes")

        assert [record["message"] for record in _lines(path)] == ["yes"]

    def test_plain_lines_that_a_path_could_forge_are_gone(self) -> None:
        """Though Flask's own handler, which writes them to stderr, was there before the exporter."""
        program = """
from flask import Flask
from exporter import FlaskExporter
app = Flask("shop")
app.logger.error("before")
FlaskExporter(app, request_log="stdout")
app.logger.error("after")
"""
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
        )

        assert re.findall("before|after", done.stderr) == ["before"]
        assert json.loads(done.stdout)["message"] == "after"

    def test_what_cannot_be_shown_in_json_leaves_the_record_whole(self, app: Flask, path: Path) -> None:
        class Odd:
            def __str__(self) -> str:
                return "odd\udcff"

        app.logger.error("%s", Odd(), extra={"odd": Odd(), "number": 2**70, "flag": True, "none": None})
        (record,) = _lines(path)

        assert (record["message"], record["odd"]) == ("odd\udcff", "odd\udcff")
        assert (record["number"], record["flag"], record["none"]) == (2**70, True, None)

    def test_a_value_that_cannot_be_shown_costs_itself_only(self, app: Flask, path: Path) -> None:
        class Hostile:
            def __str__(self) -> str:
                raise RuntimeError("no text")

        extras = {"digits": 10**5000, "hostile": Hostile(), "good": 1}
        app.logger.warning("odd", extra=extras)
        record = _lines(path)[0]

        assert record["digits"] == "<int: ValueError>" if sys.version_info >= (3, 11) else True
        assert (record["hostile"], record["good"]) == ("<Hostile: RuntimeError>", 1)

    def test_a_record_that_is_lost_is_counted(self, path: Path) -> None:
        """With the next scrape: a record may be made where no lock may be taken."""
        app = Flask("orders")
        exporter = FlaskExporter(app, registry=CollectorRegistry(), request_log=str(path))
        logging.raiseExceptions = False
        try:
            for _ in range(3):
                app.logger.warning("%d", "no number")
        finally:
            logging.raiseExceptions = True
        text = call(app, "/metrics").body.decode()
        exporter.core.request_log.close()

        assert 'flask_exporter_failures_total{stage="request_log"} 3.0' in text

    def test_a_handler_of_one_s_own_gets_the_id_from_a_filter(self, app: Flask) -> None:
        seen: list[tuple[str, str]] = []

        class Own(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                seen.append((record.request_id, record.trace_id))  # type: ignore[attr-defined]

        handler = Own()
        handler.addFilter(RequestContext())
        logging.getLogger("stock").addHandler(handler)
        try:
            app.test_client().get("/orders/7", headers={"X-Request-ID": "known-2"})
            logging.getLogger("stock").warning("later")
        finally:
            logging.getLogger("stock").removeHandler(handler)

        assert seen == [("known-2", ""), ("", "")]

    def test_extras_with_the_name_of_a_field_get_another(self, app: Flask, path: Path) -> None:
        names = ["timestamp", "level", "logger", "method", "path", "url_rule", "endpoint", "request_id"]

        @app.get("/pay")
        def pay() -> str:
            app.logger.error("paid", extra={**dict.fromkeys(names, 5), "customer": 7, "trace_id": ""})
            app.logger.error("paid", extra={"level": 5, "extra_level": 6})
            return "paid"

        app.test_client().get("/pay")
        record, second, line = _lines(path)

        assert {name for name, value in record.items() if value == 5} == {f"extra_{name}" for name in names}
        assert (record["level"], record["path"], record["customer"]) == ("ERROR", "/pay", 7)
        assert record["request_id"] == line["request_id"]
        assert "extra_trace_id" not in record  # it says the same
        assert (second["level"], second["extra_level"], second["extra_extra_level"]) == ("ERROR", 5, 6)

    def test_the_names_that_logging_leaves_free_stay(self, app: Flask, path: Path) -> None:
        app.logger.error("paid", extra={"method": "card", "path": "/till", "level": "gold"})
        (record,) = _lines(path)

        assert (record["method"], record["path"], record["extra_level"]) == ("card", "/till", "gold")

    def test_secrets_and_colours_are_in_no_part_of_a_record(self, app: Flask, path: Path) -> None:
        secret = "\x1b[1mhttps://shop:SECRET@bank/pay?token=SECRET&amount=5\x1b[0m"
        try:
            raise ConnectionError(secret)
        except ConnectionError:
            app.logger.exception("no answer from %s", secret, extra={"url": secret}, stack_info=True)
        (record,) = _lines(path)

        shown = "https://shop:***@bank/pay?token=***&amount=5"
        assert record["message"] == f"no answer from {shown}"
        assert record["traceback"].endswith(f"ConnectionError: {shown}")
        assert record["url"] == shown
        assert record["stack"].startswith("Stack (most recent call last):\n")
        assert b"SECRET" not in path.read_bytes().replace(b"@bank", b"")

    @pytest.mark.parametrize(
        ("logger", "message"),
        [
            ("werkzeug", '127.0.0.1 - - [28/Nov/2026 01:02:03] "%s" %s %s\n'),
            ("gunicorn.access", '127.0.0.1 "%s" %s %s'),
            ("uvicorn.access", '127.0.0.1:5 - "%s" %s %s'),
        ],
    )
    def test_a_server_s_own_line_for_a_request_is_not_there(
        self, app: Flask, path: Path, logger: str, message: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        app.logger.info("starting")
        logging.getLogger(logger).info(message, "GET /orders/7?card=4111 HTTP/1.1", 200, "-")
        logging.getLogger("werkzeug").error("Error on request:\n%s", "trace")

        assert [line["message"] for line in _lines(path)] == ["starting", "Error on request:\ntrace"]

    @pytest.mark.parametrize("target", ["stdout", "./requests.jsonl"])
    def test_flask_run_shows_no_secret(self, tmp_path: Path, target: str) -> None:
        (tmp_path / "shop.py").write_text(SHOP)
        (port,) = free_ports(1)
        command = module("flask", "--app", "shop", "run", "--port", str(port))
        environ = {**os.environ, "EXPORTER_REQUEST_LOG": target, "FORCE_COLOR": "1", "PYTHONPATH": str(ROOT)}
        with Program(command, tmp_path / "output", environ, tmp_path) as server:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

            def asked() -> bool:
                with suppress(ConnectionError):
                    return ask(connection, "/items/1?token=SECRET&card=SECRET").status == 200
                connection.close()
                return False

            eventually(asked, "an answer")
            assert ask(connection, "/nowhere?password=SECRET").status == 404
            connection.close()
            log = server.text() if target == "stdout" else (tmp_path / target).read_text()

            lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
            assert [line["path"] for line in lines if "path" in line] == ["/items/1", "/items/1", "/nowhere"]
            assert "SECRET" not in log + server.text()
            assert "\\u001b" not in log

    def test_work_that_outlives_its_request_still_has_its_id(self, app: Flask, path: Path) -> None:
        """In a copy of the request's context, as Flask-Executor runs each job; or of the body's."""
        log = logging.getLogger("jobs")
        jobs: list[Callable[[], None]] = []

        @app.get("/job")
        def job() -> str:
            jobs.append(copy_current_request_context(lambda: log.warning("job")))
            return "started"

        @app.get("/failing")
        def failing() -> str:
            jobs.append(copy_current_request_context(fail))
            raise ValueError("first")

        def fail() -> None:
            try:
                raise KeyError("second")
            except KeyError:
                log.exception("failing")

        @app.get("/body")
        def body() -> Iterator[str]:
            jobs.append(partial(copy_context().run, log.warning, "body"))
            yield "row"
            jobs.append(partial(copy_context().run, log.warning, "body"))

        client = app.test_client()
        for name in ("job", "failing", "body"):
            client.get(f"/{name}", headers={"X-Request-ID": name}, buffered=True)
        for work in jobs:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        records = [line for line in _lines(path) if line["logger"] == "jobs"]

        assert [record["message"] for record in records] == ["job", "failing", "body", "body"]
        assert [record["request_id"] for record in records] == ["job", "failing", "body", "body"]
        assert [record["url_rule"] for record in records] == ["/job", "/failing", "/body", "/body"]
        assert {record["method"] for record in records} == {"GET"}

    def test_what_is_logged_after_the_last_byte_has_the_id(self, app: Flask, path: Path) -> None:
        log = logging.getLogger("jobs")
        app.teardown_request(lambda error: log.warning("teardown", exc_info=error))

        @app.get("/sized")
        def sized() -> Response:
            def rows() -> Iterator[str]:
                yield "row"
                log.warning("through")

            return Response(stream_with_context(rows()), headers={"Content-Length": "3"})

        app.test_client().get("/sized", headers={"X-Request-ID": "sized"}, buffered=True)
        records = [line for line in _lines(path) if line["logger"] == "jobs"]

        assert {record["message"] for record in records} == {"through", "teardown"}
        assert {(record["request_id"], record["path"]) for record in records} == {("sized", "/sized")}

    def test_the_filter_never_raises(self, app: Flask) -> None:
        with app.test_request_context():
            request.environ[EXCHANGE] = object()
            record = logging.makeLogRecord({})

            assert RequestContext().filter(record)
        assert (record.request_id, record.trace_id) == ("", "")  # type: ignore[attr-defined]

    def test_two_applications_with_one_log_write_a_record_once(self, app: Flask, path: Path) -> None:
        second = FlaskExporter(Flask("stock"), registry=CollectorRegistry(), request_log=str(path))
        app.logger.error("once")
        second.core.request_log.close()

        assert [record["message"] for record in _lines(path)] == ["once"]

    def test_two_applications_with_logs_of_their_own_write_it_into_both(self, app: Flask, path: Path) -> None:
        """Whose it is nobody knows outside of a request."""
        other = path.with_name("stock.log")
        second = FlaskExporter(Flask("stock"), registry=CollectorRegistry(), request_log=str(other))
        app.logger.error("twice")
        second.core.request_log.close()

        assert [[record["message"] for record in _lines(one)] for one in (path, other)] == [["twice"]] * 2


class TestLevel:
    @pytest.mark.parametrize(
        ("configured", "messages"), [("", ["info", "warning"]), ("logging.basicConfig()\n", ["warning"])]
    )
    def test_it_holds_for_every_logger_unless_the_host_has_configured_logging(
        self, path: Path, configured: str, messages: list[str]
    ) -> None:
        program = f"""
import logging
from flask import Flask
from exporter import FlaskExporter
{configured}
FlaskExporter(Flask("orders"), request_log={str(path)!r})
for level in ("debug", "info", "warning"):
    getattr(logging.getLogger("stock"), level)(level)
"""
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)

        assert [record["message"] for record in _lines(path)] == messages

    def test_records_are_there_though_the_host_configures_logging_after_the_exporter(
        self, path: Path
    ) -> None:
        program = f"""
import logging.config
from flask import Flask
from exporter import FlaskExporter
app = Flask("orders")
FlaskExporter(app, request_log={str(path)!r})
logging.config.dictConfig({{"version": 1, "root": {{"level": "INFO"}}, "disable_existing_loggers": False}})
app.get("/")(lambda: logging.getLogger("stock").info("here") or "x")
app.test_client().get("/")
"""
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)

        assert [record["message"] for record in _lines(path)] == ["here", "GET / 200"]


def test_a_record_of_the_end_of_the_program_is_there(path: Path) -> None:
    program = f"""
import atexit, logging
atexit.register(logging.error, "end")
from flask import Flask
from exporter import FlaskExporter
app = Flask("orders")
FlaskExporter(app, request_log={str(path)!r})
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)

    assert [record["message"] for record in _lines(path)] == ["end"]


class TestFailures:
    def test_a_log_that_cannot_be_written_leaves_the_answer_alone_and_is_counted(
        self, app: Flask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        client = app.test_client()
        whole = client.get("/orders/7")
        monkeypatch.setattr(os, "write", full)
        monkeypatch.setattr(logging, "raiseExceptions", False)
        answer = client.get("/orders/7")
        monkeypatch.undo()

        assert (answer.status, answer.data) == (whole.status, whole.data)
        registry = app.extensions["flask_exporter"].exporter.registry
        assert registry.get_sample_value("flask_exporter_failures_total", {"stage": "request_log"}) == 1.0


def _serve(log_file: Path, worker: int, requests: int) -> None:
    app, _ = application(request_log=str(log_file), log_max_bytes=10_000_000, log_backups=100)
    for number in range(requests):
        call(app, "/orders/7", variables={"HTTP_X_REQUEST_ID": f"{worker}.{number}"})


def _every_request_has_its_line(log_file: Path, requests: int) -> None:
    workers = [
        _processes.Process(target=_serve, args=(log_file, worker, requests // 4)) for worker in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    ids = [json.loads(line)["request_id"] for line in _all_written(log_file)]
    assert len(ids) == requests
    assert set(ids) == {f"{worker}.{number}" for worker in range(4) for number in range(requests // 4)}


class TestManyWorkers:
    def test_every_request_has_its_line(self, path: Path) -> None:
        _every_request_has_its_line(path, 8_000)

    @pytest.mark.soak
    def test_every_one_of_300_000_requests_has_its_line(self, path: Path) -> None:
        _every_request_has_its_line(path, 300_000)
