"""`python -m exporter top` from its first look to its end, with a keyboard and a service by script."""

from __future__ import annotations

import io
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from rich.text import Text

from exporter.__main__ import main, parser
from exporter.commands import terminal, top
from exporter.commands.connection import Unavailable
from exporter.commands.remote import Snapshot
from tests.exporter.commands.test_remote import PAGES, served
from tests.rig.deadline import eventually

MISLEADING = "[red]:smile:"
"""A type of errors that would be a colour and a picture to rich."""


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True

    def picture(self) -> str:
        """What is on the screen."""
        return Text.from_ansi(self.getvalue().rpartition("\x1b[H")[2]).plain

    def main(self, *words: str, streams: tuple[str, ...] = ("stdin", "stdout")) -> int:
        """The status of a command with these streams in the terminal, the others in a file."""
        with pytest.MonkeyPatch.context() as patch:
            for stream in ("stdin", "stdout"):
                patch.setattr(sys, stream, self if stream in streams else io.StringIO())
            return main(list(words))


class Scripted:
    """A service that is asked by `top`, and answers when the script has said what."""

    url = "http://shop:8000"

    def __init__(self) -> None:
        self.asked: list[Mapping[str, str]] = []
        self.answers: SimpleQueue[Snapshot | BaseException | None] = SimpleQueue()

    def snapshot(self, query: Mapping[str, str] | None = None) -> Snapshot:
        self.asked.append(query or {})
        answer = self.answers.get(timeout=10)
        if answer is None:
            raise SystemExit  # of the thread that looks
        if isinstance(answer, BaseException):
            raise answer
        return replace(answer, query=query or {})


def look(requests: int) -> Snapshot:
    """A look at a service that has had so many requests."""
    stats = {"total_requests": requests, "error_types": {MISLEADING: 1}}
    return Snapshot(time.monotonic(), stats, {"/boom": {"request_count": 1}}, [], [], {"status": "healthy"})


Script = Iterator[str | list[str]]
"""What somebody waits for on the screen, as a regular expression, and the keys that they press then."""


class Person:
    """Somebody at the keyboard who follows a script, and quits after it."""

    def __init__(self, script: Script, screen: Terminal) -> None:
        self._script = script
        self._screen = screen
        self._awaited = ""
        self._end = 0.0

    def __enter__(self) -> Person:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def keys(self, timeout: float) -> list[str]:
        """A look is on the screen within a tenth of a second after it."""
        assert 0 < timeout <= 0.1
        if self._awaited and not re.search(self._awaited, self._screen.picture(), re.DOTALL):
            assert time.monotonic() < self._end, f"{self._awaited}\n{self._screen.picture()}"
            threading.Event().wait(timeout)
            return []
        self._awaited = ""
        step = next(self._script, ["q"])
        if isinstance(step, list):
            return step
        self._awaited, self._end = step, time.monotonic() + 10
        return []


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what would change the size, the colours or the defaults."""
    for name in ("COLUMNS", "LINES", "EXPORTER_TOKEN_FILE", "EXPORTER_PROMETHEUS_URL", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 120 columns and 30 lines."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "30")
    return Terminal()


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """Asked by `top`, whatever its address; it has answered one look."""
    found = Scripted()
    found.answers.put(look(7))
    monkeypatch.setattr(top, "Service", lambda *_: found)
    return found


Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, screen: Terminal, service: Scripted) -> Iterator[Run]:
    """`top` with its live view; the thread that looks ends with it."""
    before = set(threading.enumerate())

    def follow(script: Script, interval: str = "0.1") -> int:
        monkeypatch.setattr(terminal, "Keyboard", lambda: Person(script, screen))
        return screen.main("top", "--interval", interval)

    yield follow
    service.answers.put(None)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # its end, by SystemExit
class TestLive:
    def test_a_look_is_shown_on_a_screen_of_its_own(
        self, run: Run, screen: Terminal, service: Scripted
    ) -> None:
        """What was on the terminal before is there again afterwards; one thread looks, and delays no end."""
        before, others = set(threading.enumerate()), list[threading.Thread]()

        def script() -> Script:
            yield "healthy  up -  7 requests"
            others.extend(set(threading.enumerate()) - before)
            assert f" {MISLEADING}  1 " in screen.picture()
            service.answers.put(look(8))
            yield " 8 requests"

        assert run(script()) == 0
        assert [thread.daemon for thread in others] == [True]
        assert screen.getvalue().startswith("\x1b[?1049h")
        assert screen.getvalue().endswith("\x1b[?25h\x1b[?1049l")

    def test_it_looks_at_once_for_other_requests_and_else_after_the_interval(
        self, run: Run, service: Scripted
    ) -> None:
        def script() -> Script:
            yield ["?"]
            yield "everything about it"
            yield ["\x1b"]
            yield "requests▼"
            yield ["j"]
            service.answers.put(look(8))
            yield ["\r"]
            yield " 8 requests  endpoint: /boom"
            yield ["?"]
            yield "everything about it"
            yield ["\x1b"]
            yield "requests▼"
            service.answers.put(None)
            yield ["\x1b"]
            yield "requests"

        assert run(script(), interval="3600") == 0
        eventually(lambda: service.asked == [{}, {"endpoint": "/boom"}, {}], "a look for all requests again")

    def test_a_pause_keeps_the_figures_until_other_requests_are_wanted(
        self, run: Run, service: Scripted
    ) -> None:
        """A service that was gone is there again all the same."""

        def script() -> Script:
            yield ["p"]
            yield " 7 requests  paused"
            service.answers.put(Unavailable("gone"))
            yield r"  DOWN \d+ s  up -  7 requests  paused\s*\ngone"
            service.answers.put(look(8))
            yield "healthy  up -  7 requests  paused"
            yield ["j"]
            yield ["\r"]
            yield " 7 requests  endpoint: /boom  paused"
            for total in (9, 10):  # the look that is under way may be at all requests
                service.answers.put(look(total))
            yield " (9|10) requests  endpoint: /boom  paused"

        assert run(script()) == 0


class TestOnce:
    @pytest.mark.parametrize(("variables", "width"), [({}, 120), ({"COLUMNS": "130"}, 130)])
    def test_a_file_is_as_wide_as_it_is_told(
        self,
        variables: dict[str, str],
        width: int,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """The first line is cut there; all endpoints are below it."""
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        down = {"up": False, "error": 60 * "x"}
        pages = {
            "stats": {"error_types": {MISLEADING: 3}},
            "endpoints": {f"/{number:02}": {} for number in range(70)},
            "health": {"status": "unhealthy", "checks": {"database": down, "disk": down}},
        }
        with served(**pages) as (url, _):
            assert main(["top", "--once", "--url", url]) == 0
        lines = capsys.readouterr().out.splitlines()

        assert (len(lines[0]), lines[0][-1]) == (width, "…")
        assert [line[:4] for line in lines if line.startswith("/")] == [
            f"/{number:02} " for number in range(70)
        ]
        assert any(line.rstrip().endswith(f"{MISLEADING}  3") for line in lines)

    @pytest.mark.parametrize("lines", [20, 30])
    def test_a_terminal_is_filled_but_for_the_prompt(
        self, lines: int, screen: Terminal, service: Scripted, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The prompt has two lines."""
        monkeypatch.setenv("LINES", str(lines))
        requests = [{"request_id": f"id-{number}"} for number in range(100)]
        endpoints: dict[str, dict[str, Any]] = {f"/{number:02}": {} for number in range(70)}
        service.answers.get()
        service.answers.put(replace(look(7), endpoints=endpoints, requests=requests))

        assert screen.main("top", "--once") == 0
        assert screen.getvalue().count("\n") == lines - 2


class TestJSON:
    def test_it_is_the_pages_without_what_is_of_the_look(self, capsys: pytest.CaptureFixture[str]) -> None:
        with served() as (url, _):
            assert main(["top", "--json", "--url", url]) == 0
        page = {
            "stats": {}, "endpoints": {}, "requests": [], "failed": [], "health": PAGES["/health"],
        }  # fmt: skip

        assert capsys.readouterr().out == json.dumps(page, indent=2) + "\n"

    def test_alerts_are_there_where_a_prometheus_is_named(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with served() as (url, _):
            monkeypatch.setenv("EXPORTER_PROMETHEUS_URL", url)
            main(["top", "--json", "--url", url])

        assert json.loads(capsys.readouterr().out)["alerts"] == {
            "critical": [], "warning": [], "complaint": "",
        }  # fmt: skip


class TestEnd:
    def test_ctrl_c_before_the_first_look_is_a_plain_end(
        self, service: Scripted, capsys: pytest.CaptureFixture[str]
    ) -> None:
        service.answers.get()
        service.answers.put(KeyboardInterrupt())

        assert main(["top", "--json"]) == 0
        assert capsys.readouterr() == ("", "")

    def test_a_reason_is_one_line_and_a_status(
        self, service: Scripted, capsys: pytest.CaptureFixture[str]
    ) -> None:
        service.answers.get()
        service.answers.put(Unavailable("gone\n\x1b[31m"))

        assert main(["top", "--json"]) == 1
        assert capsys.readouterr() == ("", "top: gone\ufffd\ufffd[31m\n")

    @pytest.mark.usefixtures("service")
    @pytest.mark.parametrize(
        ("missing", "option", "reason"),
        [
            ("rich.console", ["--once"], "rich is missing: pip install rich, or use --json"),
            (
                "exporter.commands.terminal",
                [],
                "the live view needs a POSIX terminal; use --once or --json",
            ),
        ],
    )
    def test_a_module_that_is_missing_has_its_remedy(
        self,
        missing: str,
        option: list[str],
        reason: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.setitem(sys.modules, missing, None)

        assert main(["top", *option]) == 1
        assert capsys.readouterr().err == f"top: {reason}\n"

    @pytest.mark.usefixtures("service")
    def test_a_part_of_the_package_that_is_missing_is_no_word_about_rich(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "exporter.commands.screen", None)

        with pytest.raises(ModuleNotFoundError, match=r"exporter\.commands\.screen"):
            main(["top", "--once"])

    @pytest.mark.usefixtures("service")
    @pytest.mark.parametrize("stream", ["stdin", "stdout"])
    def test_the_live_view_needs_a_terminal_for_both(
        self, stream: str, screen: Terminal, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert screen.main("top", streams=(stream,)) == 1
        assert capsys.readouterr().err == "top: the live view needs a terminal; use --once or --json\n"

    def test_a_token_file_that_is_no_text(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "token"
        path.write_bytes(b"\xff")

        assert main(["top", "--json", "--token-file", str(path)]) == 1
        reason = f"--token-file {path}: it is no text; name the file with the service's token"
        assert capsys.readouterr().err == f"top: {reason}\n"


class TestOptions:
    @pytest.mark.parametrize(
        ("variables", "token_file", "prometheus"),
        [
            ({}, None, None),
            ({"EXPORTER_TOKEN_FILE": "/t", "EXPORTER_PROMETHEUS_URL": "http://p"}, "/t", "http://p"),
        ],
    )
    def test_what_is_not_said_has_a_default(
        self,
        variables: dict[str, str],
        token_file: str | None,
        prometheus: str | None,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        options = vars(parser().parse_args(["top"]))

        assert {name: value for name, value in options.items() if name not in ("command", "run")} == {
            "url": "http://127.0.0.1:8000", "path": "/monitoring", "health_path": "/health",
            "token_file": token_file, "prometheus": prometheus, "interval": 2.0, "once": False, "json": False,
        }  # fmt: skip

    @pytest.mark.parametrize("interval", ["0.09", "3600.5", "soon"])
    def test_an_interval_just_beyond_its_limits(
        self, interval: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit, match=r"^2$"):
            main(["top", "--interval", interval])

        assert capsys.readouterr().err.endswith(
            f"argument --interval: {interval!r}: give seconds from 0.1 to 3600\n"
        )
