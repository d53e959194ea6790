"""Servers that fork: started, asked and stopped by the tests."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

APP = """
import os, time
from flask import Flask
from exporter import FlaskExporter

app = Flask("served")
exporter = FlaskExporter(app)

@app.get("/orders/<int:number>")
def show(number):
    return str(os.getpid())

@app.get("/slow")
def slow():
    open(os.environ["SLOW_STARTED"], "x").close()
    time.sleep(2)
    return "done"

@app.get("/new/<path:name>")
def new(name):
    return "new"
"""

T = TypeVar("T")


def eventually(condition: Callable[[], T], what: str, seconds: float = 30) -> T:
    """The first true result; AssertionError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return result


class Master:
    """A running server's first process."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path, directory: Path) -> None:
        self.process = process
        self.log = log
        self.directory = directory
        self.port = 0

    def get(self, path: str, port: int = 0, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Status and body. Raises OSError where nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=30)
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def samples(self, port: int = 0) -> dict[str, float]:
        """The samples of /metrics by their text."""
        status, body = self.get("/metrics", port)
        assert status == 200, body
        pairs = (line.rsplit(" ", 1) for line in body.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def text(self) -> str:
        """What the server has printed."""
        return self.log.read_text()

    def await_text(self, pattern: str) -> re.Match[str]:
        """Wait for the server to print this."""
        found = eventually(lambda: re.search(pattern, self.text()), f"{pattern} in {self.log}")
        assert found is not None
        return found

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; its exit status."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def started(command: list[str], directory: Path, **variables: str) -> Iterator[Master]:
    """A server with a worker directory of its own in `directory`; killed at the end with all its workers."""
    (directory / "served.py").write_text(APP)
    log = directory / f"log-{time.monotonic_ns()}"
    ours = {
        name: value for name, value in os.environ.items() if not name.startswith(("EXPORTER_", "PROMETHEUS"))
    }
    ours |= {"PROMETHEUS_MULTIPROC_DIR": str(directory / "workers"), "EXPORTER_DRAIN": "0", **variables}
    ours = {name: value for name, value in ours.items() if value}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=ours, cwd=directory, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield Master(process, log, directory / "workers")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@contextmanager
def gunicorn(
    directory: Path,
    *options: str,
    config: str = "python:exporter.gunicorn",
    workers: int = 3,
    **variables: str,
) -> Iterator[Master]:
    """gunicorn with our hooks; started, but not necessarily ready."""
    # The script and not -m: at SIGUSR2 gunicorn starts sys.argv again, which for a module is a file in it.
    script = str(Path(sys.executable).with_name("gunicorn"))
    command = [script, "-c", config, "--no-control-socket", "-b", "127.0.0.1:0"]
    with started([*command, "-w", str(workers), *options, "served:app"], directory, **variables) as master:
        yield master


@contextmanager
def serving(directory: Path, *options: str, workers: int = 3, **variables: str) -> Iterator[Master]:
    """gunicorn with our hooks, ready for requests."""
    with gunicorn(directory, *options, workers=workers, **variables) as master:
        master.port = int(master.await_text(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        eventually(lambda: master.text().count("Booting worker") >= workers, "all workers")
        eventually(lambda: master.get("/health/live")[0] == 200, "an answer")
        yield master
