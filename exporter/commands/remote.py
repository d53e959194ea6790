"""A service asked from outside, over its /monitoring and /health pages."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

_TIMEOUT = 10.0


class Unavailable(Exception):  # noqa: N818  a state of the service, not a fault of this program
    """The service does not tell; the message says plainly why and what to do."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a service said at one time; `health` is None where it serves no such page."""

    at: float  # of this machine's monotonic clock, seconds
    stats: dict[str, Any]
    endpoints: dict[str, dict[str, Any]]
    requests: list[dict[str, Any]]
    health: dict[str, Any] | None


class Service:
    """The service at `url`, whose pages are under `path` and `health_path`; `token` if it wants one.

    Raises ValueError for a URL that is none. Proxies that the environment names are not used: a forwarded
    request counts as one from outside.
    """

    def __init__(
        self, url: str, path: str = "/monitoring", health_path: str = "/health", token: str = ""
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address: give one such as http://127.0.0.1:8000")
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = connect(parts.hostname, parts.port, timeout=_TIMEOUT)
        self._root = parts.path.rstrip("/")
        self.url = f"{parts.scheme}://{parts.netloc}{self._root}"
        self._path = path
        self._health_path = health_path
        self._headers = {"Accept": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def snapshot(self, requests: int = 100) -> Snapshot:
        """Ask for everything, for `requests` of the latest requests at most. Raises Unavailable."""
        at = time.monotonic()
        try:
            stats = self._page("/stats", dict)
            endpoints = self._page("/endpoints", dict)
            latest = self._page("/requests?" + urlencode({"limit": requests}), list)
            return Snapshot(at, stats, endpoints, latest, self._health())
        finally:
            self._connection.close()  # until the next time the server would have done so

    def _page(self, page: str, expected: type) -> Any:
        status, body = self._get(self._path + page)
        address = self.url + self._path + page.partition("?")[0]
        if status != 200:
            remedy = _REMEDIES.get(status, _ANY_REMEDY)
            if status == 401 and "Authorization" in self._headers:
                remedy = _NOT_TAKEN
            raise Unavailable(f"{address} answers {status}: {remedy}.")
        try:
            content = json.loads(body)
        except ValueError:
            content = None
        if not isinstance(content, expected):
            raise Unavailable(f"{address} answers something else than an exporter would: {_REMEDIES[404]}.")
        return content

    def _health(self) -> dict[str, Any] | None:
        _, body = self._get(self._health_path)
        try:
            content = json.loads(body)
        except ValueError:
            return None
        return content if isinstance(content, dict) and "status" in content else None

    def _get(self, path: str) -> tuple[int, bytes]:
        try:
            self._connection.request("GET", self._root + path, headers=self._headers)
            response = self._connection.getresponse()
            return response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unavailable(
                f"{self.url} cannot be reached: {reason}. Is the service running there?"
            ) from error


_REMEDIES = {
    401: "it wants a token; give the file that holds it with --token-file",
    403: "it does not let this address in; ask from the server itself, or have EXPORTER_ALLOW name this one",
    404: (
        "there is no FlaskExporter behind this address, or EXPORTER_MONITORING_PATH has moved its pages "
        "(give that path with --path) or turned them off"
    ),
}
_NOT_TAKEN = "it does not take this token; give the file that its EXPORTER_TOKEN_FILE names"
_ANY_REMEDY = "look into the service's log"
