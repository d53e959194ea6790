"""Health checks: functions of the application that tell whether what it depends on works."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from exporter import forks

Function = TypeVar("Function", bound=Callable[[], object])
Context = Callable[[], AbstractContextManager[Any]]
"""Makes the context that a check runs in, such as the application context of the caller."""

_CACHE_SECONDS = 1.0
_LOOP_INTERVAL = 0.005
# How long an outsider waits for all checks together (s).
_OUTSIDER_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check; `error` is None when it is up."""

    up: bool
    duration_seconds: float
    error: str | None


_NO_RESULT = CheckResult(False, 0.0, "it has not ended yet")


class _Run:
    """One call of a check in a thread of its own."""

    def __init__(
        self, name: str, function: Callable[[], object], context: AbstractContextManager[Any]
    ) -> None:
        self.begin = time.monotonic()
        self.seconds: float | None = None
        self.error: str | None = None
        self.end = threading.Event()
        # A daemon, unlike a pool's threads: a check that never returns must not keep a worker from exiting.
        thread = threading.Thread(
            target=self._call, args=(function, context), name=f"health-{name}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # the process has no threads to spare
            self.seconds, self.error = 0.0, str(error)
            self.end.set()

    def result(self, timeout: float) -> CheckResult:
        """Wait until `timeout` seconds after the start, no longer; a check that takes longer is down."""
        self.end.wait(max(0.0, self.begin + timeout - time.monotonic()))
        seconds = self.seconds
        if seconds is not None and seconds <= timeout:
            return CheckResult(self.error is None, round(seconds, 6), self.error)
        duration = time.monotonic() - self.begin if seconds is None else seconds
        return CheckResult(False, round(duration, 6), f"no answer within {timeout:g} s")

    def _call(self, function: Callable[[], object], context: AbstractContextManager[Any]) -> None:
        try:
            with context:
                if _answer(function) is False:
                    self.error = "the check returned False"
        except BaseException as error:  # a check may raise anything, such as SystemExit, and is merely down
            self.error = f"{type(error).__name__}: {error}"
        self.seconds = time.monotonic() - self.begin
        self.end.set()


def _answer(function: Callable[[], object]) -> object:
    """The value that the check returns, an async one at its end."""
    answer = function()
    if inspect.isawaitable(answer):
        # A thread runs one event loop at a time, and gevent's greenlets share a thread, so they take turns.
        while asyncio._get_running_loop() is not None:
            time.sleep(_LOOP_INTERVAL)
        return asyncio.run(_await(answer))
    if inspect.isgenerator(answer) or inspect.isasyncgen(answer):
        raise TypeError("the check is a generator, of which nothing has run: let it return instead of yield")
    return answer


async def _await(answer: Awaitable[object]) -> object:
    return await answer


class _Check:
    """One registered check and its last run."""

    def __init__(self, name: str, function: Callable[[], object], timeout: float) -> None:
        self.name = name
        self.function = function
        self.timeout = timeout
        self.replaceable = False
        self.run: _Run | None = None

    def start(self, context: Context) -> _Run:
        """A new run, or the last one where it still hangs: threads never pile up."""
        if self.run is None or self.run.end.is_set():
            self.run = _Run(self.name, self.function, context())
        return self.run


class Checks:
    """The checks of one service, and their last results."""

    def __init__(self, context: Context = nullcontext, prefix: str = "flask_") -> None:
        """`context` is called in the thread that asks, once for each check."""
        self._context = context
        self._prefix = prefix
        self._checks: dict[str, _Check] = {}
        self._lock = forks.Lock()
        self._start_lock = forks.Lock()
        self._results: dict[str, CheckResult] = {}
        self._last_run = float("-inf")
        forks.forget(self)

    def health_check(self, name: str, timeout: float = 1.0) -> Callable[[Function], Function]:
        """Decorator: the function is a health check, called without arguments in the application context.

        It is down if it raises, returns False or takes longer than `timeout` seconds; anything else is up.
        Its result serves every caller for a second. Raises ValueError for a name that is taken or no timeout.
        Each further application may take a name once more: the new check replaces the old one.
        """
        former = self._checks.get(name)
        if not name or not isinstance(name, str) or (former is not None and not former.replaceable):
            raise ValueError(f"health check {name!r}: give each check a name of its own")
        if not timeout > 0:
            raise ValueError(
                f"health check {name!r}: timeout={timeout!r} must be a number of seconds above 0"
            )

        def register(function: Function) -> Function:
            self._checks[name] = _Check(name, function, timeout)
            self._last_run = float("-inf")
            return function

        return register

    def next_application(self) -> None:
        """Let the factory of another application declare these checks once more."""
        for check in self._checks.values():
            check.replaceable = True

    def results(self) -> dict[str, CheckResult]:
        """The result of each check; all run side by side, at most once a second, and callers share a run."""
        with self._lock:
            if self._are_due():
                runs = self._start()
                self._results = {check.name: run.result(check.timeout) for check, _, run in runs}
                self._last_run = time.monotonic()
            return self._results

    def latest(self) -> dict[str, CheckResult]:
        """The last result of each check, for outsiders: they must not hold threads with a slow check.

        Due checks get a moment to end; a slower one goes on in the background, for the next caller. Only who
        starts the first run of a check waits for it; until it ends the check is down for all others.
        """
        now = time.monotonic()
        if now - self._last_run > _CACHE_SECONDS:
            self._last_run = now  # so that no other caller starts them
            for check, is_first, run in self._start():
                overdue = run.begin + check.timeout
                deadline = overdue if is_first else min(now + _OUTSIDER_SECONDS, overdue)
                run.end.wait(max(deadline - time.monotonic(), 0.0))
                if run.end.is_set() or time.monotonic() >= overdue:
                    self._results = {**self._results, check.name: run.result(check.timeout)}
        return {name: self._results.get(name, _NO_RESULT) for name in self._checks}

    def _start(self) -> list[tuple[_Check, bool, _Run]]:
        """The checks, whether this is the first run of each, and the runs."""
        with self._start_lock:
            return [(check, check.run is None, check.start(self._context)) for check in self._checks.values()]

    def _are_due(self) -> bool:
        return (
            time.monotonic() - self._last_run > _CACHE_SECONDS or self._results.keys() != self._checks.keys()
        )

    def describe(self) -> Iterable[Metric]:
        """The family without samples: the registry would run the checks for its name otherwise."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """The results in the worker that answers the scrape: a file would keep those of dead workers."""
        family = self._family()
        for name, check in self.results().items():
            family.add_metric([name], 1.0 if check.up else 0.0)
        return [family]

    def after_fork(self) -> None:
        """Forget all results: the child has the runs, but not their threads."""
        self._results = {}
        self._last_run = float("-inf")
        for check in self._checks.values():
            check.run = None

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(
            f"{self._prefix}health_check_up", "Whether a health check passes: 1 up, 0 down", labels=["check"]
        )
