"""Applications that never heard of the exporter are measured by the command that serves them alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.exporter.servers.test_prefork import ready, uwsgi
from tests.rig.deadline import eventually
from tests.rig.frameworks import BARE
from tests.rig.network import free_ports
from tests.rig.places import ROOT
from tests.rig.server import ORDERS, Server, gunicorn, serving, started

FRAMEWORKS = ROOT / ".venv/frameworks"
"""What `make test` has installed apart, because it cannot live beside the tools of the tests."""

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
    path = os.pathsep.join([str(directory), str(FRAMEWORKS)])
    environ = {"PYTHONPATH": path, "PROMETHEUS_MULTIPROC_DIR": "", **variables}
    with started(run, directory, source, **environ) as server:
        server.port = port
        eventually(lambda: answers(server), "an answer", 60)
        yield server


def script(name: str) -> str:
    """A command of the environment."""
    return str(Path(sys.executable).with_name(name))


def tutorial(directory: Path) -> None:
    """Flask's own tutorial application as its release has it, with its database."""
    (archive,) = FRAMEWORKS.glob("flask-*.tar.gz")
    with tarfile.open(archive) as content:
        for member in content.getmembers():
            _, _, name = member.name.partition("/examples/tutorial/")
            if name.startswith("flaskr/") and member.isfile():
                member.name = name
                content.extract(member, directory, filter="data")
    subprocess.run([script("flask"), "--app", "flaskr", "init-db"], cwd=directory, check=True, timeout=60)


def test_flasks_own_tutorial_under_gunicorn(tmp_path: Path) -> None:
    tutorial(tmp_path)
    log = tmp_path / "requests.log"
    variables = {"EXPORTER_REQUEST_LOG": str(log), "PYTHONPATH": str(tmp_path)}
    with serving(tmp_path, workers=2, application="flaskr:create_app()", **variables) as server:
        assert [server.get("/auth/login").status for _ in range(10)] == [200] * 10
        assert server.get("/health").json["status"] == "healthy"
        assert count(server, "/auth/login") == 10

    assert log.read_text().count('"message":"GET /auth/login 200"') == 10


def test_httpbin_under_gunicorn(tmp_path: Path) -> None:
    variables = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(FRAMEWORKS)])}
    with serving(tmp_path, workers=2, application="httpbin:app", **variables) as server:
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
        [sys.executable, "served.py", "PORT"],
    ],
    ids=["flask", "flask --debug", "waitress", "gunicorn", "a program of one's own"],
)
def test_other_commands(tmp_path: Path, command: list[str]) -> None:
    with running(tmp_path, command) as server:
        assert [server.get("/orders/7").status for _ in range(3)] == [200] * 3
        assert count(server, "/orders/<int:number>") == 3


@pytest.mark.parametrize("options", [[], ["--lazy-apps"]], ids=["application before the fork", "lazy-apps"])
@pytest.mark.parametrize(("source", "rule"), [(FLASK, "/orders/<int:number>"), (BARE, "/orders/<id>")])
def test_uwsgi(tmp_path: Path, options: list[str], source: str, rule: str) -> None:
    with started(uwsgi(*options), tmp_path, source) as server:
        ready(server)
        assert [server.get("/orders/7").status for _ in range(9)] == [200] * 9
        assert count(server, rule) == 9


def test_an_application_that_has_an_exporter_is_left_alone(tmp_path: Path) -> None:
    with serving(tmp_path, source=ORDERS, workers=1) as server:
        server.get("/orders/7")
        assert count(server, "/orders/<int:number>") == 1


@pytest.mark.parametrize("source", [FLASK, BARE])
def test_it_can_be_turned_off(tmp_path: Path, source: str) -> None:
    with gunicorn(tmp_path, source=source, workers=1, EXPORTER_AUTO="off") as server:
        server.port = int(server.await_text(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        eventually(lambda: answers(server), "an answer")
        assert server.get("/metrics").status == 404
        assert server.get("/orders/7").status == 200


def test_an_application_of_asgi_is_served_as_it_is(tmp_path: Path) -> None:
    """The log says so."""
    source = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"an order"})
"""
    with gunicorn(tmp_path, "-k", "uvicorn.workers.UvicornWorker", source=source, workers=1) as server:
        server.port = int(server.await_text(r"Listening at: http://127\.0\.0\.1:(\d+)")[1])
        eventually(lambda: answers(server), "an answer")
        assert server.get("/metrics").text == "an order"
        assert "is an ASGI application, so it is not measured" in server.text()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "name the command that serves"),
        (["no-such-command"], "no-such-command: No such file or directory"),
    ],
)
def test_a_command_that_cannot_be_started(words: list[str], complaint: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "exporter", "run", "--", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 2
    assert complaint in done.stderr
