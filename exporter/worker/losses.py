"""Losses: deaths of workers, and the requests that were lost with them, as counters."""

from __future__ import annotations

import time
import weakref
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter

from exporter.labels import UNMATCHED
from exporter.worker import deaths
from exporter.worker.failures import logger

# Who knows the cause of a death, as the master of gunicorn does, has so long to tell it.
_GRACE_SECONDS = 5.0
_COMMON = ("SIGKILL", "SIGSEGV", "SIGABRT", "timeout")


class Rules(Protocol):
    """Knows the rule of a request that was never routed here."""

    def rule(self, method: str, path: str) -> str: ...


class Losses:
    """Counts each death once, in whichever worker comes first."""

    def __init__(self, registry: CollectorRegistry, directory: str | None) -> None:
        self._directory = directory
        self.rules: weakref.WeakSet[Rules] = weakref.WeakSet()
        """The routing of each application of this process."""
        self._deaths = Counter(
            "flask_worker_deaths",
            "Workers that died and were not told to, by the cause",
            ["cause"],
            registry=registry,
        )
        self._lost: Counter | None = None
        for cause in _COMMON:
            self._deaths.labels(cause)
        self._version = (0, 0)
        self._dead: dict[int, float] = {}
        self._look_at = 0.0

    def declare(self, registry: CollectorRegistry) -> None:
        """Declare the family of requests too, where they are kept one by one."""
        if self._lost is None:
            self._lost = Counter(
                "flask_http_requests_lost",
                "Requests that were never answered because their worker died, by the cause",
                ["url_rule", "cause"],
                registry=registry,
            )
            for cause in _COMMON:
                self._lost.labels(UNMATCHED, cause)

    def refresh(self) -> None:
        """Count the deaths that are new; called once a second. Raises OSError."""
        directory = self._directory
        if directory is None:
            return
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _GRACE_SECONDS
            self._look(directory, now)
        version = deaths.version(directory)
        if version in ((0, 0), self._version):
            return
        for death in deaths.count(directory, self.rule):
            self._deaths.labels(death.cause).inc()
            for request in death.requests:
                if self._lost is not None and not request.answered:
                    self._lost.labels(request.url_rule or UNMATCHED, death.cause).inc()
        self._version = deaths.version(directory)

    def _look(self, directory: str, now: float) -> None:
        """Bury those whose death nobody else has told of."""
        dead = {pid: self._dead.get(pid, now) for pid in deaths.dead(directory)}
        self._dead = dead
        for pid, since in dead.items():
            if now - since >= _GRACE_SECONDS:
                death = deaths.bury(directory, pid, deaths.UNKNOWN)
                if death is not None:
                    logger.error("%s", death)

    def rule(self, method: str, path: str) -> str:
        """The rule of a path without its script name, in any application of this process."""
        rules = (routes.rule(method, path) for routes in self.rules)
        return next((rule for rule in rules if rule != UNMATCHED), UNMATCHED)
