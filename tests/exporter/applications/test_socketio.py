"""Flask-SocketIO ends a websocket with an exception, on Werkzeug's server and on gunicorn."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import pytest
from websocket import create_connection

from tests.rig.deadline import eventually
from tests.rig.network import free_ports
from tests.rig.server import QUIET, started

SERVED = """
import sys
from flask import Flask
from flask_socketio import SocketIO
from exporter import FlaskExporter

app = Flask("served")
socketio = SocketIO(app, async_mode="threading")
exporter = FlaskExporter(app)

if __name__ == "__main__":
    socketio.run(app, port=int(sys.argv[1]), allow_unsafe_werkzeug=True)
"""
WEBSOCKETS = 'flask_http_request_total{method="GET",status="101"}'


@pytest.mark.parametrize("name", ["werkzeug", "gunicorn"])
def test_a_websocket_that_ends_is_a_101(name: str, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    gunicorn = str(Path(sys.executable).with_name("gunicorn"))
    command = {
        "werkzeug": [sys.executable, "served.py", str(port)],
        "gunicorn": [gunicorn, *QUIET, "--threads", "9", "-b", f"127.0.0.1:{port}", "served:app"],
    }[name]
    with started(command, tmp_path, SERVED, PROMETHEUS_MULTIPROC_DIR="") as server:
        server.port = port

        def answers() -> bool:
            with suppress(OSError):
                return server.get("/health/live").status == 200
            return False

        eventually(answers, "an answer")
        for _ in range(2):
            url = f"ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket"
            client = create_connection(url, timeout=20)
            assert str(client.recv()).startswith("0")
            client.close()
        eventually(lambda: server.samples().get(WEBSOCKETS) == 2, "two websockets")
        samples = server.samples_at_rest()

    assert samples.get('flask_http_request_total{method="GET",status="500"}', 0) == 0
    assert samples.get('flask_http_request_exceptions_total{method="GET",status="500"}', 0) == 0
