"""Applications that never heard of the exporter are measured by the command that serves them alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.exporter.servers.test_prefork import ready, uwsgi
from tests.rig.deadline import eventually
from tests.rig.frameworks import APART, BARE, DJANGO, import_path, needs_apart
from tests.rig.network import free_ports
from tests.rig.places import ROOT
from tests.rig.server import ORDERS, Server, gunicorn, serving, started

FLASK = """
from flask import Flask

app = Flask("shop")

@app.get("/orders/<int:number>")
def show(number):
    return "an order"
"""

SERVED = (
    FLASK
    + """
if __name__ == "__main__":
    import sys
    from wsgiref.simple_server import make_server

    make_server("127.0.0.1", int(sys.argv[1]), app).serve_forever()
"""
)

GEVENT = """
from gevent.pywsgi import WSGIServer
from served import app

WSGIServer(("127.0.0.1", PORT), app).serve_forever()
"""

MANAGED = f"""{DJANGO}
if __name__ == "__main__":
    import sys
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
"""

DASH = """
from dash import Dash, Input, Output, dcc, html

app = Dash("shop")
app.layout = html.Div([dcc.Input(id="name"), html.P(id="greeting")])

@app.callback(Output("greeting", "children"), Input("name", "value"))
def greet(name):
    return f"hello {name}"

server = app.server
"""
CALLBACK: dict[str, Any] = {
    "output": "greeting.children",
    "outputs": {"id": "greeting", "property": "children"},
    "inputs": [{"id": "name", "property": "value", "value": "you"}],
    "changedPropIds": ["name.value"],
}


def count(server: Server, rule: str, status: str = "200") -> float:
    """How many GETs of this rule had this status."""
    labels = f'method="GET",status="{status}",url_rule="{rule}"'
    return server.samples().get(f"flask_http_request_duration_seconds_count{{{labels}}}", 0.0)


def answers(server: Server, path: str = "/health") -> bool:
    """Whether anything answers yet."""
    with suppress(OSError):
        return server.get(path).status > 0
    return False


@contextmanager
def running(directory: Path, command: list[str], source: str = SERVED, **variables: str) -> Iterator[Server]:
    """A command under `python -m exporter run`, with its port for PORT, when it answers."""
    (port,) = free_ports(1)
    words = [word.replace("PORT", str(port)) for word in command]
    run = [sys.executable, "-m", "exporter", "run", "--", *words]
    environ = {"PYTHONPATH": import_path(directory), "PROMETHEUS_MULTIPROC_DIR": "", **variables}
    with started(run, directory, source, **environ) as server:
        server.port = port
        eventually(lambda: answers(server), "an answer", 60)
        yield server


def script(name: str) -> str:
    """A command of the environment."""
    return str(Path(sys.executable).with_name(name))


def tutorial(directory: Path) -> None:
    """Flask's own tutorial application as its release has it, with its database."""
    (archive,) = APART.glob("flask-*.tar.gz")
    with tarfile.open(archive) as content:
        content.extraction_filter = getattr(tarfile, "data_filter", None)
        for member in content.getmembers():
            _, _, name = member.name.partition("/examples/tutorial/")
            if name.startswith("flaskr/") and member.isfile():
                member.name = name
                content.extract(member, directory)
    subprocess.run([script("flask"), "--app", "flaskr", "init-db"], cwd=directory, check=True, timeout=60)


@needs_apart
def test_flasks_own_tutorial_under_gunicorn(tmp_path: Path) -> None:
    tutorial(tmp_path)
    log = tmp_path / "requests.log"
    variables = {"EXPORTER_REQUEST_LOG": str(log), "PYTHONPATH": import_path(tmp_path)}
    with serving(tmp_path, workers=2, application="flaskr:create_app()", **variables) as server:
        assert [server.get("/auth/login").status for _ in range(10)] == [200] * 10
        assert server.get("/health").json["status"] == "healthy"
        assert count(server, "/auth/login") == 10

    assert log.read_text().count('"message":"GET /auth/login 200"') == 10


@needs_apart
def test_httpbin_under_gunicorn(tmp_path: Path) -> None:
    path = import_path(tmp_path)
    with serving(tmp_path, workers=2, application="httpbin:app", PYTHONPATH=path) as server:
        assert [server.get("/status/418").status for _ in range(10)] == [418] * 10
        assert server.get("/health/ready").status == 200
        assert count(server, "/status/<codes>", "418") == 10


def test_moto_from_its_own_command(tmp_path: Path) -> None:
    """It makes a Flask application for each service of AWS, behind a WSGI application of its own."""
    with running(tmp_path, [script("moto_server"), "-p", "PORT"]) as server:
        assert server.get("/moto-api/data.json").status == 200
        assert server.get("/health").status == 200
        assert count(server, "/moto-api/data.json") == 1


@pytest.mark.parametrize(
    "command",
    [
        [script("flask"), "--app", "served", "run", "--port", "PORT"],
        [script("flask"), "--app", "served", "--debug", "run", "--port", "PORT"],
        [script("waitress-serve"), "--port", "PORT", "served:app"],
        [script("gunicorn"), "-b", "127.0.0.1:PORT", "--preload", "served:app"],
        [script("uvicorn"), "--interface", "wsgi", "--port", "PORT", "served:app"],
        [script("hypercorn"), "--bind", "127.0.0.1:PORT", "wsgi:served:app"],
        [script("granian"), "--interface", "wsgi", "--port", "PORT", "served:app"],
        [sys.executable, "-c", GEVENT],
        [sys.executable, "served.py", "PORT"],
    ],
    ids=[
        "flask",
        "flask --debug",
        "waitress",
        "gunicorn",
        "uvicorn",
        "hypercorn",
        "granian",
        "gevent",
        "a program of one's own",
    ],
)
def test_other_commands(tmp_path: Path, command: list[str]) -> None:
    with running(tmp_path, command) as server:
        assert [server.get("/orders/7").status for _ in range(3)] == [200] * 3
        assert count(server, "/orders/<int:number>") == 3


@pytest.mark.parametrize("options", [[], ["--noreload"]], ids=["with reloader", "without"])
def test_djangos_own_server(tmp_path: Path, options: list[str]) -> None:
    command = [sys.executable, "served.py", "runserver", *options, "PORT"]
    with running(tmp_path, command, MANAGED) as server:
        assert [server.get("/orders/7").status for _ in range(3)] == [200] * 3
        assert count(server, "/orders/<int:number>") == 3


@needs_apart
@pytest.mark.parametrize("application", ["served:server", "served:app"], ids=["its Flask", "itself"])
def test_dash_under_gunicorn(tmp_path: Path, application: str) -> None:
    """A page is one route, and its callbacks are another."""
    path = import_path(tmp_path)
    with serving(tmp_path, source=DASH, workers=2, application=application, PYTHONPATH=path) as server:
        url = f"http://127.0.0.1:{server.port}/_dash-update-component"
        for _ in range(10):
            assert server.get("/").status == 200
            answer = requests.post(url, json=CALLBACK, timeout=30)
            assert "hello you" in answer.text
        samples = server.samples()

    counts = {
        rule: samples[
            f'flask_http_request_duration_seconds_count{{method="{method}",status="200",url_rule="{rule}"}}'
        ]
        for method, rule in (("GET", "/"), ("POST", "/_dash-update-component"))
    }
    assert counts == {"/": 10, "/_dash-update-component": 10}


@pytest.mark.parametrize("options", [[], ["--lazy-apps"]], ids=["application before the fork", "lazy-apps"])
@pytest.mark.parametrize(("source", "rule"), [(FLASK, "/orders/<int:number>"), (BARE, "/orders/<id>")])
def test_uwsgi(tmp_path: Path, options: list[str], source: str, rule: str) -> None:
    with started(uwsgi(*options), tmp_path, source) as server:
        ready(server)
        assert [server.get("/orders/7").status for _ in range(9)] == [200] * 9
        assert count(server, rule) == 9


def test_a_file_that_uwsgi_alone_reads_cannot_be_measured(tmp_path: Path) -> None:
    """The log says so, and what to do."""
    command = uwsgi("--wsgi-file", "served.py", "--callable", "app")
    index = command.index("--module")
    del command[index : index + 2]
    with started(command, tmp_path, FLASK) as server:
        ready(server)
        assert (server.get("/orders/7").status, server.get("/metrics").status) == (200, 404)
        assert "name its `module` instead" in server.text()


def test_an_application_that_has_an_exporter_is_left_alone(tmp_path: Path) -> None:
    with serving(tmp_path, source=ORDERS, workers=1) as server:
        server.get("/orders/7")
        assert count(server, "/orders/<int:number>") == 1


@pytest.mark.parametrize("name", ["PrometheusMetrics", "multiprocess.GunicornInternalPrometheusMetrics"])
def test_an_application_that_has_another_exporter_is_left_alone(tmp_path: Path, name: str) -> None:
    """It alone counts, and what its dead workers have counted stays."""
    workers = 2 if name.startswith("multiprocess") else 1
    module, _, parent = f"prometheus_flask_exporter.{name}".rpartition(".")
    variables = {"PROMETHEUS_MULTIPROC_DIR": ""} if workers == 1 else {}
    source = f"""{FLASK}
import os
from {module} import {parent}

{parent}(app, group_by="url_rule", defaults_prefix="shop")

@app.get("/pid")
def pid():
    return str(os.getpid())
"""
    with gunicorn(tmp_path, source=source, workers=workers, **variables) as server:
        server.port = int(server.await_text(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        eventually(lambda: answers(server, "/pid"), "an answer")
        for _ in range(10):
            server.get("/orders/7")
        if workers == 2:
            os.kill(int(server.get("/pid").text), signal.SIGKILL)
            eventually(lambda: server.text().count("Booting worker") == 3, "another worker")
        samples = server.samples()
        assert server.get("/monitoring/stats").status == 404
        server.end()

    labels = 'method="GET",status="200",url_rule="/orders/<int:number>"'
    assert samples[f"shop_http_request_duration_seconds_count{{{labels}}}"] == 10
    assert not [sample for sample in samples if sample.startswith("flask_")]


@pytest.mark.parametrize("source", [FLASK, BARE])
def test_it_can_be_turned_off(tmp_path: Path, source: str) -> None:
    with gunicorn(tmp_path, source=source, workers=1, EXPORTER_AUTO="off") as server:
        server.port = int(server.await_text(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        eventually(lambda: answers(server), "an answer")
        assert server.get("/metrics").status == 404
        assert server.get("/orders/7").status == 200


def test_it_can_be_turned_off_for_a_command_and_for_uwsgi(tmp_path: Path) -> None:
    with running(tmp_path, [sys.executable, "served.py", "PORT"], EXPORTER_AUTO="off") as server:
        assert (server.get("/orders/7").status, server.get("/metrics").status) == (200, 404)
    with started(uwsgi(), tmp_path, FLASK, EXPORTER_AUTO="off") as server:
        ready(server)
        assert (server.get("/orders/7").status, server.get("/metrics").status) == (200, 404)


ASYNC = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"an order"})
"""


def test_an_application_of_asgi_is_served_as_it_is(tmp_path: Path) -> None:
    """The log says so."""
    with gunicorn(tmp_path, "-k", "uvicorn.workers.UvicornWorker", source=ASYNC, workers=1) as server:
        server.port = int(server.await_text(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        eventually(lambda: answers(server), "an answer")
        assert server.get("/metrics").text == "an order"
        assert "is an ASGI application, so it is not measured" in server.text()


@pytest.mark.parametrize(
    "command",
    [
        ["uvicorn", "--port", "PORT", "served:app"],
        ["hypercorn", "--bind", "127.0.0.1:PORT", "served:app"],
        ["granian", "--interface", "asgi", "--port", "PORT", "served:app"],
    ],
    ids=lambda command: command[0],
)
def test_a_server_of_asgi_says_that_it_does_not_measure(tmp_path: Path, command: list[str]) -> None:
    with running(tmp_path, [script(command[0]), *command[1:]], source=ASYNC) as server:
        assert server.get("/metrics").text == "an order"
        server.await_text("is an ASGI application, so it is not measured")


@pytest.mark.parametrize("own", ["", "print('the own one')"])
def test_a_command_starts_as_it_does_alone(tmp_path: Path, own: str) -> None:
    """Python's hook for the start is the environment's too, and says nothing where that has none."""
    if own:
        (tmp_path / "sitecustomize.py").write_text(own)
    done = subprocess.run(
        [sys.executable, "-m", "exporter", "run", "--", sys.executable, "-c", "print('begins')"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    # The first time it is that of the command `run` itself.
    assert (done.stdout, done.stderr) == ("the own one\n" * 2 * bool(own) + "begins\n", "")


def test_an_error_of_the_environments_own_hook_is_told(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import no_such_module")
    done = subprocess.run(
        [sys.executable, "-m", "exporter", "run", "--", sys.executable, "-c", "print('begins')"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    # The first time it is that of the command `run` itself.
    assert (done.stdout, done.stderr.count("No module named 'no_such_module'")) == ("begins\n", 2)


def test_a_python_that_lacks_the_exporter_runs_the_command_and_says_so(tmp_path: Path) -> None:
    """Such as that of another environment."""
    venv.create(tmp_path / "other", symlinks=True)
    python = str(tmp_path / "other/bin/python")
    done = subprocess.run(
        [sys.executable, "-m", "exporter", "run", "--", python, "-c", "print('runs')"],
        env={**os.environ, "PYTHONPATH": ""},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    reason = "No module named 'exporter'"
    assert done.stdout == "runs\n"
    assert done.stderr == f"exporter: {python} cannot measure anything: {reason}\n"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "the following arguments are required: command"),
        (["run", "--"], "name the command that serves"),
        (["run", "--", "no-such-command"], "no-such-command: No such file or directory"),
    ],
)
def test_a_command_that_cannot_be_started(words: list[str], complaint: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "exporter", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 2
    assert complaint in done.stderr
