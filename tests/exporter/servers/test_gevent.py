"""gevent patches the standard library when a worker of gunicorn starts, after a preloaded application."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.rig.server import serving

SERVICE = """
import time
from flask import Flask
from exporter import FlaskExporter

app = Flask("greenlets")
exporter = FlaskExporter(app)

@exporter.health_check("database", timeout=20)
def database():
    time.sleep(0.2)

@app.get("/")
def index():
    return "hi"
"""
ASYNC = f"""{SERVICE}
import asyncio

@exporter.health_check("cache", timeout=20)
@exporter.health_check("queue", timeout=20)
async def reachable():
    await asyncio.sleep(0.1)
"""
WARMED_UP = f"{SERVICE}\napp.test_client().get('/metrics')\napp.test_client().get('/health')\n"
# Its log lines go over the network, so a greenlet that logs lets others run.
WAITING_LOG = f"""{SERVICE}
import logging

class Shipper(logging.Handler):
    def createLock(self):
        self.lock = None
    def emit(self, record):
        time.sleep(0.2)

logging.getLogger().addHandler(Shipper())

def begin(environ):
    raise RuntimeError("not yet")

exporter.core.begin = begin
"""
BELOW = ("/health", "/metrics", "/health/ready", "/", "/health", "/metrics?name[]=flask_health_check_up")


@pytest.mark.parametrize(
    "source", [SERVICE, ASYNC, WARMED_UP, WAITING_LOG], ids=["cold", "async", "warmed up", "logging"]
)
def test_nobody_waits_for_a_lock_that_gevent_does_not_know(tmp_path: Path, source: str) -> None:
    options = ("--worker-class", "gevent", "--preload", "--timeout", "20")
    with (
        serving(tmp_path, *options, source=source, workers=1) as server,
        ThreadPoolExecutor(len(BELOW)) as clients,
    ):
        answers = list(clients.map(server.get, BELOW))

        assert [answer.status for answer in answers] == [200] * len(BELOW)
        assert "WORKER TIMEOUT" not in server.text()
