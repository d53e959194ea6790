"""connexion 3 takes `wsgi_app` in its constructor, before any exporter can come, and serves it from ASGI."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from tests.rig.deadline import eventually
from tests.rig.network import free_ports
from tests.rig.server import started

SERVED = """
import connexion
from exporter import FlaskExporter

shop = connexion.FlaskApp("shop", specification_dir=".")
exporter = FlaskExporter(shop.app)

def show(number):
    return {"number": number}

def boom():
    raise ValueError("bug")

def operation(function, **parameters):
    answers = {"200": {"description": "ok"}}
    return {"get": {"operationId": f"served.{function}", "responses": answers, **parameters}}

number = {"name": "number", "in": "path", "required": True, "schema": {"type": "integer"}}
shop.add_api({
    "openapi": "3.0.0",
    "info": {"title": "shop", "version": "1"},
    "paths": {"/orders/{number}": operation("show", parameters=[number]), "/boom": operation("boom")},
})
"""


def test_its_requests_are_counted_once_in_one_process(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    command = [str(Path(sys.executable).with_name("uvicorn")), "--port", str(port), "served:shop"]
    with started(command, tmp_path, SERVED, PROMETHEUS_MULTIPROC_DIR="") as server:
        server.port = port

        def answers() -> bool:
            with suppress(OSError):
                return server.get("/health/live").status == 200
            return False

        eventually(answers, "an answer")
        assert [server.get("/orders/7").status for _ in range(5)] == [200] * 5
        assert server.get("/boom").status == 500
        samples = server.samples_at_rest()
        log = server.text()

    assert samples['flask_http_request_total{method="GET",status="200"}'] == 5
    assert samples['flask_http_request_total{method="GET",status="500"}'] == 1
    assert log.count("requests come to 'shop' past its exporter") == 1
