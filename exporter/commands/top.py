"""`python -m exporter top`: a live view of a service for a shell where no Grafana is in reach."""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.commands.alerts import Prometheus
from exporter.commands.connection import Unavailable
from exporter.commands.history import History
from exporter.commands.remote import Service, Snapshot
from exporter.commands.view import View

if TYPE_CHECKING:
    from rich.console import Console

    from exporter.commands.terminal import Keyboard

_WITHOUT_TERMINAL = 120  # columns


def add_command(commands: Any) -> None:
    """Add `top` to the subcommands of an argument parser."""
    parser = commands.add_parser("top", help="live view of a service in the terminal", description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="default: %(default)s")
    parser.add_argument("--path", default="/monitoring", help="where its pages are (default: %(default)s)")
    parser.add_argument("--health-path", default="/health", help="default: %(default)s")
    parser.add_argument(
        "--token-file",
        default=os.environ.get("EXPORTER_TOKEN_FILE"),
        help="file with the token that the service wants (default: $EXPORTER_TOKEN_FILE)",
    )
    parser.add_argument(
        "--prometheus",
        default=os.environ.get("EXPORTER_PROMETHEUS_URL"),
        help="address of the Prometheus that knows the alerts (default: $EXPORTER_PROMETHEUS_URL)",
    )
    parser.add_argument(
        "--interval", type=_seconds, default=2.0, help="seconds from look to look (default: 2)"
    )
    parser.add_argument("--once", action="store_true", help="print one look and exit")
    parser.add_argument("--json", action="store_true", help="print one look as JSON and exit")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command; the exit status is 1 if the service cannot be shown, with the reason on stderr."""
    try:
        token = _token(options.token_file) if options.token_file else ""
        prometheus = Prometheus(options.prometheus) if options.prometheus else None
        service = Service(options.url, options.path, options.health_path, token, prometheus)
        if options.json:
            _print_json(service.snapshot())
        elif options.once:
            _print(service)
        else:
            _watch(service, options.interval)
    except KeyboardInterrupt:
        return 0
    except (Unavailable, OSError, ValueError) as error:
        return _complain(str(error))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        return _complain("rich is missing: pip install rich, or use --json")
    return 0


def _complain(reason: str) -> int:
    # The text of a service may contain control sequences of a terminal.
    printable = "".join(character if character.isprintable() else "�" for character in reason)
    sys.stderr.write(f"top: {printable}\n")
    return 1


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r}: give seconds from 0.1 to 3600")
    return seconds


def _token(file: str) -> str:
    try:
        return Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ValueError(f"--token-file {file}: {reason}; name the file with the service's token") from error


def _print_json(snapshot: Snapshot) -> None:
    document = {name: value for name, value in asdict(snapshot).items() if name not in ("at", "query")}
    if document["alerts"] is None:
        del document["alerts"]
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _print(service: Service) -> None:
    from rich.console import Console

    from exporter.commands.screen import Screen

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _WITHOUT_TERMINAL
    console = Console(markup=False, emoji=False, width=width)
    history = History()
    snapshot = service.snapshot()
    history.add(snapshot)
    height = console.height - 2 if sys.stdout.isatty() else None  # the prompt has two lines
    console.print(Screen(service.url, snapshot, history, View()).once(console.width, height))


def _watch(service: Service, interval: float) -> None:
    try:
        from exporter.commands.terminal import Keyboard
    except ModuleNotFoundError as error:  # no termios
        raise ValueError("the live view needs a POSIX terminal; use --once or --json") from error
    from rich.console import Console
    from rich.live import Live

    from exporter.commands.screen import Screen

    console = Console(markup=False, emoji=False)
    if not (console.is_terminal and sys.stdin.isatty()):
        raise ValueError("the live view needs a terminal; use --once or --json")
    snapshot = service.snapshot()
    history, view = History(), View()
    history.add(snapshot)
    screen = Screen(service.url, snapshot, history, view)
    looks = _Looks(service, interval)
    with Keyboard() as keyboard, Live(console=console, screen=True, auto_refresh=False) as live:
        looks.start()
        while True:
            live.update(screen.live(console.width, console.height), refresh=True)
            if not all(view.press(key) for key in _next_keys(keyboard, looks, console)):
                return
            looks.ask(view.query)
            with suppress(queue.Empty):
                look = looks.results.get_nowait()
                if isinstance(look, Unavailable):
                    screen.lose(str(look))
                elif not view.paused or look.query != screen.snapshot.query:
                    screen.show(look)
                else:
                    screen.find()


def _next_keys(keyboard: Keyboard, looks: _Looks, console: Console) -> list[str]:
    """Wait for keys, for a look, or for another size of the terminal, and return the keys."""
    size = console.size
    while True:
        keys = keyboard.keys(0.05)
        if keys or not looks.results.empty() or console.size != size:
            return keys


class _Looks:
    """Looks at the service in the background, so that keys work while it is slow."""

    def __init__(self, service: Service, interval: float) -> None:
        self.results: queue.SimpleQueue[Snapshot | Unavailable] = queue.SimpleQueue()
        self._service = service
        self._interval = interval
        self._query: dict[str, str] = {}
        self._hurry = threading.Event()

    def ask(self, query: dict[str, str]) -> None:
        """Look for these requests from now on, and at once if they are others than before."""
        if query != self._query:
            self._query = query
            self._hurry.set()

    def start(self) -> None:
        """Look at every interval until the process ends."""
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            self._hurry.wait(self._interval)
            self._hurry.clear()
            try:
                self.results.put(self._service.snapshot(self._query))
            except Unavailable as reason:
                self.results.put(reason)
