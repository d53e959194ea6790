"""How `python -m exporter top` asks a service and a Prometheus: each connection ends with its look."""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from exporter.commands.alerts import Alerts, Prometheus
from exporter.commands.connection import Connection, Unavailable
from exporter.commands.remote import Service
from tests.rig.deadline import eventually

PAGES: dict[str, Any] = {
    "/monitoring/stats": {},
    "/monitoring/endpoints": {},
    "/monitoring/requests": [],
    "/health": {"status": "healthy"},
    "/api/v1/alerts": {"data": {"alerts": []}},
}

NO_HTTP = b"oops\r\n\r\n"
CUT = b'{"total_requests": '
"""The begin of an answer whose worker has died."""


@contextmanager
def served(**changes: Any) -> Iterator[tuple[str, list[int]]]:
    """The URL of a server that keeps connections; the requests of each one that has ended."""
    ended: list[int] = []
    pages = {path: changes.get(path.rpartition("/")[2], page) for path, page in PAGES.items()}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        requests = 0

        def do_GET(self) -> None:
            self.requests += 1
            page = pages[self.path.partition("?")[0]]
            body = page if isinstance(page, bytes) else json.dumps(page).encode()
            if body == NO_HTTP:
                self.wfile.write(body)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) + (3 if body == CUT else 0)))
            self.end_headers()
            self.wfile.write(body)
            if body == CUT:
                self.close_connection = True

        def finish(self) -> None:
            super().finish()
            ended.append(self.requests)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nothing: pytest's output is for failures."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", ended
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("look", "requests"),
    [(lambda url: Service(url), 5), (lambda url: Prometheus(url), 1)],
    ids=["service", "prometheus"],
)
def test_a_look_takes_one_connection(look: Callable[[str], Service | Prometheus], requests: int) -> None:
    """It is closed afterwards, so that the server keeps none between two looks."""
    with served() as (url, ended):
        asked = look(url)
        for looks in (1, 2):
            if isinstance(asked, Service):
                asked.snapshot()
            else:
                asked.alerts()
            eventually(partial(lambda looks: ended == [requests] * looks, looks), "the end of the connection")


def test_an_answer_that_is_no_http_costs_only_itself() -> None:
    """The next one is asked for over a new connection."""
    with served(stats=NO_HTTP) as (url, _):
        connection = Connection(url)
        with pytest.raises(Unavailable, match=f"{url} cannot be reached: oops"):
            connection.get("/monitoring/stats")

        assert connection.get("/health") == (200, b'{"status": "healthy"}')
        connection.close()


def test_an_answer_that_ends_too_early_is_none() -> None:
    """And no word about another service behind this address."""
    with served(stats=CUT) as (url, _):
        reason = f"{url} cannot be reached: IncompleteRead(19 bytes read, 3 more expected). Is the service"
        with pytest.raises(Unavailable, match=re.escape(reason)):
            Service(url).snapshot()


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://shop", "http://", "http:///monitoring"])
def test_an_address_has_a_scheme_and_a_host(url: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{url!r} is no address: give one such as http")):
        Connection(url)


@pytest.mark.parametrize("user", ["user", "user:hunter2", ":hunter2"])
def test_a_password_belongs_in_no_address(user: str) -> None:
    with pytest.raises(ValueError, match=r"^the address has a user or a password in it: give a tok"):
        Connection(f"http://{user}@127.0.0.1")


@pytest.mark.parametrize(
    ("token", "headers"),
    [
        ("", {"Accept": "application/json"}),
        ("t", {"Accept": "application/json", "Authorization": "Bearer t"}),
    ],
)
def test_what_is_asked_for(token: str, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A page below the address, as JSON, with the token."""
    asked: list[tuple[object, ...]] = []

    def request(_: object, *line: str, headers: dict[str, str]) -> None:
        asked.append((*line, headers))
        raise TimeoutError

    monkeypatch.setattr(http.client.HTTPConnection, "request", request)
    connection = Connection("https://shop:8443/behind/", token)
    with pytest.raises(Unavailable, match=r"^https://shop:8443/behind cannot be reached: TimeoutError\. Is"):
        connection.get("/health")

    assert asked == [("GET", "/behind/health", headers)]
    assert (connection.url, connection.has_token) == ("https://shop:8443/behind", bool(token))


def test_https_is_spoken_where_it_is_said() -> None:
    with served() as (url, _), pytest.raises(Unavailable, match="SSL"):
        Connection(url.replace("http", "https")).get("/health")


@pytest.mark.parametrize(
    ("alerts", "found"),
    [
        ([], Alerts()),
        (
            [
                ("firing", {"alertname": "B", "severity": "warning"}),
                ("firing", {"alertname": "C", "severity": "critical", "service": "shop"}),
                ("firing", {"alertname": "A", "severity": "warning"}),
                ("firing", {"alertname": "A", "severity": "warning"}),
                ("pending", {"alertname": "D", "severity": "warning"}),
                ("firing", {"alertname": "E", "severity": "info"}),
                ("firing", {"alertname": "F"}),
            ],
            Alerts(("C (shop)",), ("A", "B")),
        ),
        ([("firing", {"severity": "warning"})], None),
    ],
)
def test_the_alerts_that_fire(alerts: list[tuple[str, dict[str, str]]], found: Alerts | None) -> None:
    """Each once, by their names, but for those that are for information; one without a name is none."""
    body = {"data": {"alerts": [{"state": state, "labels": labels} for state, labels in alerts]}}
    with served(alerts=body) as (url, _):
        expected = found or Alerts(complaint=f"{url} answers 200, and no alerts")

        assert Prometheus(url).alerts() == expected


def test_a_prometheus_that_gives_no_answer_is_a_complaint() -> None:
    with served(alerts=NO_HTTP) as (url, _):
        alerts = Prometheus(url).alerts()

    assert alerts.complaint.startswith(f"{url} cannot be reached: oops")


@pytest.mark.parametrize(
    ("health", "known"),
    [
        ({"status": "degraded", "checks": {"database": {"up": False}}}, True),
        ({"status": "degraded"}, True),
        ({}, False),
        ({"status": "degraded", "checks": [1]}, False),
        (b"it works", False),
    ],
)
def test_a_health_page_is_one_with_a_state(health: Any, known: bool) -> None:
    """Other services have other pages there."""
    with served(health=health) as (url, _):
        assert Service(url).snapshot().health == (health if known else None)
