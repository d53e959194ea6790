"""Answers: status, headers and body of a page, for any server; and the arguments of its request."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl

from exporter.addresses import Environ

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

Headers = list[tuple[str, str]]

_dumps = json.JSONEncoder(separators=(",", ":")).encode


class Answer(NamedTuple):
    """One answer."""

    status: int
    headers: Headers
    body: bytes


Page = Callable[[Environ], Answer]
"""Answers the request of a WSGI environ."""


def serve(page: Page, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a request with a page, as WSGI has it; a page is read and nothing else."""
    method = environ["REQUEST_METHOD"]
    if method in ("GET", "HEAD"):
        status, headers, body = page(environ)
    else:
        status, headers, body = as_text("This page is read with GET", 405, [("Allow", "GET, HEAD")])
    length = ("Content-Length", str(len(body)))
    start_response(f"{status} {HTTPStatus(status).phrase}", [*headers, length])
    return [] if method == "HEAD" else [body]


def as_text(text: str, status: int, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    """One line of plain text that nobody may cache."""
    standard = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]
    return Answer(status, [*standard, *headers], f"{text}\n".encode("utf-8", "replace"))


def as_json(body: Any, status: int = 200, headers: Iterable[tuple[str, str]] = ()) -> Answer:
    """A JSON document that nobody may cache; the host's own JSON provider has no say in its form.

    A document of several levels has one member a line, for human readers.
    """
    standard = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
    return Answer(status, [*standard, *headers], f"{_lines(body)}\n".encode())


def as_html(page: str, policy: str, status: int) -> Answer:
    """A page that nobody may cache or frame; `policy` says what it may load."""
    return Answer(
        status,
        [
            ("Content-Type", "text/html; charset=utf-8"),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", policy),
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
        ],
        page.encode(),
    )


def as_file(content: bytes, kind: str) -> Answer:
    """A text file that belongs to a page, as old as the page; `kind` is its media type."""
    headers = [
        ("Content-Type", f"{kind}; charset=utf-8"),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    return Answer(200, headers, content)


def _lines(body: Any) -> str:
    members = body.values() if isinstance(body, dict) else body
    if not any(isinstance(member, dict | list) for member in members):
        return _dumps(body)
    if isinstance(body, dict):
        return "{\n" + ",\n".join(f"{_dumps(name)}:{_dumps(value)}" for name, value in body.items()) + "\n}"
    return "[\n" + ",\n".join(map(_dumps, body)) + "\n]"


def arguments_of(environ: Environ) -> list[tuple[str, str]]:
    """The name and value of each argument in the query, in their order."""
    query = environ.get("QUERY_STRING", "").encode("latin-1", "replace")  # as WSGI hands over its bytes
    return parse_qsl(query.decode("utf-8", "replace"), keep_blank_values=True)
