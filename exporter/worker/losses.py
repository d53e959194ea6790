"""Losses: the counters of dead workers, and of the requests that died with them."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter

from exporter.labels import UNMATCHED
from exporter.worker import deaths
from exporter.worker.deaths import Death
from exporter.worker.failures import logger

# The time for gunicorn's master, which knows the cause of a death, to report it first.
_GRACE_SECONDS = 5.0
_COMMON = ("SIGKILL", "SIGSEGV", "SIGABRT", "timeout")


class Routes(Protocol):
    """Gives the rule of a request that this process has not routed."""

    def rule(self, method: str, path: str) -> str: ...


class Losses:
    """Counts each death once: the first worker that sees it counts it."""

    def __init__(self, registry: CollectorRegistry, directory: str | None, prefix: str = "flask_") -> None:
        self._directory = directory
        self._prefix = prefix
        self.routes: weakref.WeakSet[Routes] = weakref.WeakSet()
        """The routes of each exporter of this process."""
        self._deaths = Counter(
            f"{prefix}worker_deaths",
            "Workers that died and were not told to, by the cause",
            ["cause"],
            registry=registry,
        )
        self._requests: Counter | None = None
        for cause in _COMMON:
            self._deaths.labels(cause)
        self._version = (0, 0)
        self._dead_since: dict[int, float] = {}
        self._next_look = 0.0

    def declare(self, registry: CollectorRegistry) -> None:
        """Declare the family of lost requests too, if the flight recorder keeps single requests."""
        if self._requests is None:
            self._requests = Counter(
                f"{self._prefix}http_requests_lost",
                "Requests that were never answered because their worker died, by the cause",
                ["url_rule", "cause"],
                registry=registry,
            )
            for cause in _COMMON:
                self._requests.labels(UNMATCHED, cause)

    def refresh(self) -> None:
        """Count the new deaths; called once a second. Raises OSError."""
        directory = self._directory
        if directory is None:
            return
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _GRACE_SECONDS
            self._bury(directory, now)
        version = deaths.version(directory)
        if version in ((0, 0), self._version):
            return
        with deaths.new_deaths(directory, self.rule) as (new, mark):
            counters = [counter for death in new for counter in self._counters(death)]
            mark()
            for counter in counters:
                counter.inc()
        self._version = version

    def _counters(self, death: Death) -> Iterator[Counter]:
        yield self._deaths.labels(death.cause)
        for request in death.requests:
            if self._requests is not None and not request.answered:
                yield self._requests.labels(request.url_rule or UNMATCHED, death.cause)

    def _bury(self, directory: str, now: float) -> None:
        """Bury the dead workers that no master has buried in the grace time."""
        self._dead_since = {pid: self._dead_since.get(pid, now) for pid in deaths.dead(directory)}
        for pid, since in self._dead_since.items():
            if now - since >= _GRACE_SECONDS:
                death = deaths.bury(directory, pid, deaths.UNKNOWN)
                if death is not None:
                    logger.error("%s", death)

    def rule(self, method: str, path: str) -> str:
        """The rule of a path without its script name, in any application of this process."""
        rules = (routes.rule(method, path) for routes in self.routes)
        return next((rule for rule in rules if rule != UNMATCHED), UNMATCHED)
