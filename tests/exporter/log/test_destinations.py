"""Where the request log goes: standard output, files, syslog, or nowhere."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import select
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from exporter.log.destinations import Stdout, Syslog, shorten
from exporter.log.requestlog import RequestLog
from exporter.settings import Settings, SettingsError
from tests.rig.exchanges import exchange


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
