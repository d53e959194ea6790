"""Requests in progress under real servers: who is blocked in sending is busy, whoever is asked."""

from __future__ import annotations

import http.client
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from tests.rig.clients import ask
from tests.rig.deadline import eventually
from tests.rig.network import free_ports
from tests.rig.server import Server, serving

SERVICE = """
from flask import Flask, Response
from exporter import FlaskExporter

app = Flask("sender")
exporter = FlaskExporter(app)

@app.get("/big")
def big():
    return b"x" * 30_000_000

@app.get("/stream")
def stream():
    return Response(b"x" * 1_000_000 for _ in range(30))
"""
CROWDED = f"""{SERVICE}
import os, time
from exporter import core

core.capacity = lambda: 2

@app.get("/wait")
def wait():
    while not os.path.exists("go"):
        time.sleep(0.05)
    return "done"
"""
FAMILIES = ("flask_worker_threads_busy", "flask_http_requests_in_progress")


def deaf(server: Server, path: str) -> socket.socket:
    """A client that asks and reads no more than the beginning of the answer."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", server.port))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert client.recv(5) == b"HTTP/"
    return client


@pytest.mark.parametrize(
    ("kind", "threads"), [(("gthread", "--threads", "4"), 4), (("gevent",), 1000)], ids=["gthread", "gevent"]
)
def test_a_worker_that_sends_to_a_slow_client_is_busy(
    kind: tuple[str, ...], threads: int, tmp_path: Path
) -> None:
    """Also for the process that serves EXPORTER_LISTEN; not any more when the client has gone."""
    (port,) = free_ports(1)
    options = ("--worker-class", *kind)
    with serving(
        tmp_path, *options, source=SERVICE, workers=1, EXPORTER_LISTEN=f"127.0.0.1:{port}"
    ) as server:

        def counts() -> list[float]:
            return [server.samples(at)[family] for at in (server.port, port) for family in FAMILIES]

        clients = [deaf(server, path) for path in ("/big", "/stream", "/big")]
        eventually(lambda: counts() == [3.0] * 4, "three busy threads")
        assert server.samples()["flask_worker_threads"] == threads
        for client in clients:
            client.close()
        eventually(lambda: counts() == [0.0] * 4, "nobody busy")


def test_more_greenlets_than_places_are_counted(tmp_path: Path) -> None:
    """Those without a place are in progress too, and the loss of their records is told."""
    options = ("--worker-class", "gevent", "--worker-connections", "4")
    with serving(tmp_path, *options, source=CROWDED, workers=1, EXPORTER_RECENT="0") as server:
        waiting = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=60) for _ in range(3)]
        for connection in waiting:
            connection.request("GET", "/wait")
        eventually(lambda: server.samples()["flask_http_requests_in_progress"] == 3.0, "three requests")
        (tmp_path / "go").touch()
        assert [connection.getresponse().status for connection in waiting] == [200] * 3

        eventually(lambda: server.samples()["flask_http_requests_in_progress"] == 0.0, "none")
        assert server.samples()['flask_exporter_failures_total{stage="recent"}'] == 1.0
        for connection in waiting:
            connection.close()


STUCK = f"""{SERVICE}
import ctypes, os, time
from pathlib import Path

@app.get("/teller")
def teller():
    os.symlink(str(os.getpid()), "teller")
    return "done"

def is_victim(number):
    if os.readlink("teller") == str(os.getpid()):
        return False
    Path(f"taken-{{number}}").touch()
    return True

@app.get("/wait/<int:number>")
def wait(number):
    while is_victim(number) and not os.path.exists("go"):
        time.sleep(0.02)
    return "done"

@app.get("/held/<int:number>")
def held(number):
    if is_victim(number):
        while not os.path.exists("hold"):
            time.sleep(0.02)
        ctypes.PyDLL(None).open(b"held", os.O_RDONLY)  # with the interpreter's lock, until somebody writes
    return "done"
"""
PATHS = [*(f"/wait/{number}" for number in range(7)), "/held/7"]


def test_another_worker_tells_of_one_that_is_stuck(tmp_path: Path) -> None:
    """All of its eight threads, one of which keeps the interpreter: each with its last stack."""
    os.mkfifo(tmp_path / "held")
    options = ("--worker-class", "gthread", "--threads", "8", "--keep-alive", "600")
    with (
        serving(tmp_path, *options, source=STUCK, workers=2) as server,
        closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)) as teller,
        ThreadPoolExecutor(8) as clients,
    ):
        assert ask(teller, "/teller").status == 200
        for number, path in enumerate(PATHS):
            clients.submit(ask_the_victim, server, path, tmp_path / f"taken-{number}")
            eventually((tmp_path / f"taken-{number}").exists, "a request of the victim")
        eventually(lambda: seen(teller, 0.0), "stacks of all")
        (tmp_path / "hold").touch()
        page = eventually(lambda: seen(teller, 1.0), "a stuck worker")
        (tmp_path / "go").touch()
        os.close(eventually(lambda: writer(tmp_path / "held"), "a call that keeps the interpreter"))

        assert [one["path"] for one in page] == sorted(PATHS)
        (victim,) = {one["pid"] for one in page}
        assert victim != int(os.readlink(tmp_path / "teller"))
        for one in page:
            kind = one["path"].split("/")[1]
            assert one["url_rule"] == f"/{kind}/<int:number>"
            assert any(line.startswith(f"served:{kind}:") for line in one["stack"])
            assert one["stack_age_seconds"] < one["age_seconds"]


def ask_the_victim(server: Server, path: str, taken: Path) -> None:
    """The other worker answers at once, so in the end it is the victim that has the request."""
    while not taken.exists():
        server.get(path)


def seen(teller: http.client.HTTPConnection, seconds: float) -> list[dict[str, Any]]:
    """What is in progress, once all of it was looked at so long ago."""
    page = ask(teller, "/monitoring/inflight").json
    if all((one["stack_age_seconds"] or 0.0) > seconds for one in page):
        return sorted(page, key=itemgetter("path"))
    return []


def writer(fifo: Path) -> int | None:
    """A descriptor that writes to it, once somebody reads."""
    with suppress(OSError):
        return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    return None
