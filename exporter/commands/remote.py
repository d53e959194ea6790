"""A remote service, as its /monitoring and /health pages show it."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from exporter.commands.alerts import Alerts, Prometheus
from exporter.commands.connection import Connection, Unavailable

_REQUESTS_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The answers of a service at one time; `health` is None if it serves no such page."""

    at: float  # of this machine's monotonic clock, seconds
    stats: dict[str, Any]
    endpoints: dict[str, dict[str, Any]]
    requests: list[dict[str, Any]]
    failed: list[dict[str, Any]]
    """The latest ones that were answered with a 5xx; many good requests may be later than these."""
    health: dict[str, Any] | None
    alerts: Alerts | None = None
    """None if nobody has said where Prometheus is."""
    query: Mapping[str, str] = field(default_factory=dict)
    """The conditions of the requests."""


class Service:
    """The service at `url`, whose pages are under `path` and `health_path`; `token` if it requires one.

    `prometheus` knows its alerts. Raises ValueError for an invalid URL.
    """

    def __init__(
        self,
        url: str,
        path: str = "/monitoring",
        health_path: str = "/health",
        token: str = "",
        prometheus: Prometheus | None = None,
    ) -> None:
        self._connection = Connection(url, token)
        self.url = self._connection.url
        self._path = path
        self._health_path = health_path
        self._prometheus = prometheus

    def snapshot(self, query: Mapping[str, str] | None = None) -> Snapshot:
        """Read all pages, with the latest and the failed ones of these requests. Raises Unavailable."""
        at = time.monotonic()
        query = query or {}
        try:
            stats = self._page("/stats", _STATS)
            endpoints = self._page("/endpoints", _ENDPOINTS)
            latest = {"limit": _REQUESTS_LIMIT, **query}
            requests = self._page("/requests?" + urlencode(latest), _REQUESTS)
            failed = self._page("/requests?" + urlencode({**latest, "status": "5xx"}), _REQUESTS)
            health = self._health()
        finally:
            self._connection.close()
        alerts = self._prometheus.alerts() if self._prometheus else None
        return Snapshot(at, stats, endpoints, requests, failed, health, alerts, query)

    def _page(self, page: str, shape: Any) -> Any:
        status, body = self._connection.get(self._path + page)
        address = self.url + self._path + page.partition("?")[0]
        if status != 200:
            remedy = _REMEDIES.get(status, _DEFAULT_REMEDY)
            if status == 401 and self._connection.has_token:
                remedy = _MISMATCH_REMEDY
            raise Unavailable(f"{address} answers {status}: {remedy}.")
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = None
        if content is None or not _fits(content, shape):
            raise Unavailable(f"{address} answers something else than an exporter would: {_REMEDIES[404]}.")
        return content

    def _health(self) -> dict[str, Any] | None:
        _, body = self._connection.get(self._health_path)
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            return None
        return content if _fits(content, _HEALTH) and "status" in content else None


def _is_figure(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < 1e11


def _is_figure_or_none(value: object) -> bool:
    return value is None or _is_figure(value)


def _fits(value: Any, shape: Any) -> bool:
    """Whether a document is as an exporter would write it.

    A shape is a function, a list of one shape, or a dict of shapes by name; the key "*" stands for any name.
    """
    if callable(shape):
        return bool(shape(value))
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(element, shape[0]) for element in value)
    if "*" in shape:
        return value is None or (
            isinstance(value, dict) and all(_fits(member, shape["*"]) for member in value.values())
        )
    return isinstance(value, dict) and all(
        _fits(value[name], member) for name, member in shape.items() if name in value
    )


_TIMES = {
    "average_response_time_ms": _is_figure_or_none,
    "max_response_time_ms": _is_figure_or_none,
    "response_time_percentiles": {"*": _is_figure_or_none},
}
_STATS = {
    **_TIMES,
    "uptime_seconds": _is_figure_or_none,
    "total_requests": _is_figure,
    "total_errors": _is_figure,
    "requests_per_second": _is_figure,
    "error_rate": _is_figure,
    "error_types": {"*": _is_figure},
}
_ENDPOINTS = {
    "*": {
        **_TIMES,
        "request_count": _is_figure,
        "error_count": _is_figure_or_none,
        "error_rate": _is_figure_or_none,
    }
}
_REQUESTS = [{"timestamp": _is_figure, "status_code": _is_figure, "duration_ms": _is_figure_or_none}]
_HEALTH: dict[str, Any] = {"checks": {"*": {}}}

_REMEDIES = {
    401: "it wants a token; give the file that holds it with --token-file",
    403: "it does not let this address in; ask from the server itself, or have EXPORTER_ALLOW name this one",
    404: (
        "there is no FlaskExporter behind this address, or EXPORTER_MONITORING_PATH has moved its pages "
        "(give that path with --path) or turned them off"
    ),
}
_MISMATCH_REMEDY = "it does not take this token; give the file that its EXPORTER_TOKEN_FILE names"
_DEFAULT_REMEDY = "look into the service's log"
