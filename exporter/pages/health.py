"""`/health`, `/health/live`, `/health/ready`: is the service well, and does it take requests?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from exporter.addresses import Environ
from exporter.pages.access import Access
from exporter.pages.answers import Answer, Page, as_json
from exporter.pages.checks import CheckResult, Checks
from exporter.settings import Settings


@dataclass(frozen=True, slots=True)
class Vitals:
    """Facts about the service besides its checks."""

    window: Callable[[], tuple[int, int]]
    """Requests and errors of the last 60 s, over all workers."""
    uptime: Callable[[], float]
    """Seconds since the service started."""
    draining: Callable[[], bool]
    """Whether this worker is shutting down."""


@dataclass(frozen=True, slots=True)
class Condition:
    """The condition of a service: `healthy`, `warning`, `degraded` or `unhealthy`, and what it rests on."""

    status: str
    requests: int
    """Requests of the last 60 s."""
    error_rate: float
    checks: dict[str, CheckResult]


class Health:
    """The health of one service as the answering worker sees it; outsiders see the status alone."""

    def __init__(self, checks: Checks, vitals: Vitals, access: Access, settings: Settings) -> None:
        self.vitals = vitals
        self._checks = checks
        self._access = access
        self._settings = settings

    def pages(self) -> dict[str, Page]:
        """The pages, by their path below the first."""
        return {"": self.report, "/live": self.live, "/ready": self.ready}

    def report(self, environ: Environ) -> Answer:
        """`/health`: 503 when a check fails; the error rate alone only changes the status in the body."""
        insider = self._is_insider(environ)
        condition = self.condition(insider=insider)
        body: dict[str, Any] = {"status": condition.status}
        if insider:
            body["uptime_seconds"] = round(self.vitals.uptime(), 3)
            body["error_rate"] = condition.error_rate
            body["checks"] = _details(condition.checks)
        return as_json(body, 503 if condition.status == "unhealthy" else 200)

    def condition(self, *, insider: bool) -> Condition:
        """The condition now; an outsider does not make the checks run."""
        checks = self._checks.results() if insider else self._checks.latest()
        requests, errors = self.vitals.window()
        error_rate = errors / requests if requests else 0.0
        healthy = all(check.up for check in checks.values())
        status = self._grade(error_rate, requests) if healthy else "unhealthy"
        return Condition(status, requests, error_rate, checks)

    def live(self, _: Environ) -> Answer:
        """`/health/live`: the process answers."""
        return as_json({"status": "alive"})

    def ready(self, environ: Environ) -> Answer:
        """`/health/ready`: 200 while every check passes and the worker is not shutting down, else 503."""
        if self.vitals.draining():
            return as_json({"status": "draining"}, 503)
        insider = self._is_insider(environ)
        checks = self._checks.results() if insider else self._checks.latest()
        ready = all(check.up for check in checks.values())
        body: dict[str, Any] = {"status": "ready" if ready else "not ready"}
        if insider:
            body["checks"] = _details(checks)
        return as_json(body, 200 if ready else 503)

    def _grade(self, error_rate: float, requests: int) -> str:
        settings = self._settings
        if requests < settings.health_min_requests or error_rate <= settings.health_warning:
            return "healthy"
        return "warning" if error_rate <= settings.health_degraded else "degraded"

    def _is_insider(self, environ: Environ) -> bool:
        return self._access.refusal(environ) is None


def _details(checks: dict[str, CheckResult]) -> dict[str, dict[str, Any]]:
    """The checks for a body; only those that are down have an error."""
    return {
        name: {key: value for key, value in asdict(check).items() if value is not None}
        for name, check in checks.items()
    }
