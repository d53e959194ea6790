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
# Two wait at a time, in the same thread, and one keeps that thread for itself.
SLOW = f"""{SERVICE}
def wait_for_stock():
    time.sleep(0.8)

def compute():
    end = time.perf_counter() + 0.8
    while time.perf_counter() < end:
        pass

@app.get("/sleep")
def sleep():
    wait_for_stock()
    return ""

@app.get("/stream")
def stream():
    def rows():
        for _ in range(8):
            time.sleep(0.1)
            yield "row"
    return app.response_class(rows())

@app.get("/loop")
def loop():
    compute()
    return ""
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
    assert "Exception ignored" not in server.text()


def test_slow_greenlets_are_told_apart(tmp_path: Path) -> None:
    with (
        serving(tmp_path, "--worker-class", "gevent", source=SLOW, workers=1) as server,
        ThreadPoolExecutor(4) as clients,
    ):
        for paths in ("/sleep", "/stream", "/sleep", "/stream"), ("/loop",):
            assert {answer.status for answer in clients.map(server.get, paths)} == {200}
        slow = server.get("/monitoring/slow").json

    places = {
        rule: [request["where"].rpartition(":")[2].rpartition(".")[2] for request in requests]
        for rule, requests in slow.items()
    }
    assert places == {"/sleep": ["wait_for_stock"] * 2, "/stream": ["rows"] * 2, "/loop": ["compute"]}
