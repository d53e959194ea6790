"""Requests in progress under real servers: who is blocked in sending is busy, whoever is asked."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("kind", [("gthread", "--threads", "4"), ("gevent",)], ids=lambda kind: kind[0])
def test_a_worker_that_sends_to_a_slow_client_is_busy(kind: tuple[str, ...], tmp_path: Path) -> None:
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
