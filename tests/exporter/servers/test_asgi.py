"""Flask behind bridges to ASGI: what is counted is exact; not all let it be seen that a client has left."""

from __future__ import annotations

import http.client
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.rig.deadline import eventually
from tests.rig.network import free_ports
from tests.rig.server import Server, started

CHUNKS = 400
SERVICE = f"""
from flask import Flask
from exporter import FlaskExporter

app = Flask("served")
FlaskExporter(app)

@app.get("/orders/<int:number>")
def show(number):
    return "x" * number

@app.get("/boom")
def boom():
    raise ValueError("bug")

@app.get("/stream")
def stream():
    return (b"x" * 1000 for _ in range(3))

@app.get("/long")
def long():
    return (b"x" * 65536 for _ in range({CHUNKS}))

from a2wsgi import WSGIMiddleware
from asgiref.wsgi import WsgiToAsgi

by_a2wsgi, by_asgiref = WSGIMiddleware(app), WsgiToAsgi(app)
"""

COMMANDS = {
    "a2wsgi": ["uvicorn", "--port", "PORT", "served:by_a2wsgi"],
    "asgiref": ["hypercorn", "--bind", "127.0.0.1:PORT", "served:by_asgiref"],
    "uvicorn": ["uvicorn", "--interface", "wsgi", "--port", "PORT", "served:app"],
    "hypercorn": ["hypercorn", "--bind", "127.0.0.1:PORT", "wsgi:served:app"],
    "granian": ["granian", "--interface", "wsgi", "--port", "PORT", "served:app"],
}
SEES = {"granian"}
"""Those that close an answer when its client has left; behind the others all of it counts as sent."""


@pytest.mark.parametrize("bridge", COMMANDS)
def test_a_bridge(tmp_path: Path, bridge: str) -> None:
    (port,) = free_ports(1)
    script, *options = [word.replace("PORT", str(port)) for word in COMMANDS[bridge]]
    command = [str(Path(sys.executable).with_name(script)), *options]
    with started(command, tmp_path, SERVICE, PROMETHEUS_MULTIPROC_DIR="") as server:
        server.port = port
        eventually(lambda: answers(server), "an answer")
        answer = server.get("/orders/7", {"X-Request-ID": "one"})
        statuses = [server.get(path).status for path in ("/orders/8", "/boom", "/nothing")]
        stream = server.get("/stream")
        leave(port)
        eventually(lambda: sample(server, "duration_seconds_count", "/long", "200"), "the long answer")
        samples = server.samples_at_rest()
        disconnects = samples.get('flask_http_client_disconnects_total{url_rule="/long"}', 0)
        size = samples['flask_http_response_size_bytes_sum{method="GET",url_rule="/long"}']

    assert (answer.status, answer.headers["X-Request-ID"], statuses) == (200, "one", [200, 500, 404])
    assert stream.body == b"x" * 3000
    assert sample(server, "duration_seconds_count", "/orders/<int:number>", "200", samples) == 2
    assert sample(server, "duration_seconds_count", "/boom", "500", samples) == 1
    assert sample(server, "duration_seconds_count", "_unmatched", "404", samples) == 1
    assert samples['flask_http_response_size_bytes_sum{method="GET",url_rule="/orders/<int:number>"}'] == 15
    assert samples['flask_http_response_size_bytes_sum{method="GET",url_rule="/stream"}'] == 3000
    assert samples['flask_exporter_mode{mode="single"}'] == 1
    assert (disconnects == 1, size < CHUNKS * 65536) == (bridge in SEES, bridge in SEES)


def answers(server: Server) -> bool:
    """Whether it serves."""
    with suppress(OSError):
        return server.get("/health/live").status == 200
    return False


def leave(port: int) -> None:
    """Ask for a long answer, take its beginning, and go."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/long")
    connection.getresponse().read(1)
    connection.close()


def sample(
    server: Server, name: str, rule: str, status: str, samples: dict[str, float] | None = None
) -> float:
    """A sample of the requests' families."""
    labels = f'{{method="GET",status="{status}",url_rule="{rule}"}}'
    return (server.samples() if samples is None else samples).get(f"flask_http_request_{name}{labels}", 0.0)
