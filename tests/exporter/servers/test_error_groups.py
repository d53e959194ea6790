"""Error groups under a real server: exact over killed workers, reloads, and the service's own restart."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

from tests.rig.deadline import eventually
from tests.rig.network import free_ports
from tests.rig.server import Server, serving

BUGS = """
import os
from flask import Flask
from exporter import FlaskExporter

app = Flask("served")
exporter = FlaskExporter(app)

@app.get("/worker")
def worker():
    return str(os.getpid())

@app.get("/value")
def value():
    raise ValueError(os.getpid())

@app.get("/key")
def key():
    raise KeyError(os.getpid())

@app.get("/handled")
def handled():
    raise LookupError(os.getpid())

@app.errorhandler(LookupError)
def explain(error):
    return "no", 404
"""
PATHS = ("/value", "/key", "/handled")


def fail(server: Server, times: int) -> None:
    """Meet each of the three bugs so often, in whatever workers."""
    for _ in range(times):
        for path in PATHS:
            server.get(path)


def workers(server: Server) -> set[str]:
    """The ids of the workers that answer now."""
    return {server.get("/worker").text for _ in range(30)}


def shown(server: Server) -> dict[str, int]:
    """The count of each group, by the function where it happens."""
    return {group["where"]: group["count"] for group in server.get("/monitoring/errors").json}


def counted(server: Server, port: int = 0) -> dict[str, float]:
    """The same as the metric has it."""
    counts: Counter[str] = Counter()
    for sample, value in server.samples(port).items():
        if sample.startswith("flask_http_request_error_group_total{"):
            counts[sample.split('where="')[1].rstrip('"}')] += int(value)
    return dict(counts)


def everywhere(count: int) -> dict[str, int]:
    return {f"served:{path[1:]}": count for path in PATHS}


def test_killed_and_reloaded_workers_lose_no_error(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with serving(tmp_path, source=BUGS, EXPORTER_LISTEN=f"127.0.0.1:{port}") as server:
        for _ in range(3):
            fail(server, 8)
            victim = server.get("/worker").text
            os.kill(int(victim), signal.SIGKILL)
            eventually(lambda gone=victim: gone not in workers(server), "another worker")  # type: ignore[misc]
        before = workers(server)
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: not before & workers(server), "new workers")
        fail(server, 6)

        assert shown(server) == everywhere(30)
        assert counted(server) == counted(server, port) == everywhere(30)
        assert all(shown(server) == everywhere(30) for _ in range(10))  # whichever worker is asked
        assert len(list(server.directory.glob("errors_*.groups"))) <= 6


def test_a_service_that_is_started_anew_goes_on_with_its_groups(tmp_path: Path) -> None:
    """Its counters begin at 0, as all others do."""
    with serving(tmp_path, source=BUGS, EXPORTER_APP_VERSION="1") as server:
        fail(server, 4)
    moved = BUGS.replace('@app.get("/key")', '# moved\n\n@app.get("/key")')
    with serving(tmp_path, source=moved, EXPORTER_APP_VERSION="2") as server:
        before = shown(server), counted(server)
        fail(server, 3)

        assert before == (everywhere(4), {})
        assert (shown(server), counted(server)) == (everywhere(7), everywhere(3))
        groups = server.get("/monitoring/errors").json
        assert {(group["first_version"], group["last_version"]) for group in groups} == {("1", "2")}
        assert all(group["first_seen"] < group["last_seen"] for group in groups)
