"""Is the service well? The checks that an application registers, the last minute's errors, readiness."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, TypeVar
from weakref import WeakSet

from flask import Flask, current_app
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

Function = TypeVar("Function", bound=Callable[[], object])

_CACHED_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From which error rate (0 to 1) on `/health` says so, and from how many requests a minute it speaks."""

    warning: float = 0.05
    degraded: float = 0.10
    min_requests: int = 20


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check said; `error` is None when it is up."""

    up: bool
    duration_seconds: float
    error: str | None


class _Run:
    """One call of a check in a thread of its own."""

    def __init__(self, name: str, function: Callable[[], object], app: Flask | None) -> None:
        self.started = time.monotonic()
        self.seconds: float | None = None
        self.error: str | None = None
        self.ended = threading.Event()
        # A daemon, unlike a pool's threads: a check that never returns must not keep a worker from exiting.
        thread = threading.Thread(target=self._call, args=(function, app), name=f"health-{name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the process has no threads to spare
            self.seconds, self.error = 0.0, str(error)
            self.ended.set()

    def _call(self, function: Callable[[], object], app: Flask | None) -> None:
        try:
            with nullcontext() if app is None else app.app_context():
                if function() is False:
                    self.error = "the check returned False"
        except BaseException as error:  # a check may raise anything, SystemExit included: it is down, no more
            self.error = f"{type(error).__name__}: {error}"
        self.seconds = time.monotonic() - self.started
        self.ended.set()

    def result(self, timeout: float) -> CheckResult:
        """Wait until `timeout` seconds after the start, no longer; what took longer than that is down."""
        self.ended.wait(max(0.0, self.started + timeout - time.monotonic()))
        seconds = self.seconds
        if seconds is not None and seconds <= timeout:
            return CheckResult(self.error is None, round(seconds, 6), self.error)
        waited = time.monotonic() - self.started if seconds is None else seconds
        return CheckResult(False, round(waited, 6), f"no answer within {timeout:g} s")


class _Check:
    """One registered check and its last run."""

    def __init__(self, name: str, function: Callable[[], object], timeout: float) -> None:
        self.name = name
        self.function = function
        self.timeout = timeout
        self.run: _Run | None = None

    def start(self, app: Flask | None) -> _Run:
        """A new run, or the last one where it still hangs: threads never pile up."""
        if self.run is None or self.run.ended.is_set():
            self.run = _Run(self.name, self.function, app)
        return self.run


class Health:
    """The health of one service as the answering worker sees it.

    `window` gives the requests and errors of the last 60 s over all workers, `draining` whether this worker
    is shutting down, `uptime` the seconds since the service started.
    """

    _lock: threading.Lock
    _results: dict[str, CheckResult]
    _checked: float

    def __init__(
        self,
        thresholds: Thresholds,
        *,
        window: Callable[[], tuple[int, int]],
        draining: Callable[[], bool],
        uptime: Callable[[], float],
    ) -> None:
        self._thresholds = thresholds
        self._window = window
        self._draining = draining
        self._uptime = uptime
        self._checks: dict[str, _Check] = {}
        self._forget()
        _instances.add(self)

    def health_check(self, name: str, timeout: float = 1.0) -> Callable[[Function], Function]:
        """Decorator: the function is a health check, called without arguments in the application context.

        It is down if it raises, returns False or takes longer than `timeout` seconds; anything else is up.
        Its result serves every caller for a second. Raises ValueError for a name that is taken or no timeout.
        """
        if not name or name in self._checks:
            raise ValueError(f"health check {name!r}: give each check a name of its own")
        if not timeout > 0:
            raise ValueError(
                f"health check {name!r}: timeout={timeout!r} must be a number of seconds above 0"
            )

        def register(function: Function) -> Function:
            self._checks[name] = _Check(name, function, timeout)
            return function

        return register

    def results(self) -> dict[str, CheckResult]:
        """What each check says: all run side by side, at most once a second, and callers wait for one run."""
        with self._lock:
            if (
                time.monotonic() - self._checked > _CACHED_SECONDS
                or self._results.keys() != self._checks.keys()
            ):
                app = current_app._get_current_object() if current_app else None  # type: ignore[attr-defined]
                runs = [(check, check.start(app)) for check in self._checks.values()]
                self._results = {check.name: run.result(check.timeout) for check, run in runs}
                self._checked = time.monotonic()
            return self._results

    def report(self, details: bool) -> tuple[dict[str, Any], int]:
        """The body and status of `/health`; outsiders (`details=False`) see the status alone."""
        checks = self.results()
        requests, errors = self._window()
        error_rate = errors / requests if requests else 0.0
        healthy = all(check.up for check in checks.values())
        status = self._grade(error_rate, requests) if healthy else "unhealthy"
        body: dict[str, Any] = {"status": status}
        if details:
            body["uptime_seconds"] = round(self._uptime(), 3)
            body["error_rate"] = error_rate
            body["checks"] = _shown(checks)
        return body, 200 if healthy else 503

    def live(self) -> tuple[dict[str, Any], int]:
        """The body and status of `/health/live`: the process answers."""
        return {"status": "alive"}, 200

    def ready(self, details: bool) -> tuple[dict[str, Any], int]:
        """The body and status of `/health/ready`: every check passes and the worker is not shutting down."""
        if self._draining():
            return {"status": "draining"}, 503
        checks = self.results()
        ready = all(check.up for check in checks.values())
        body: dict[str, Any] = {"status": "ready" if ready else "not ready"}
        if details:
            body["checks"] = _shown(checks)
        return body, 200 if ready else 503

    def describe(self) -> Iterable[Metric]:
        """For the registry, which would else run the checks to learn the names of the families."""
        return [_family()]

    def collect(self) -> Iterable[Metric]:
        """Computed by the worker that answers the scrape: a file would keep saying what a dead worker saw."""
        family = _family()
        for name, check in self.results().items():
            family.add_metric([name], 1.0 if check.up else 0.0)
        return [family]

    def _grade(self, error_rate: float, requests: int) -> str:
        if requests < self._thresholds.min_requests or error_rate <= self._thresholds.warning:
            return "healthy"
        return "warning" if error_rate <= self._thresholds.degraded else "degraded"

    def _forget(self) -> None:
        """No result yet; also in a forked child, which has the lock and the runs but not their threads."""
        self._lock = threading.Lock()
        self._results = {}
        self._checked = float("-inf")
        for check in self._checks.values():
            check.run = None


def _family() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "flask_health_check_up", "Whether a health check passes: 1 up, 0 down", labels=["check"]
    )


def _shown(checks: dict[str, CheckResult]) -> dict[str, dict[str, Any]]:
    """The error is there only where there is one."""
    return {
        name: {key: value for key, value in asdict(check).items() if value is not None}
        for name, check in checks.items()
    }


_instances: WeakSet[Health] = WeakSet()


def _after_fork() -> None:
    for health in _instances:
        health._forget()


os.register_at_fork(after_in_child=_after_fork)
