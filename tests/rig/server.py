"""Servers that fork, with the exporter inside, for tests to start, ask and stop."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

from tests.rig.clients import Answer, ask
from tests.rig.deadline import eventually
from tests.rig.program import Program, handles

WORKER_IDS = """
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
"""A service whose answer to an order is the process id of the worker."""

ORDERS = """
import logging
from flask import Flask, abort
from exporter import FlaskExporter

app = Flask("orders")
exporter = FlaskExporter(app)

@app.get("/orders/<int:number>")
def show(number):
    if number % 10 == 9:
        abort(404)
    return "x" * number

@app.post("/orders")
def create():
    return "created", 201

@app.get("/boom")
def boom():
    raise ValueError("bad")
"""
"""A service whose orders are now and then missing, and which has an error."""


SCRIPTS = str(Path(sys.executable).parent)
"""Where the environment of the tests has its commands."""

# From 25.1 on gunicorn makes a socket under $HOME.
QUIET = ["--no-control-socket"] if version("gunicorn") >= "25.1" else []


class Server(Program):
    """A server's first process. `directory` has the worker files, `port` is 0 at first."""

    def __init__(
        self, command: Sequence[str], log: Path, environ: Mapping[str, str], directory: Path
    ) -> None:
        super().__init__(command, log, environ, directory)
        self.directory = directory / "workers"
        self.port = 0

    def get(
        self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET", *, port: int = 0
    ) -> Answer:
        """Ask over a new connection, which any of the workers may take. OSError where nobody listens."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=30)
        try:
            return ask(connection, path, headers, method)
        finally:
            connection.close()

    def samples(self, port: int = 0) -> dict[str, float]:
        """The samples of /metrics by their text."""
        answer = self.get("/metrics", port=port)
        assert answer.status == 200, answer.text
        pairs = (line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def samples_at_rest(self) -> dict[str, float]:
        """The samples when no request is in progress: a client has its answer before the server closes it."""
        eventually(lambda: self.samples()["flask_http_requests_in_progress"] == 0, "no request in progress")
        return self.samples()

    def children(self) -> list[int]:
        """The process ids of its children."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def started(command: Sequence[str], directory: Path, source: str = WORKER_IDS, **variables: str) -> Server:
    """A server of `served:app` with this source, in `directory`. An empty variable is left out."""
    (directory / "served.py").write_text(source)
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("EXPORTER_", "PROMETHEUS"))
    }
    environ |= {"PROMETHEUS_MULTIPROC_DIR": str(directory / "workers"), "EXPORTER_DRAIN": "0", **variables}
    environ = {name: value for name, value in environ.items() if value}
    return Server(command, directory / f"log-{time.monotonic_ns()}", environ, directory)


def gunicorn(
    directory: Path,
    *options: str,
    source: str = WORKER_IDS,
    config: str = "python:exporter.gunicorn",
    workers: int = 3,
    application: str = "served:app",
    scripts: str = SCRIPTS,
    **variables: str,
) -> Server:
    """gunicorn with our hooks; started, but not necessarily ready."""
    # The script and not -m: at SIGUSR2 gunicorn starts sys.argv again, which for a module is a file in it.
    script = f"{scripts}/gunicorn"
    command = [script, "-c", config, *QUIET, "-b", "127.0.0.1:0"]
    return started([*command, "-w", str(workers), *options, application], directory, source, **variables)


def _is_worker(pid: int) -> bool:
    """Whether it handles SIGABRT, as workers of gunicorn do: one that only starts would miss a signal."""
    with suppress(OSError):  # it has ended
        return handles(pid, signal.SIGABRT)
    return False


@contextmanager
def serving(
    directory: Path,
    *options: str,
    source: str = WORKER_IDS,
    config: str = "python:exporter.gunicorn",
    workers: int = 3,
    application: str = "served:app",
    scripts: str = SCRIPTS,
    **variables: str,
) -> Iterator[Server]:
    """gunicorn with our hooks, ready for requests; at the end it finishes those in progress."""
    with gunicorn(
        directory,
        *options,
        source=source,
        config=config,
        workers=workers,
        application=application,
        scripts=scripts,
        **variables,
    ) as server:
        server.port = int(server.await_text(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        eventually(lambda: sum(map(_is_worker, server.children())) >= workers, "all workers")
        eventually(lambda: server.get("/health/live").status == 200, "an answer")
        yield server
        server.process.send_signal(signal.SIGTERM)
        # A worker that starts at this moment misses its signal, and gunicorn waits 30 s for it.
        for patience in (3, 30):
            with suppress(subprocess.TimeoutExpired):
                server.process.wait(patience)
                break
            for child in server.children():
                with suppress(ProcessLookupError):
                    os.kill(child, signal.SIGTERM)


@contextmanager
def threaded(
    directory: Path, source: str = ORDERS, *, workers: int = 4, **variables: str
) -> Iterator[Server]:
    """gunicorn with threads in its workers, as most services run it."""
    threads = ("--worker-class", "gthread", "--threads", "4")
    with serving(directory, *threads, source=source, workers=workers, **variables) as server:
        yield server
