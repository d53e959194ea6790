"""Files that the server sends by itself: a cut download is a disconnect with the bytes that were sent."""

from __future__ import annotations

import http.client
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pytest

from tests.rig.deadline import eventually
from tests.rig.network import free_ports
from tests.rig.server import QUIET, Server, started

SIZE = 32 << 20
"""Much more than the buffers of a connection hold (bytes)."""
BUFFERS = 16 << 20

SERVICE = f"""
import io
from flask import Flask, send_file
from exporter import FlaskExporter

app = Flask("served")
FlaskExporter(app)
with open("large", "wb") as file:
    file.truncate({SIZE})

@app.get("/path")
def path():
    return send_file("DIRECTORY/large", conditional=True)

@app.get("/object")
def opened():
    return send_file(open("DIRECTORY/large", "rb"), "text/plain")

@app.get("/memory")
def memory():
    return send_file(io.BytesIO(bytes({SIZE})), "text/plain")
"""

GUNICORN = " ".join(["gunicorn", *QUIET, "--bind 127.0.0.1:PORT served:app --worker-class"])
COMMANDS = {
    "sync": f"{GUNICORN} sync",
    "gthread": f"{GUNICORN} gthread --threads 4",
    "gevent": f"{GUNICORN} gevent",
    "no sendfile": f"{GUNICORN} gthread --no-sendfile",
    "waitress": "waitress-serve --listen 127.0.0.1:PORT served:app",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_download_that_is_cut_is_a_disconnect_with_the_bytes_that_were_sent(
    name: str, tmp_path: Path
) -> None:
    """Through sendfile and without; of a path, a range of it, an open file (without a length) and memory."""
    (port,) = free_ports(1)
    script, *options = COMMANDS[name].replace("PORT", str(port)).split()
    command = [str(Path(sys.executable).with_name(script)), *options]
    source = SERVICE.replace("DIRECTORY", str(tmp_path))
    with started(command, tmp_path, source, PROMETHEUS_MULTIPROC_DIR="") as server:
        server.port = port
        eventually(lambda: answers(server), "an answer")
        for rule in ("/path", "/object", "/memory"):
            assert len(server.get(rule).body) == SIZE
        leave(port, "/path")
        leave(port, "/path", {"Range": "bytes=1-"})
        leave(port, "/object")
        leave(port, "/memory")
        wanted = {("/path", 2.0), ("/object", 1.0), ("/memory", 1.0)}
        eventually(lambda: disconnects(server) == wanted, f"{wanted}", 20)
        samples = server.samples_at_rest()

    for rule, cuts in wanted:
        size = samples[f'flask_http_response_size_bytes_sum{{method="GET",url_rule="{rule}"}}'] - SIZE
        assert 0 < size < cuts * BUFFERS, rule


def answers(server: Server) -> bool:
    """Whether it serves."""
    with suppress(OSError):
        return server.get("/health/live").status == 200
    return False


def leave(port: int, path: str, headers: Mapping[str, str] | None = None) -> None:
    """Ask for a file, take its beginning, and go."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.sock = socket.socket()
    connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    connection.sock.connect(("127.0.0.1", port))
    connection.request("GET", path, headers=dict(headers or {}))
    connection.getresponse().read(1)
    connection.close()


def disconnects(server: Server) -> set[tuple[str, float]]:
    """The disconnects that were counted, by rule."""
    name = 'flask_http_client_disconnects_total{url_rule="'
    return {
        (sample.removeprefix(name)[:-2], value)
        for sample, value in server.samples().items()
        if sample.startswith(name) and value
    }
