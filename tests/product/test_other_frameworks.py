"""`make run` with a Django service beside the Flask one: targets, dashboards and alerts cover both."""

import json
import re
import shutil
import threading
import urllib.error
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.request import urlopen

import pytest

from grafana.build import documents
from tests.grafana.test_dashboards import EMPTY, answer
from tests.rig import examples
from tests.rig.deadline import eventually
from tests.rig.network import get_json
from tests.rig.places import ROOT
from tests.rig.queries import queries_of
from tests.rig.server import Server
from tests.rig.stack import Run, running, settings

FLASK, DJANGO, WEB = "orders", "django-shop", "web-shop"
REQUESTS = {
    FLASK: ["/orders", "/test/error", "/nowhere"],
    DJANGO: ["/orders/7", "/boom", "/nowhere"],
}
ROUND = 40
"""Requests of each kind."""

# What the dashboards show of the demo and not of the example, and why.
OF_THE_DEMO = {"flask-service: Instances and health checks (B)": "the example declares no health check"}


@dataclass(frozen=True)
class Services:
    """The run, and the two Django services that are among its targets."""

    run: Run
    django: Server
    web: Server

    def request(self, service: str, path: str) -> int:
        """The status of a request to the Flask or to the Django service."""
        port = int(self.run.environ["APP_PORT"]) if service == FLASK else self.django.port
        try:
            with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def alerts(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What Alertmanager has, by alert and service."""
        found = get_json(self.run.url("ALERTMANAGER_PORT", "/api/v2/alerts"))
        return {(alert["labels"]["alertname"], alert["labels"].get("service", "")): alert for alert in found}


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """The example as its README adds it to targets/app.yml, and once more with metrics of another prefix."""
    directory = tmp_path_factory.mktemp("other")
    targets = directory / "targets"
    shutil.copytree(ROOT / "prometheus/targets", targets)
    readme = (ROOT / "examples/django/README.md").read_text()
    (group,) = re.findall(r"^```yaml\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    with (
        examples.running("django", directory / "django") as django,
        examples.running("django", directory / "web", EXPORTER_PREFIX="web") as web,
        (targets / "app.yml").open("a") as file,
    ):
        file.write(group.replace("8001", str(django.port)))
        file.write(group.replace("8001", str(web.port)).replace(DJANGO, WEB))
        file.flush()
        # No request of the demo is slow by chance, for none of the example is.
        variables = {"TARGETS_DIR": str(targets), "TIME_SCALE": "60", "TRAFFIC_USERS": "0"}
        with running(settings(directory / "run", EXPORTER_SLOW="30", **variables)) as run:
            run.wait_until_up()
            yield Services(run, django, web)


def test_it_is_a_target_that_is_up(services: Services) -> None:
    """And where its metrics have other names than the rules ask for, the run says so."""
    output = services.run.output

    assert re.search(r"^Up after \d+ s, all \d+ targets too:$", output, re.MULTILINE)
    assert "warning" not in output
    (line,) = re.findall(r"^  UNSEEN: (.*)", output, re.MULTILINE)
    assert line.startswith(f"{WEB} (127.0.0.1:{services.web.port}): no flask_exporter_info, so no rule ")


@pytest.fixture(scope="module")
def told(services: Services) -> dict[tuple[str, str], dict[str, Any]]:
    """What Alertmanager has once the first errors, of the Django service alone, are an alert."""

    def burst() -> dict[tuple[str, str], dict[str, Any]] | None:
        for _ in range(20):
            assert services.request(DJANGO, "/boom") == 500
            assert services.request(FLASK, "/orders") == 200
        alerts = services.alerts()
        return alerts if ("FlaskErrorRatioCritical", DJANGO) in alerts else None

    return eventually(burst, "the alert of the Django service", 60)


def test_the_alerts_cover_it(services: Services, told: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Errors of the one are no alert of the other, and one that is down is told."""
    assert told["FlaskErrorRatioCritical", DJANGO]["labels"] == {
        "alertname": "FlaskErrorRatioCritical",
        "job": "app",
        "service": DJANGO,
        "severity": "critical",
    }
    assert ("FlaskErrorRatioCritical", FLASK) not in told
    services.web.end()
    down = eventually(lambda: services.alerts().get(("FlaskTargetDown", WEB)), "it is down", 60)
    assert down["labels"]["scope"] == "service"
    assert not {("FlaskTargetDown", service) for service in REQUESTS} & services.alerts().keys()


@pytest.mark.usefixtures("told")  # before errors of both
def test_the_dashboards_cover_it(services: Services) -> None:
    """Every request is there under its route, and what they show of a Flask service they show of it."""
    durations = f'flask_http_request_duration_seconds_count{{service="{DJANGO}"}}'
    counts = f"sum by (url_rule, status) ({durations})"

    def are_counted() -> bool:
        counted = sum(services.run.query(counts).values())
        return bool(counted == services.django.get("/monitoring/stats").json["total_requests"])

    eventually(are_counted, "all earlier requests")
    expected = Counter(services.run.query(counts))
    for service, paths in REQUESTS.items():
        assert [services.request(service, path) for path in paths * ROUND] == [200, 500, 404] * ROUND
    for rule, status in (("/orders/<int:number>", "200"), ("/boom", "500"), ("_unmatched", "404")):
        expected[json.dumps({"status": status, "url_rule": rule})] += ROUND
    eventually(lambda: services.run.query(counts) == expected, "the requests are counted")

    answered: dict[str, set[str]] = {service: set() for service in REQUESTS}

    def complete() -> bool:
        for service, names in answered.items():
            names |= ask(services.run, service, names)
        return answered[FLASK] - answered[DJANGO] == OF_THE_DEMO.keys() and len(answered[DJANGO]) > 100

    with traffic(services), suppress(AssertionError):  # the difference is said below
        eventually(complete, "what is shown of both", 90)
    assert answered[FLASK] - answered[DJANGO] == OF_THE_DEMO.keys()
    assert len(answered[DJANGO]) > 100


@contextmanager
def traffic(services: Services) -> Iterator[None]:
    """Requests to both services, until the end of the context."""
    stop = threading.Event()

    def send() -> None:
        while not stop.wait(0.05):
            for service, paths in REQUESTS.items():
                for path in paths:
                    services.request(service, path)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def ask(run: Run, service: str, known: set[str]) -> set[str]:
    """The queries of all dashboards that have an answer for a service now, but for those that are `known`.

    What is empty in a healthy stack is there by chance, and is not asked.
    """
    names = set()
    for text in documents().values():
        board = json.loads(text)
        asked = [variable["name"] for variable in board["templating"]["list"] if variable["type"] == "query"]
        values = dict.fromkeys([*asked, "status_class"], ".*")
        values |= {"compare": "5s", "job": "app", "service": service}
        for query in queries_of(board):
            if str(query) not in known | EMPTY.keys() and answer(run, query, values):
                names.add(str(query))
    return names
