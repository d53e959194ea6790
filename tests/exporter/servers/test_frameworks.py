"""Services of other frameworks that know nothing of the exporter: two workers of gunicorn measure them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.clients import drive
from tests.rig.frameworks import BARE, CONDITIONS, SERVICES, Service, import_path, needs_apart, needs_imp
from tests.rig.places import ROOT
from tests.rig.server import serving

CLIENTS = 4


def requests_of(service: Service, number_of_requests: int) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Four fifths orders, a tenth errors, a tenth of what is not there."""
    for number in range(number_of_requests):
        path = {8: service.boom, 9: f"{service.nothing}/{number}"}.get(
            number % 10, f"{service.order}{number}"
        )
        yield "GET", path, {}


@pytest.mark.parametrize("each", [50, pytest.param(500, marks=pytest.mark.soak)])
@pytest.mark.parametrize("name", [pytest.param(name, marks=CONDITIONS.get(name, ())) for name in SERVICES])
def test_every_request_is_counted_under_its_route_and_has_its_line(
    tmp_path: Path, name: str, each: int
) -> None:
    service = SERVICES[name]
    variables = {
        "PYTHONPATH": import_path(tmp_path),
        "EXPORTER_REQUEST_LOG": f"{tmp_path}/requests.log",
        "EXPORTER_MONITORING_PATH": service.monitoring,
    }
    with serving(tmp_path, source=service.source, workers=2, **variables) as server:
        answers = drive(server.port, CLIENTS, lambda _: requests_of(service, each))
        samples = server.samples()
        outside = server.get(f"{service.monitoring}/stats", {"X-Forwarded-For": "203.0.113.9"})
        inside = server.get(f"{service.monitoring}/stats")
        missing = server.get("/health/ready")
        mine = server.get(f"{service.monitoring}/endpoints")
    total = CLIENTS * each

    assert answers == {("GET", 200): total * 8 // 10, ("GET", 500): total // 10, ("GET", 404): total // 10}
    counts = {
        name: count
        for name, count in samples.items()
        if name.startswith("flask_http_request_duration_seconds_count") and count
    }
    assert counts == {
        durations("200", service.rule): total * 8 // 10,
        durations("500", service.boom): total // 10,
        durations("404", "_unmatched"): total // 10,
    }
    bug = f'error_type="ValueError",method="GET",status="500",url_rule="{service.boom}"'
    assert samples[f"flask_http_request_errors_total{{{bug}}}"] == total // 10
    assert samples['flask_http_request_exceptions_total{method="GET",status="500"}'] == total // 10
    assert not any(count for name, count in samples.items() if name.startswith("flask_exporter_failures"))
    assert (outside.status, inside.status, missing.status) == (403, 200, 200)
    assert inside.json["total_requests"] == total
    assert (mine.status, mine.text == "mine") == (200, service.mine)

    lines = [json.loads(line) for line in (tmp_path / "requests.log").read_text().splitlines()]
    requests = {
        line["request_id"]: line
        for line in lines
        if line["logger"] == "exporter.request" and "status" in line
    }
    records = [line for line in lines if line["logger"] == "shop"]
    assert len(requests) == total + service.mine
    assert len(records) == total * 8 // 10
    assert all(
        requests[record["request_id"]]["url_rule"] == record["url_rule"] == service.rule for record in records
    )
    assert {requests[record["request_id"]]["endpoint"] for record in records} == {service.endpoint}
    tracebacks = Counter(line["request_id"] for line in lines if "traceback" in line)
    assert tracebacks == dict.fromkeys((key for key, line in requests.items() if line["status"] == 500), 1)


def test_an_application_of_no_framework_runs_beside_all_of_them(tmp_path: Path) -> None:
    """In a process that has imported them."""
    frameworks = "import bottle, django.core.handlers.wsgi, falcon, flask, pyramid.router"

    assert ask(tmp_path, f"{frameworks}{BARE}{WRAPPED}", ("GET", "/orders/7")) == "an order"


@needs_apart
def test_ombott_runs_without_py4web(tmp_path: Path) -> None:
    source = "import ombott\napp = ombott.Ombott()\napp.get('/orders/7')(lambda: 'an order')"

    assert ask(tmp_path, f"{source}{WRAPPED}", ("GET", "/orders/7")) == "an order"


@pytest.mark.parametrize(
    "name",
    [
        "django",
        "pyramid",
        pytest.param("py4web", marks=needs_apart),
        pytest.param("web2py", marks=needs_imp),
    ],
)
def test_requests_that_nobody_measures_are_answered_as_before(tmp_path: Path, name: str) -> None:
    """The hooks into the framework are there for those that somebody does."""
    service = SERVICES[name]

    source = f"{service.source}\nbare = app{WRAPPED}\napp = bare"
    assert ask(tmp_path, source, ("GET", f"{service.order}7")) == "an order"


@pytest.mark.parametrize(
    ("name", "ticket"),
    [
        pytest.param("py4web", r"[0-9a-f-]{36}", marks=needs_apart),
        pytest.param("web2py", r"sorry: shop/\S+", marks=needs_imp),
    ],
)
def test_the_page_of_an_error_names_its_ticket(tmp_path: Path, name: str, ticket: str) -> None:
    service = SERVICES[name]

    assert re.search(ticket, ask(tmp_path, f"{service.source}{WRAPPED}", ("GET", service.boom)))


GONE = """
def gone(request, exception=None):
    response = {response}("gone")
    response.status_code = 410
    return response
"""
DJANGO_GONE = GONE.format(response="HttpResponse") + "handler404 = gone"
PYRAMID_GONE = (
    GONE.format(response="Response") + "config.add_notfound_view(gone)\napp = config.make_wsgi_app()"
)


@pytest.mark.parametrize(
    ("name", "addition", "method", "path", "status"),
    [
        ("bottle", "", "POST", "/orders/7", "405"),
        ("django", DJANGO_GONE, "GET", "/nothing", "410"),
        ("pyramid", PYRAMID_GONE, "GET", "/nothing", "410"),
        pytest.param("py4web", "", "POST", "/shop/orders/7", "405", marks=needs_apart),
    ],
)
def test_what_no_route_takes_is_unmatched_whatever_its_answer(
    tmp_path: Path, name: str, addition: str, method: str, path: str, status: str
) -> None:
    source = f"{SERVICES[name].source}{addition}{WRAPPED}"
    exposition = ask(tmp_path, source, (method, path), ("GET", "/metrics"))

    assert f"{durations(status, '_unmatched', method)} 1.0" in exposition


WRAPPED = """
from exporter.wsgi import WSGIExporter
app = WSGIExporter(app)
"""
ASK = """
import json, sys
from werkzeug.test import Client
from served import app
for method, path in json.loads(sys.argv[1]):
    answer = Client(app).open(path, method=method, environ_overrides={"REMOTE_ADDR": "127.0.0.1"}).text
print("answer:", answer)
"""


def ask(directory: Path, source: str, *requests: tuple[str, str]) -> str:
    """The last answer of a process with the service of this source to a few requests."""
    (directory / "served.py").write_text(source)
    command = [sys.executable, "-c", ASK, json.dumps(requests)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([import_path(directory), str(ROOT)])}
    done = subprocess.run(
        command, cwd=directory, env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("answer: ")[2].rstrip()


def durations(status: str, rule: str, method: str = "GET") -> str:
    """The series of durations."""
    labels = f'method="{method}",status="{status}",url_rule="{rule}"'
    return f"flask_http_request_duration_seconds_count{{{labels}}}"
