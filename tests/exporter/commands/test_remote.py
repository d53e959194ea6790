"""How `python -m exporter top` asks a service and a Prometheus: each connection ends with its look."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from exporter.commands.alerts import Prometheus
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
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

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
