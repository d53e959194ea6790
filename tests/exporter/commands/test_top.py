"""`python -m exporter top`: what it prints, its keys in a real terminal, and why it says that it cannot."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from exporter.__main__ import parser
from exporter.commands import tables
from exporter.commands.alerts import Prometheus
from exporter.commands.history import History, number, sparkline
from exporter.commands.remote import Snapshot
from exporter.commands.screen import Screen
from exporter.commands.tables import clean
from exporter.commands.terminal import Keyboard
from exporter.commands.view import SORTS, View
from tests.rig.deadline import eventually
from tests.rig.server import ORDERS, Server, threaded

CHECKED = (
    ORDERS
    + """
@exporter.health_check("database")
def database():
    pass
"""
)


def _environment(**changes: str) -> dict[str, str]:
    """Without what would change the width or the token."""
    unwanted = ("COLUMNS", "LINES", "EXPORTER_TOKEN_FILE")
    return {name: value for name, value in os.environ.items() if name not in unwanted} | changes


def _top(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "exporter", "top", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=_environment(**environment)
    )


@pytest.fixture(scope="class")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """After a few requests, one of them with a path that would colour a terminal."""
    with threaded(tmp_path_factory.mktemp("orders"), CHECKED, workers=2) as service:
        for number in range(5):
            service.get(f"/orders/{number}")
        service.get("/boom", {"X-Request-ID": "known-1"})
        service.get("/evil/%1b[31mred%0a[bold]:smile:")
        yield service


@contextmanager
def _answering(answer: Callable[[str], tuple[int, str]]) -> Iterator[str]:
    """The URL of a server with these answers by path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path.partition("?")[0])
            self.send_response(status)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing: pytest's output is for failures."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class TestOnce:
    def test_it_prints_everything_and_exits(self, service: Server) -> None:
        done = _top("--once", "--url", f"http://127.0.0.1:{service.port}/")
        lines = [line.rstrip() for line in done.stdout.splitlines()]

        assert (done.returncode, done.stderr) == (0, "")
        assert lines[0].startswith(f"http://127.0.0.1:{service.port}  healthy  database up  up 00:00:")
        assert lines[0].endswith("  7 requests")
        assert [line.split()[0] for line in lines[2:8]] == [
            "requests/s",
            "errors",
            "mean",
            "p50",
            "p95",
            "p99",
        ]
        assert lines[3].split()[1] == "14.3%"
        assert {tuple(line.split()[-2:]) for line in lines[3:5]} == {("NotFound", "1"), ("ValueError", "1")}
        assert lines[9].split()[:2] == ["endpoint", "requests▼"]
        assert [line.split()[:2] for line in lines[10:13]] == [
            ["/orders/<int:number>", "5"],
            ["/boom", "1"],
            ["_unmatched", "1"],
        ]
        assert any(
            line.split()[1:4] == ["GET", "/boom", "500"] and line.endswith("known-1") for line in lines
        )

    def test_no_path_reaches_the_terminal_as_more_than_letters(self, service: Server) -> None:
        done = _top("--once", "--url", f"http://127.0.0.1:{service.port}")

        assert "/evil/\ufffd[31mred\ufffd[bold]:smile:" in done.stdout
        assert "\x1b" not in done.stdout

    def test_json_is_what_the_pages_say(self, service: Server) -> None:
        done = _top("--json", "--url", f"http://127.0.0.1:{service.port}")
        found = json.loads(done.stdout)

        assert set(found) == {"stats", "endpoints", "requests", "failed", "health"}
        assert [request["request_id"] for request in found["failed"]] == ["known-1"]
        assert found["requests"] == service.get("/monitoring/requests").json
        assert found["endpoints"] == service.get("/monitoring/endpoints").json
        assert found["health"]["checks"]["database"]["up"] is True

    def test_it_works_with_a_service_that_knows_less(self) -> None:
        """The fields that this stack's predecessor served, and no health page."""
        stats = {
            "uptime_seconds": 90061.5, "total_requests": 3, "total_errors": 1, "requests_per_second": 0.1,
            "error_rate": 1 / 3, "average_response_time_ms": 5.0, "response_time_percentiles": {"p50": 4.0},
            "error_types": {"KeyError": 1}, "recent_request_count": 3,
        }  # fmt: skip
        request = {"timestamp": 1.0, "path": "/a", "method": "GET", "status_code": 500, "duration_ms": 5.0}
        pages = {
            "/monitoring/stats": stats,
            "/monitoring/endpoints": {"show": {"request_count": 3, "average_response_time_ms": 5.0}},
            "/monitoring/requests": [request],
        }
        with _answering(
            lambda path: (200, json.dumps(pages[path])) if path in pages else (404, "none")
        ) as url:
            done = _top("--once", "--url", url)

        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{url}  no health page  up 1d 01:01:01  3 requests")
        assert ["show", "3", "-", "0.0%", "5.0", "-", "-", "-", "-"] in map(
            str.split, done.stdout.splitlines()
        )

    def test_a_path_prefix_is_kept(self) -> None:
        asked: list[str] = []

        def answer(path: str) -> tuple[int, str]:
            asked.append(path)
            return 200, "[]" if path.endswith("requests") else "{}"

        with _answering(answer) as url:
            _top("--json", "--url", f"{url}/shop/", "--path", "/ops", "--health-path", "/up")

        pages = ["stats", "endpoints", "requests", "requests"]
        assert asked == [*(f"/shop/ops/{page}" for page in pages), "/shop/up"]


class TestCannot:
    @pytest.mark.parametrize(
        ("status", "body", "reason"),
        [
            (401, "{}", "answers 401: it wants a token; give the file that holds it with --token-file."),
            (403, "{}", "answers 403: it does not let this address in;"),
            (404, "<html>", "answers 404: there is no FlaskExporter behind this address,"),
            (500, "oops", "answers 500: look into the service's log."),
            (302, "", "answers 302: look into the service's log."),
            (
                200,
                "<html>",
                "answers something else than an exporter would: there is no FlaskExporter behind",
            ),
            (200, "[]", "answers something else than an exporter would: there is no FlaskExporter behind"),
        ],
    )
    def test_it_says_plainly_why(self, status: int, body: str, reason: str) -> None:
        with _answering(lambda _: (status, body)) as url:
            done = _top("--once", "--url", url)

        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"top: {url}/monitoring/stats {reason}")
        assert done.stderr.count("\n") == 1

    @pytest.mark.parametrize("option", ["--once", "--json"])
    def test_a_hostile_service_reaches_no_terminal(self, option: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer() -> None:
                connection, _ = server.accept()
                with connection:
                    connection.recv(999)
                    connection.sendall(b"\x1b]0;OWNED\x07\r\n\r\n")

            thread = threading.Thread(target=answer)
            thread.start()
            done = _top(option, "--url", f"http://127.0.0.1:{server.getsockname()[1]}")
            thread.join()

        assert (done.returncode, done.stderr.isascii() or "OWNED" in done.stderr) == (1, True)
        assert done.stderr.rstrip("\n").isprintable()

    @pytest.mark.parametrize(
        "url", ["http://user:hunter2@127.0.0.1:1", "http://:hunter2@[::1]:1", "https://hunter2@x"]
    )
    def test_a_password_in_the_address_is_refused_and_not_shown(self, url: str) -> None:
        done = _top("--once", "--url", url)

        assert done.returncode == 1
        assert "give a token with --token-file" in done.stderr
        assert "hunter2" not in done.stderr + done.stdout

    @pytest.mark.parametrize(
        ("page", "body"),
        [
            ("stats", {"total_requests": "many"}),
            ("stats", {"total_requests": None}),
            ("stats", {"error_rate": float("nan")}),
            ("stats", {"uptime_seconds": 1e300}),
            ("stats", {"response_time_percentiles": [1]}),
            ("stats", {"error_types": {"X": "1"}}),
            ("endpoints", {"/": 1}),
            ("endpoints", {"/": {"request_count": []}}),
            ("endpoints", {"/": {"response_time_percentiles": {"p50": "x"}}}),
            ("requests", [1]),
            ("requests", [{"timestamp": 1e18}]),
            ("requests", [{"timestamp": -5.0}]),
            ("requests", [{"status_code": "200"}]),
        ],
    )
    def test_figures_that_are_none_are_said_plainly(self, page: str, body: Any) -> None:
        good: dict[str, Any] = {"stats": {}, "endpoints": {}, "requests": []}

        def answer(path: str) -> tuple[int, str]:
            name = path.partition("?")[0].rpartition("/")[2]
            return 200, json.dumps({**good, page: body}.get(name, {"status": "healthy"}))

        with _answering(answer) as url:
            done = _top("--once", "--url", url)

        assert (done.returncode, "Traceback" in done.stderr) == (1, False)
        assert f"/monitoring/{page} answers something else than an exporter would" in done.stderr

    def test_nobody_there(self) -> None:
        with _answering(lambda _: (200, "")) as url:
            pass
        done = _top("--json", "--url", url)

        reason = f"top: {url} cannot be reached: Connection refused. Is the service running there?\n"
        assert (done.returncode, done.stdout, done.stderr) == (1, "", reason)

    @pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://"])
    def test_an_address_that_is_none(self, url: str) -> None:
        reason = f"top: {url!r} is no address: give one such as http://127.0.0.1:8000\n"

        assert _top("--once", "--url", url).stderr == reason

    def test_a_token_file_that_is_not_there(self) -> None:
        reason = "top: --token-file none: No such file or directory; name the file with the service's token\n"

        assert _top("--once", "--token-file", "none").stderr == reason

    def test_a_live_view_without_a_terminal(self, service: Server) -> None:
        done = _top("--url", f"http://127.0.0.1:{service.port}")

        assert (done.returncode, done.stderr) == (
            1,
            "top: the live view needs a terminal; use --once or --json\n",
        )

    def test_a_token_that_is_not_taken_is_not_asked_for(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("other")
        with _answering(lambda _: (401, "{}")) as url:
            done = _top("--json", "--url", url, "--token-file", str(tmp_path / "token"))

        assert "answers 401: it does not take this token; give the file that" in done.stderr

    def test_without_rich_json_still_works(self, service: Server) -> None:
        program = (
            "import sys; sys.modules['rich'] = None; from exporter.__main__ import main; "
            "sys.exit(main(sys.argv[1:]))"
        )

        def run(option: str) -> subprocess.CompletedProcess[str]:
            command = [
                sys.executable,
                "-c",
                program,
                "top",
                option,
                "--url",
                f"http://127.0.0.1:{service.port}",
            ]
            return subprocess.run(command, capture_output=True, text=True, timeout=60)

        assert run("--json").returncode == 0
        assert run("--once").stderr == ("top: rich is missing: pip install rich, or use --json\n")

    def test_a_token_is_sent_and_a_missing_file_named(self, tmp_path: Path) -> None:
        token = tmp_path / "token"
        token.write_text("s3cret\n")
        (tmp_path / "run").mkdir()
        with threaded(tmp_path / "run", workers=1, EXPORTER_TOKEN_FILE=str(token)) as service:
            url = f"http://127.0.0.1:{service.port}"

            assert _top("--json", "--url", url).returncode == 1
            assert _top("--json", "--url", url, "--token-file", str(token)).returncode == 0
            assert _top("--json", "--url", url, EXPORTER_TOKEN_FILE=str(token)).returncode == 0
        assert str(tmp_path / "none") in _top("--json", "--token-file", str(tmp_path / "none")).stderr

    @pytest.mark.parametrize("interval", ["0", "soon", "-1", "nan"])
    def test_an_interval_without_a_meaning(self, interval: str) -> None:
        done = _top("--interval", interval)

        assert done.returncode == 2
        assert done.stderr.endswith(f"argument --interval: {interval!r}: give seconds from 0.1 to 3600\n")


class _Terminal:
    """`top` in a real terminal of 150 columns and 40 lines, by tmux."""

    def __init__(self, tmux: str, socket: Path, url: str) -> None:
        self._tmux = [tmux, "-S", str(socket), "-f", "/dev/null"]
        command = f"{sys.executable} -m exporter top --interval 0.2 --url {url}; echo over $?; read line"
        self._run("new-session", "-d", "-s", "top", "-x", "150", "-y", "40", command)

    def press(self, *keys: str) -> None:
        self._run("send-keys", "-t", "top", *keys)

    def wait(self, condition: Callable[[str], bool]) -> str:
        """The screen, once it is as it should be."""
        text = ""

        def right() -> bool:
            nonlocal text
            text = self._run("capture-pane", "-p", "-t", "top")
            return condition(text)

        try:
            eventually(right, "the screen")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{text}") from None
        return text

    def close(self) -> None:
        self._run("kill-server")

    def _run(self, *command: str) -> str:
        done = subprocess.run([*self._tmux, *command], capture_output=True, text=True, env=_environment())

        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def _terminal(tmux: str, url: str) -> Iterator[_Terminal]:
    with tempfile.TemporaryDirectory() as directory:
        terminal = _Terminal(tmux, Path(directory) / "tmux", url)
        try:
            yield terminal
        finally:
            terminal.close()


@pytest.fixture
def tmux() -> str:
    found = shutil.which("tmux")
    if found is None and os.environ.get("CI") == "true":
        pytest.fail("tmux is missing: the live view cannot be shown")
    return found or pytest.skip("tmux is missing: the live view is not shown")


@pytest.fixture
def terminal(tmux: str, service: Server) -> Iterator[_Terminal]:
    with _terminal(tmux, f"http://127.0.0.1:{service.port}") as terminal:
        yield terminal


def _endpoints(screen: str) -> list[str]:
    """The names in the first column of the endpoints' table."""
    lines = screen.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("endpoint"))
    rows = lines[start + 1 :]
    return [line.split()[0] for line in rows[: rows.index("")]]


class TestLive:
    def test_keys_sort_filter_and_quit(self, terminal: _Terminal) -> None:
        names = ["/orders/<int:number>", "/boom", "_unmatched"]
        screen = terminal.wait(lambda text: "q quit" in text and "█" in text)
        assert _endpoints(screen) == names

        terminal.press("r")
        terminal.wait(lambda text: _endpoints(text) == [names[1], names[2], names[0]] and "requests▲" in text)
        terminal.press("r", "s", "s")
        terminal.wait(lambda text: _endpoints(text)[0] == "/boom" and "errors▼" in text)
        terminal.press("e")
        terminal.wait(lambda text: _endpoints(text) == ["/boom"] and "/evil" not in text)
        terminal.press("e", "/", "O", "R", "D")
        terminal.wait(lambda text: "filter: ORD▏" in text and _endpoints(text) == ["/orders/<int:number>"])
        terminal.press("Enter")
        terminal.wait(lambda text: "filter: ORD" in text.splitlines()[0] and "q quit" in text)
        terminal.press("Escape")
        terminal.wait(lambda text: len(_endpoints(text)) == 3)
        terminal.press("p")
        terminal.wait(lambda text: "paused" in text.splitlines()[0])
        terminal.press("q")
        terminal.wait(lambda text: "over 0" in text and "q quit" not in text)

    def test_arrows_select_enter_opens_and_escape_goes_back(self, terminal: _Terminal) -> None:
        terminal.wait(lambda text: "q quit" in text)
        terminal.press("?")
        terminal.wait(lambda text: "everything about it" in text and "requests▼" not in text)
        terminal.press("Escape")
        terminal.wait(lambda text: "requests▼" in text)
        terminal.press("Down", "Down", "Enter")
        terminal.wait(lambda text: "endpoint: /boom" in text.splitlines()[0] and "/orders/1" not in text)
        terminal.wait(lambda text: "known-1" in text)
        terminal.press("Tab", "Enter")
        terminal.wait(lambda text: re.search(r"^request_id +known-1$", text, re.MULTILINE) is not None)
        terminal.press("Escape", "Escape")
        terminal.wait(lambda text: "endpoint: " not in text and "/orders/1" in text)

    def test_errors_are_asked_from_the_service(self, terminal: _Terminal, service: Server) -> None:
        """Also those that a hundred good requests have pushed out of the latest ones."""
        for at in range(101):
            service.get(f"/orders/{at % 9}")
        terminal.wait(lambda text: "q quit" in text and "known-1" not in text)
        terminal.press("e")
        terminal.wait(lambda text: "known-1" in text and "errors only" in text.splitlines()[0])

    def test_it_goes_on_by_itself_and_ends_with_ctrl_c(self, terminal: _Terminal, service: Server) -> None:
        terminal.wait(lambda text: "q quit" in text)
        service.get("/orders/77", {"X-Request-ID": "seen-live"})
        terminal.wait(lambda text: "seen-live" in text)
        terminal.press("C-c")
        terminal.wait(lambda text: "over 0" in text and "Traceback" not in text)

    def test_a_service_that_goes_away_is_said_and_seen_again(self, tmux: str) -> None:
        gone = threading.Event()
        pages: dict[str, Any] = {"/monitoring/stats": {"total_requests": 7}, "/monitoring/requests": []}

        def answer(path: str) -> tuple[int, str]:
            return (503, "") if gone.is_set() else (200, json.dumps(pages.get(path, {})))

        with _answering(answer) as url, _terminal(tmux, url) as terminal:
            terminal.wait(lambda text: "7 requests" in text)
            gone.set()
            terminal.wait(lambda text: bool(re.search(r"DOWN \d+ s .* 7 requests\n.* answers 503", text)))
            gone.clear()
            terminal.wait(lambda text: "answers 503" not in text and "DOWN" not in text)


# The terminal has other columns at the third look for keys, and somebody quits at the sixth.
SILENT = """
import os, sys
from exporter.__main__ import main
from exporter.commands.screen import Screen
from exporter.commands.terminal import Keyboard

looks, pictures, live = iter(range(6)), [], Screen.live

def keys(*_):
    look = next(looks)
    if look == 2:
        os.system("stty cols 50")
    return ["q"] if look == 5 else []

def picture(screen, *size):
    pictures.append(size)
    return live(screen, *size)

Keyboard.keys, Screen.live = keys, picture
os.system("stty cols 40 rows 5")
main(["top", "--interval", "3600", "--url", sys.argv[1]])
sys.stderr.write(str(pictures))
"""


def test_a_picture_is_drawn_when_there_is_something_new_and_not_before() -> None:
    main, other = pty.openpty()
    try:
        with _answering(lambda path: (200, "[]" if path.endswith("requests") else "{}")) as url:
            done = subprocess.run(
                [sys.executable, "-c", SILENT, url],
                stdin=other,
                stdout=other,
                stderr=subprocess.PIPE,
                env=_environment(TERM="xterm"),
                timeout=60,
            )
    finally:
        os.close(main)
        os.close(other)

    assert done.stderr == b"[(40, 5), (50, 5)]"


def _snapshot(at: float, requests: int, errors: int, **endpoints: int) -> Snapshot:
    stats: dict[str, Any] = {
        "total_requests": requests,
        "total_errors": errors,
        "requests_per_second": 3.0,
        "error_rate": 0.5,
    }
    return Snapshot(
        at, stats, {name: {"request_count": count} for name, count in endpoints.items()}, [], [], None
    )


class TestHistory:
    def test_rates_are_of_the_time_between_two_looks(self) -> None:
        history = History()
        first = history.add(_snapshot(100.0, 1000, 500, show=1000))
        second = history.add(_snapshot(102.0, 1010, 501, show=1006, new=4))

        assert (first.rate, first.error_rate, first.endpoint_rates) == (3.0, 0.5, {})
        assert (second.rate, second.error_rate) == (5.0, 0.1)
        assert second.endpoint_rates == {"show": 3.0, "new": 2.0}

    def test_a_service_that_has_begun_anew_gives_no_negative_rate(self) -> None:
        history = History()
        history.add(_snapshot(100.0, 1000, 500, show=1000))
        again = history.add(_snapshot(102.0, 4, 2, show=4))

        assert (again.rate, again.error_rate) == (3.0, 0.5)

    def test_nothing_between_two_looks_is_no_error(self) -> None:
        history = History()
        history.add(_snapshot(100.0, 10, 5))

        assert history.add(_snapshot(101.0, 10, 5)).error_rate == 0.0

    def test_a_total_that_is_missing_is_none(self) -> None:
        """Neither is there a rate of an endpoint whose count is missing or has fallen."""
        history, empty = History(), Snapshot(100.0, {}, {"fallen": {"request_count": 9}}, [], [], None)
        first = history.add(empty)
        second = history.add(replace(empty, at=101.0, endpoints={"fallen": {"request_count": 8}, "new": {}}))

        assert [(moment.rate, moment.error_rate) for moment in (first, second)] == [(0.0, 0.0)] * 2
        assert second.endpoint_rates == {"fallen": 0.0, "new": 0.0}

    def test_two_looks_within_a_second(self) -> None:
        """Errors that are fewer than before are no failures."""
        history = History()
        history.add(_snapshot(100.0, 10, 5))
        moment = history.add(_snapshot(100.5, 20, 4))

        assert (moment.rate, moment.error_rate) == (20.0, 0.0)

    def test_the_oldest_moment_goes(self) -> None:
        history = History()
        for at in range(241):
            history.add(_snapshot(float(at), at * at, 0))

        assert [moment.rate for moment in history.moments] == [float(2 * at - 1) for at in range(1, 241)]

    def test_sparklines(self) -> None:
        assert sparkline([0.0, 1.0, None, 7.0], 10) == "▁▂ █"
        assert sparkline([5.0, 0.0, 0.0], 2) == "▁▁"
        assert sparkline([0.5, 1.0], 2) == "▅█"
        assert sparkline([90.0, None, 97.0], 10, from_zero=False) == "▁ █"
        assert sparkline([90.0, 90.0], 10, from_zero=False) == "▁▁"
        assert sparkline([], 10) == ""

    def test_numbers(self) -> None:
        assert (number(1234.56), number(1234.5, 0), number(None)) == ("1,234.6", "1,234", "-")


def _request(number: int, status: int, *, error: bool) -> dict[str, Any]:
    identity = f"request-{number}"
    return {
        "timestamp": number, "method": "GET", "path": "/", "status_code": status, "duration_ms": 1.0,
        "request_id": identity, "error_occurred": error, "error_type": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("requests", "failed", "shown"),
    [
        ([_request(9, 200, error=False)], [_request(1, 500, error=True)], ["request-1"]),
        (
            [_request(9, 200, error=True), _request(2, 500, error=True)],
            [_request(2, 500, error=True), _request(1, 503, error=True)],
            ["request-9", "request-2", "request-1"],
        ),
        ([_request(9, 404, error=False)], [_request(9, 404, error=False)], []),
    ],
    ids=["behind good ones", "after a good status, and each once", "from one that knows no filter"],
)
def test_errors_only(requests: list[dict[str, Any]], failed: list[dict[str, Any]], shown: list[str]) -> None:
    snapshot = replace(_snapshot(100.0, 10, 1), requests=requests, failed=failed)
    history, view, text = History(), View(errors_only=True), io.StringIO()
    history.add(snapshot)
    Console(file=text, width=150).print(Screen("http://127.0.0.1", snapshot, history, view).live(150, 40))

    assert re.findall(r"request-\d+", text.getvalue()) == shown


def _screen(view: View, snapshot: Snapshot | None = None) -> Screen:
    figures = {"request_count": 20, "error_count": 20, "error_rate": 1.0}
    request = {"timestamp": 1.0, "path": "/boom", "method": "GET", "status_code": 500, "error_occurred": True}
    history = History()
    snapshot = snapshot or Snapshot(
        1.0,
        {"total_requests": 1030, "error_types": {"ValueError": 20}},
        {f"/{'a' * 70}/{number}": figures for number in range(50)},
        [{**request, "request_id": f"id-{number}"} for number in range(100)],
        [],
        {"status": "healthy"},
    )
    history.add(snapshot)
    return Screen("http://127.0.0.1:8000", snapshot, history, view)


def _drawn(screen: Screen, width: int, height: int) -> str:
    console = Console(
        width=width, height=height, file=io.StringIO(), force_terminal=True, color_system="standard"
    )
    with console.capture() as capture:
        console.print(screen.live(width, height))
    return capture.get()


class TestScreen:
    @pytest.mark.parametrize(
        ("width", "height", "columns"),
        [
            (33, 24, "endpoint requests▼ errors"),
            (40, 10, "endpoint requests▼ errors"),
            (60, 24, "endpoint requests▼ errors p95 ms max ms"),
            (100, 24, "endpoint requests▼ rate errors mean ms p50 ms p95 ms p99 ms max ms"),
            (200, 50, "endpoint requests▼ rate errors mean ms p50 ms p95 ms p99 ms max ms"),
        ],
    )
    def test_it_fits_every_terminal(self, width: int, height: int, columns: str) -> None:
        """Columns are left out before a name is cut to nothing; the head and the keys are always there."""
        lines = Text.from_ansi(_drawn(_screen(View()), width, height)).plain.splitlines()

        assert len(lines) == height
        assert lines[0].startswith("http://127.0.0.1:8000  healthy")
        assert lines[-1].startswith("q quit   ? help   ")
        assert columns in [" ".join(line.split()) for line in lines]
        assert max(map(len, lines)) <= width
        assert height < 20 or lines[2].startswith("requests/s ")
        assert any(line.rstrip().endswith("  ValueError   20") for line in lines) is (width >= 100)

    def test_a_service_that_is_down_is_red_and_its_old_figures_are_dim(self) -> None:
        screen = _screen(View())
        assert "\x1b[2m" not in _drawn(screen, 120, 30).rpartition("q quit")[0].rpartition("\n")[0]

        screen.lose("http://127.0.0.1:8000 cannot be reached: Connection refused.")
        text = _drawn(screen, 120, 30)
        assert re.search(r"\x1b\[1;31m  DOWN 0 s\x1b\[0m", text)
        assert "healthy" not in text
        (row,) = (line for line in text.splitlines() if "id-0" in line)
        assert row.startswith("\x1b[2m")

        screen.find()
        assert "DOWN" not in _drawn(screen, 120, 30)

    def test_a_selected_row_stays_selected_where_it_goes(self) -> None:
        view = View()
        screen = _screen(view)
        _drawn(screen, 120, 30)
        for key in ("\t", "\t", "\x1b[B"):
            view.press(key)
        assert view.selected == ("request", "id-1")
        new = [{**screen.snapshot.requests[0], "request_id": "new"}, *screen.snapshot.requests]
        screen.show(replace(screen.snapshot, requests=new))

        (row,) = (line for line in _drawn(screen, 120, 30).splitlines() if "\x1b[7m" in line)
        assert "id-1" in row

    def test_all_of_a_request_is_there_beside_its_names(self) -> None:
        """What is too long for a line goes on in the next one, 20 columns before the edge."""
        view = View()
        view.detail = {"path": "/" + 99 * "a", "duration_seconds": 0.25, "status_code": 500}

        lines = Text.from_ansi(_drawn(_screen(view), 60, 12)).plain.splitlines()[2:8]
        assert [line.rstrip() for line in lines] == [
            "",
            f"path              /{39 * 'a'}",
            f"                  {40 * 'a'}",
            f"                  {20 * 'a'}",
            "duration_seconds  0.250",
            "status_code       500",
        ]

    def test_the_rows_follow_the_selected_one(self) -> None:
        """Every endpoint is reached with the arrows, and the screen says where it is among them."""
        view = View()
        screen = _screen(view)
        assert "1 to 6 of 50 endpoints" in _drawn(screen, 160, 30)
        for key in ("\x1b[B", *["\x1b[6~"] * 2):
            view.press(key)
        text = _drawn(screen, 160, 30)
        assert "16 to 21 of 50 endpoints" in text
        (row,) = (line for line in text.splitlines() if "\x1b[7m" in line)
        assert "/27\x1b" in row  # the names are sorted as texts

        view.press("\x1b[A")
        assert "16 to 21 of 50 endpoints" in _drawn(screen, 160, 30)
        for key in ("\t", *["\x1b[6~"] * 10):
            view.press(key)
        text = _drawn(screen, 160, 30)
        assert ("id-99 " in text, "id-1 " in text, "16 to 21 of 50 endpoints" in text) == (True, False, True)
        view.press("\x1b")
        assert "1 to 6 of 50 endpoints" in _drawn(screen, 160, 30)

    @pytest.mark.parametrize(
        ("keys", "row"),
        [
            (("\x1b[A", "\x1bOA", "k"), 19),
            (("\x1b[B", "\x1bOB", "j"), 21),
            (("\x1b[5~",), 10),
            (("\x1b[6~",), 30),
        ],
    )
    def test_a_key_moves_by_its_rows(self, keys: tuple[str, ...], row: int) -> None:
        rows = [("endpoint", str(number)) for number in range(40)]
        for key in keys:
            view = View(selected=rows[20], rows={row: {} for row in rows})
            view.press(key)

            assert view.selected == rows[row]

    def test_each_column_sorts(self) -> None:
        """In each there is another endpoint that has most, or comes first."""
        figures: dict[str, dict[str, Any]] = {
            "requests": {"request_count": 9},
            "rate": {"request_count": 5},
            "errors": {"error_rate": 1.0},
            "mean": {"average_response_time_ms": 1.0},
            "p95": {"response_time_percentiles": {"p95": 1.0}},
            "max": {"max_response_time_ms": 1.0},
            "endpoint": {},
        }
        history, before = History(), {"requests": figures["requests"]}
        history.add(replace(_snapshot(100.0, 9, 0), endpoints=before))
        snapshot = replace(_snapshot(102.0, 14, 0), endpoints=figures)
        history.add(snapshot)

        assert [tables.endpoints(snapshot, history, View(sort=sort))[0][0] for sort in SORTS] == list(SORTS)

    def test_enter_asks_for_an_endpoint_s_requests(self) -> None:
        view = View()
        _drawn(_screen(view), 120, 30)
        for key in ("\x1b[B", "\r", "e"):
            view.press(key)

        assert view.query == {"endpoint": f"/{'a' * 70}/0"}


class TestAlerts:
    def test_what_fires_the_worst_first(self, service: Server) -> None:
        alerts = [
            {"state": state, "labels": {"alertname": name, "severity": severity, "service": "orders"}}
            for name, severity, state in (
                ("FlaskErrorRatioHigh", "warning", "firing"),
                ("FlaskErrorBudgetBurn\x1b[31m", "critical", "firing"),
                ("FlaskTrafficLow", "warning", "pending"),
                ("MonitoringDeadMansSwitch", "info", "firing"),
            )
        ]
        with _answering(lambda _: (200, json.dumps({"data": {"alerts": alerts}}))) as prometheus:
            done = _top("--once", "--url", f"http://127.0.0.1:{service.port}", "--prometheus", prometheus)

        assert done.stdout.splitlines()[1].rstrip() == (
            "2 firing  FlaskErrorBudgetBurn\ufffd[31m (orders)  FlaskErrorRatioHigh (orders)"
        )

    @pytest.mark.parametrize(
        ("body", "line"),
        [
            ('{"data": {"alerts": []}}', "no alert fires"),
            ("[]", "alerts unknown: {url} answers 200, and no alerts"),
            ('{"data": {"alerts": [1]}}', "alerts unknown: {url} answers 200, and no alerts"),
        ],
    )
    def test_none_and_unknown_are_two_things(self, body: str, line: str) -> None:
        with _answering(lambda _: (200, body)) as url:
            alerts = Prometheus(url).alerts()
        screen = _screen(View(), replace(_snapshot(1.0, 1, 0), alerts=alerts))

        assert line.format(url=url) in Text.from_ansi(_drawn(screen, 120, 30)).plain.splitlines()[1]

    def test_a_prometheus_that_is_gone_hides_no_figures(self) -> None:
        with _answering(lambda _: (200, "")) as url:
            pass

        assert Prometheus(url).alerts().complaint.startswith(f"{url} cannot be reached: Connection refused.")


def test_keys_that_come_at_once_are_told_apart() -> None:
    """A terminal sends the repeats of an arrow, and a word that is pasted, in one piece."""
    main, other = pty.openpty()
    try:
        with open(other, closefd=False) as terminal, Keyboard(terminal) as keyboard:
            os.write(main, b"\x1b[B\x1bOAq\x1b[6~\t\x1b")

            assert keyboard.keys(5) == ["\x1b[B", "\x1bOA", "q", "\x1b[6~", "\t", "\x1b"]
    finally:
        os.close(main)
        os.close(other)


@pytest.mark.parametrize(
    ("words", "seconds"), [([], 2.0), (["--interval", "0.1"], 0.1), (["--interval", "3600"], 3600.0)]
)
def test_the_seconds_from_look_to_look(words: list[str], seconds: float) -> None:
    assert parser().parse_args(["top", *words]).interval == seconds


def test_the_terminal_is_afterwards_as_it_was() -> None:
    """No key is none, and comes at once without the return key while the view lasts."""
    main, other = pty.openpty()
    try:
        before = termios.tcgetattr(other)
        with open(other, closefd=False) as terminal, Keyboard(terminal) as keyboard:
            assert keyboard.keys(0) == []
            assert termios.tcgetattr(other) != before

        assert termios.tcgetattr(other) == before
    finally:
        os.close(main)
        os.close(other)


def test_typing_a_filter() -> None:
    view = View()
    for key in ["/", "a", "q", "\x1b[A", "\x7f", "b"]:
        assert view.press(key)

    assert (view.filter, view.typing) == ("ab", True)
    assert view.press("\x03")
    assert (view.filter, view.typing) == ("", False)
    assert not view.press("q")


def test_clean() -> None:
    assert clean("a\x1b[31m\u202eb\n", 20) == "a\ufffd[31m\ufffdb\ufffd"
    assert clean("x" * 1_000_000, 5) == clean("x" * 6, 5) == "xxxx…"
    assert clean("x" * 5, 5) == "x" * 5
    assert clean(None, 10) == "None"
