"""A service under a real gunicorn with several workers, and clients that count what they are answered."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which must be JSON."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Service:
    """Where a service listens."""

    port: int
    log: Path

    def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> Answer:
        """Ask over a new connection, which any of the workers may take."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            return ask(connection, path, headers, method)
        finally:
            connection.close()


def ask(
    connection: http.client.HTTPConnection,
    path: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
) -> Answer:
    """Ask over this connection."""
    connection.request(method, path, headers=dict(headers or {}))
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


@contextmanager
def served(
    directory: Path, source: str = ORDERS, *, workers: int = 4, **environment: str
) -> Iterator[Service]:
    """`app` of this source under gunicorn with the exporter's hooks, ready when it is yielded."""
    (directory / "served.py").write_text(source)
    log = directory / "gunicorn.log"
    command = [sys.executable, "-m", "gunicorn", "-c", "python:exporter.gunicorn", "--no-control-socket"]
    command += ["--chdir", str(directory), "--bind", "127.0.0.1:0", "--workers", str(workers)]
    command += ["--worker-class", "gthread", "--threads", "4", "served:app"]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("EXPORTER_")}
    variables |= {
        "PROMETHEUS_MULTIPROC_DIR": str(directory / "workers"),
        "EXPORTER_DRAIN": "0",
        **environment,
    }
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=variables, stdout=output, stderr=output) as master,
    ):
        try:
            yield Service(_port(master, log, workers), log)
        finally:
            master.terminate()
            try:
                master.wait(30)
            except subprocess.TimeoutExpired:
                master.kill()


def _port(master: subprocess.Popen[bytes], log: Path, workers: int) -> int:
    deadline = time.monotonic() + 60
    while True:
        text = log.read_text()
        listening = re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", text)
        if listening and text.count("Booting worker") >= workers:
            return int(listening[1])
        if master.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"gunicorn does not serve:\n{text}")
        time.sleep(0.02)


def drive(
    service: Service, clients: int, requests_of: Callable[[int], Iterator[tuple[str, str, dict[str, str]]]]
) -> Counter[tuple[str, int]]:
    """Let clients send (method, path, headers) side by side; how many answers each method and status had.

    A connection is used 25 times, so that every worker gets its share.
    """
    counted: list[Counter[tuple[str, int]]] = []
    failures: list[BaseException] = []

    def run(client: int) -> None:
        seen: Counter[tuple[str, int]] = Counter()
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
        try:
            for number, (method, path, headers) in enumerate(requests_of(client), 1):
                seen[method, ask(connection, path, headers, method).status] += 1
                if number % 25 == 0:
                    connection.close()
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()
        counted.append(seen)

    threads = [threading.Thread(target=run, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(counted, Counter())
