"""Clients that ask a server, and count its answers."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPMessage
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        """The body, which must be UTF-8."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body, which must be JSON."""
        return json.loads(self.body)


def ask(
    connection: http.client.HTTPConnection,
    path: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
) -> Answer:
    """Ask over this connection."""
    connection.request(method, path, headers=dict(headers or {}))
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


def drive(
    port: int, clients: int, requests_of: Callable[[int], Iterator[tuple[str, str, dict[str, str]]]]
) -> Counter[tuple[str, int]]:
    """Let clients send (method, path, headers) side by side, and count answers by method and status.

    A connection is used 25 times, so that every worker gets its share.
    """
    counts: list[Counter[tuple[str, int]]] = []
    failures: list[BaseException] = []

    def run(client: int) -> None:
        count: Counter[tuple[str, int]] = Counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            for number, (method, path, headers) in enumerate(requests_of(client), 1):
                count[method, ask(connection, path, headers, method).status] += 1
                if number % 25 == 0:
                    connection.close()
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()
        counts.append(count)

    threads = [threading.Thread(target=run, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(counts, Counter())
