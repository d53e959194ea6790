"""Slow requests: each gets its delay, is counted by that, and is kept if it is among the slowest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from inspect import unwrap
from math import inf
from time import time
from typing import Any

from exporter.measure.outcomes import Outcomes
from exporter.observation import Delay, Observation
from exporter.places import Places
from exporter.worker.sampler import Sampler
from exporter.worker.samples import delay
from exporter.worker.slowest import Slowest, SlowRequest
from exporter.worker.stackring import StackRing

_PATH_LIMIT = 200


class SlowRequests:
    """The slow requests of one service."""

    def __init__(
        self,
        seconds: float,
        places: Places,
        live: Callable[[], Sequence[Observation | None]],
        directory: str | None,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        """A request is slow from so many `seconds` on; 0 turns this off.

        `live` gives the requests in progress; `on_failure` is called with each error of the sampler and may
        take no lock.
        """
        self._seconds = seconds or inf
        self._places = places
        self.stacks = StackRing(directory)
        self._sampler = Sampler(live, places, on_failure, self.stacks)
        self.slowest = Slowest(directory)

    def start(self) -> None:
        """Sample the requests of this process from now on."""
        if self._seconds < inf:
            self._sampler.start()

    def watch(self, outcomes: Outcomes, view: Callable[[Observation], Any]) -> None:
        """Explain the slow ones of these requests from now on; `view` gives the function that answers one."""
        outcomes.slow = self._seconds
        outcomes.explain = partial(self._explain, view, outcomes)

    def _explain(
        self, view: Callable[[Observation], Any], outcomes: Outcomes, observation: Observation
    ) -> None:
        """Give a slow request its delay, and count it; costs 50 µs."""
        try:
            observation.name()
            seconds = self._sampler.seconds(observation, observation.duration)
            observation.delay = cause = delay(seconds, self._place(view(observation), observation.rule))
            outcomes.instruments.slow(observation, cause)
            outcomes.flight.explain(observation)
            self._keep(observation, cause)
        except Exception as error:
            outcomes.failures.count("slow", error)

    def _keep(self, observation: Observation, cause: Delay) -> None:
        # WSGI hands over the bytes of the path as Latin-1.
        path = observation.path[:_PATH_LIMIT].encode("latin-1", "replace").decode("utf-8", "replace")
        self.slowest.keep(
            SlowRequest(
                start_time=time() - observation.duration,
                duration=observation.duration,
                method=observation.method,
                url_rule=observation.rule,
                endpoint=observation.endpoint,
                path=path,
                status=observation.status,
                request_id=observation.request_id,
                trace_id=observation.trace_id,
                where=cause.where,
                line=cause.line,
                library=cause.library,
                call=cause.call,
                shares=cause.shares,
            )
        )

    def _place(self, view: Any, rule: str) -> str:
        """The place of the view function; the rule if there is none.

        It stands for the time outside of the application's own frames; an async view runs in another thread.
        """
        try:
            function = unwrap(view)
            return self._places.of(function.__code__, function.__globals__).where
        except (AttributeError, ValueError):  # not a Python function, or a circle of wrappers
            return rule
