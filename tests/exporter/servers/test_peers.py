"""Servers without hooks of ours: several processes are never silently wrong, and one is never refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.rig.deadline import eventually
from tests.rig.network import free_ports
from tests.rig.server import QUIET, Server, started

SERVED = """
import os
from a2wsgi import WSGIMiddleware
from asgiref.wsgi import WsgiToAsgi
from flask import Flask
from exporter import FlaskExporter

app = Flask("served")
exporter = FlaskExporter(app)
asgiref, a2wsgi = WsgiToAsgi(app), WSGIMiddleware(app)

@app.get("/pid")
def pid():
    return str(os.getpid())
"""
SERVERS = {
    "granian": "granian --interface wsgi --port {port} --workers {workers} served:app",
    "uvicorn, asgiref": "uvicorn --port {port} --workers {workers} served:asgiref",
    "uvicorn, a2wsgi": "uvicorn --port {port} --workers {workers} served:a2wsgi",
    "uvicorn": "uvicorn --interface wsgi --port {port} --workers {workers} served:app",
    "hypercorn": "hypercorn --bind 127.0.0.1:{port} --workers {workers} served:asgiref",
    "gunicorn": " ".join(["gunicorn", *QUIET, "--bind 127.0.0.1:{port} --workers {workers} served:app"]),
    "waitress": "waitress-serve --listen 127.0.0.1:{port} served:app",
}


@contextmanager
def serving(directory: Path, name: str, workers: int, shared: str = "") -> Iterator[Server]:
    """A server with this worker directory, or without one."""
    (port,) = free_ports(1)
    script, *options = SERVERS[name].format(port=port, workers=workers).split()
    command = [str(Path(sys.executable).with_name(script)), *options]
    with started(command, directory, SERVED, PROMETHEUS_MULTIPROC_DIR=shared) as server:
        server.port = port

        def answers() -> bool:
            with suppress(OSError):
                return server.get("/health/live").status == 200
            return False

        eventually(answers, "an answer")
        yield server


@pytest.mark.parametrize("name", SERVERS)
def test_one_process_is_believed(name: str, tmp_path: Path) -> None:
    with serving(tmp_path, name, workers=1) as server:
        for _ in range(10):
            server.get("/pid")

        samples = server.samples()

    assert samples['flask_http_request_total{method="GET",status="200"}'] == 10
    assert "flask_worker_threads" not in samples  # nobody has told how many there are


@pytest.mark.parametrize("name", [name for name in SERVERS if name != "waitress"])
def test_two_processes_are_refused_as_soon_as_the_second_serves(name: str, tmp_path: Path) -> None:
    with serving(tmp_path, name, workers=2) as server:
        both_serve(server)
        answers = [server.get("/metrics") for _ in range(8)]

    assert {answer.status for answer in answers} == {500}
    assert "set PROMETHEUS_MULTIPROC_DIR to a directory" in answers[0].text


@pytest.mark.parametrize("name", ["granian", "uvicorn", "hypercorn"])
def test_two_processes_with_a_directory_count_together(name: str, tmp_path: Path) -> None:
    """Nobody has made the directory for them."""
    with serving(tmp_path, name, workers=2, shared=str(tmp_path / "shm/workers")) as server:
        sent = both_serve(server)
        samples = [server.samples() for _ in range(8)]

    assert [values['flask_http_request_total{method="GET",status="200"}'] for values in samples] == [sent] * 8
    assert samples[0]["flask_worker_starts_total"] == 2


def both_serve(server: Server) -> int:
    """Ask until both processes have answered; the number of requests."""
    pids: list[str] = []

    def answers() -> bool:
        pids.append(server.get("/pid").text)
        return len(set(pids)) == 2

    eventually(answers, "both serve")
    return len(pids)
