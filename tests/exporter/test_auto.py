"""What becomes of an application that a server's hook finds; with real servers in servers/test_auto.py."""

from __future__ import annotations

import subprocess
import sys

import pytest

MEASURED = """
from flask import Flask
from exporter import FlaskExporter
app = Flask("shop")
FlaskExporter(app)
"""
WRAPPED = """
from flask import Flask
from prometheus_flask_exporter import PrometheusMetrics
from werkzeug.middleware.proxy_fix import ProxyFix
flask_app = Flask("shop")
PrometheusMetrics(flask_app)
app = ProxyFix(flask_app)
"""
UNWILLING = """
import exporter.wsgi
def fail(_):
    raise RuntimeError("injected")
exporter.wsgi.WSGIExporter = fail
def app(environ, start_response):
    return []
"""


@pytest.mark.parametrize(
    ("source", "message"),
    [(MEASURED, ""), (WRAPPED, ""), (UNWILLING, "RuntimeError: injected")],
    ids=["", "of the parent, wrapped", "unwilling"],
)
def test_it_stays_as_it_is_if_it_has_an_exporter_or_cannot_have_one(source: str, message: str) -> None:
    script = f"{source}\nfrom exporter.auto import instrument\nprint(instrument(app) is app)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert done.stderr.rstrip().endswith(message)
    assert bool(done.stderr) == bool(message)
