"""What a client sees when something went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry

from app import create_app

CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8"


class Text(HTMLParser):
    """The text of each element that has one, by its tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tag = ""
        self.by_tag: dict[str, str] = {}
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self.tag = tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.by_tag.setdefault(self.tag, data.strip())


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FlaskClient]:
    with create_app({"DATABASE": tmp_path / "orders.db"}, CollectorRegistry()).test_client() as client:
        yield client


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (CHROME, "text/html; charset=utf-8"),
        ("text/html", "text/html; charset=utf-8"),
        ("application/json;q=0.5, text/html;q=0.4", "application/json"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("image/png", "application/json"),
        (None, "application/json"),
    ],
)
def test_form_follows_accept(client: FlaskClient, accept: str | None, content_type: str) -> None:
    """Browsers get a page, everybody else JSON, and caches are told what it depends on."""
    answer = client.get("/test/notfound", headers={"Accept": accept} if accept else {})

    assert (answer.status_code, answer.content_type) == (404, content_type)
    assert "Accept" in answer.vary


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("GET", "/nowhere", 404, "Not Found"),
        ("GET", "/test/notfound", 404, "Not Found"),
        ("DELETE", "/orders", 405, "Method Not Allowed"),
        ("GET", "/orders?limit=x", 400, "Bad Request"),
        ("GET", "/test/server-error", 500, "Internal Server Error"),
        ("GET", "/test/error", 500, "Internal Server Error"),
    ],
)
def test_both_forms_say_the_same(client: FlaskClient, method: str, path: str, status: int, name: str) -> None:
    """Status, name, message and request id are on the page and in the JSON."""
    headers = {"X-Request-ID": "order-desk-17"}
    told = client.open(path, method=method, headers=headers)
    shown = client.open(path, method=method, headers={**headers, "Accept": "text/html"})

    about = told.get_json()
    text = Text(shown.text).by_tag

    assert told.status_code == shown.status_code == about["status"] == status
    assert about["error"] == name
    assert about["request_id"] == "order-desk-17"
    assert text["title"] == f"{status} {name}"
    assert text["h1"] == f"{status} {name}"
    assert text["p"] == about["message"]
    assert text["code"] == "order-desk-17"


def test_request_id_is_the_response_headers(client: FlaskClient) -> None:
    """The id on the page is the one that the header carries, so that it leads to the log."""
    answer = client.get("/test/error")

    assert answer.get_json()["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_no_traceback(client: FlaskClient, accept: str) -> None:
    """Nothing of the exception reaches the client."""
    answer = client.get("/test/error", headers={"Accept": accept})

    assert answer.status_code == 500
    for secret in ("Traceback", "ValueError", "raised on demand", "faults.py"):
        assert secret not in answer.text


def test_headers_of_the_error_are_kept(client: FlaskClient) -> None:
    """A 405 still says which methods there are."""
    answer = client.delete("/orders")

    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}


def test_page_escapes(client: FlaskClient) -> None:
    """What the client sent appears on the page as text."""
    answer = client.get("/test/slow?seconds=<b>now</b>", headers={"Accept": "text/html"})

    assert "&lt;b&gt;now&lt;/b&gt;" in answer.text
    assert "<b>" not in answer.text


def test_head_has_no_body(client: FlaskClient) -> None:
    """HEAD answers carry the headers of the page and no body."""
    answer = client.head("/nowhere", headers={"Accept": "text/html"})

    assert (answer.status_code, answer.content_type, answer.data) == (404, "text/html; charset=utf-8", b"")
