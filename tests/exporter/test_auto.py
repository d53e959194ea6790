"""What becomes of an application that a server's hook finds; with real servers in servers/test_auto.py."""

from __future__ import annotations

import os
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
OTHER_PREFIX = MEASURED.replace("(app)", '(app, prefix="shop")')
OWN_REGISTRY = """
from flask import Flask
from prometheus_client import CollectorRegistry
from prometheus_flask_exporter import PrometheusMetrics
app = Flask("shop")
PrometheusMetrics(app, registry=CollectorRegistry())
"""
FLASK = """
from flask import Flask
app = Flask("shop")
"""
ASGI = """
async def app(scope, receive, send):
    pass
"""
ASGI_OBJECT = """
class Application:
    async def __call__(self, scope, receive, send):
        pass
app = Application()
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
    [
        (MEASURED, ""),
        (OTHER_PREFIX, ""),
        (WRAPPED, ""),
        (OWN_REGISTRY, ""),
        (ASGI, "is an ASGI application, so it is not measured: only WSGI ones are"),
        (ASGI_OBJECT, "is an ASGI application, so it is not measured: only WSGI ones are"),
        (UNWILLING, "RuntimeError: injected"),
    ],
    ids=[
        *("", "of another prefix", "of the parent, wrapped", "of the parent, with its registry"),
        *("asgi", "asgi, an object", "unwilling"),
    ],
)
def test_it_stays_as_it_is_if_it_has_an_exporter_or_cannot_have_one(source: str, message: str) -> None:
    script = f"{source}\nfrom exporter.auto import instrument\nprint(instrument(app) is app)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert done.stderr.rstrip().endswith(message)
    assert bool(done.stderr) == bool(message)


def test_a_flask_application_gets_the_pages_itself() -> None:
    """What else knows the application finds the same one."""
    script = (
        f"{FLASK}\nfrom exporter.auto import instrument\n"
        "print(instrument(app) is app, app.test_client().get('/metrics').status)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("True 200 OK\n", "")


def test_a_token_that_is_not_there_lets_nothing_start() -> None:
    """The pages would be open to nobody or to everybody."""
    script = "from exporter.auto import instrument\ninstrument(lambda environ, start_response: [])"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "EXPORTER_TOKEN_FILE": "/none"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "/none" in done.stderr.splitlines()[-1]
