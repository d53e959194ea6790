"""Outcomes: the properties of a request that follow from its rule, method and status line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Protocol

from werkzeug.exceptions import HTTPException

from exporter import forks
from exporter.labels import error_type_of
from exporter.measure.fingerprints import Fingerprints
from exporter.measure.instruments import Instruments
from exporter.measure.tracing import active
from exporter.observation import Observation, Outcome, Route
from exporter.worker.flightrecorder import FlightRecorder

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_NOWHERE = FlightRecorder(0)  # it stays closed
BODILESS = frozenset(["204", "304"])
# The most outcomes in the table, each of about 1 KB: an application may invent any number of status lines.
LIMIT = 10_000

Sink = tuple[str, Callable[[Observation], None]]
"""The stage of its failures, and the function that receives each recorded observation."""


class Grouping(Protocol):
    """Gives the labels of requests, as the framework of the application knows them."""

    by_rule: bool
    """Whether all labels follow from method, route and status."""

    def route(self, environ: WSGIEnvironment) -> Route | None:
        """The route of a request that is to be measured, if nothing but a look tells it.

        Called when the answer begins; for None `resolve` is asked.
        """

    def resolve(self, observation: Observation, environ: WSGIEnvironment) -> None:
        """Fill in `matched`, `untracked`, `group`, `own_group` and `extra`, whatever that takes."""


class Outcomes:
    """The outcomes of one application's requests under one prefix."""

    def __init__(
        self,
        instruments: Instruments,
        grouping: Grouping,
        flight: FlightRecorder | None = None,
        sinks: Sequence[Sink] = (),
        fingerprints: Fingerprints | None = None,
    ) -> None:
        """`flight` keeps the requests; None if another exporter of the application keeps them."""
        self.table: dict[tuple[str, str, str, str], Outcome] = {}
        """The outcomes by method, rule, endpoint and status line."""
        self.flight = flight or _NOWHERE
        self.sinks = sinks
        self.keeps = flight is not None or bool(sinks)
        """Whether the flight recorder or a sink receives single requests."""
        self.fingerprints = fingerprints
        """The fingerprints of exceptions; None if error groups are not counted."""
        self.failures = instruments.worker.failures
        self.slow = inf
        """The seconds from which a request is slow."""
        self.explain: Callable[[Observation], None] = lambda observation: None  # noqa: ARG005
        """Called with each slow request after it has been counted; never raises."""
        self.has_tracer = False
        """Whether OpenTelemetry traces this process."""
        self.instruments = instruments
        self.route = grouping.route
        self._grouping = grouping
        self._blank = ("",) * len(instruments.metrics.shape.extra)
        instruments.followers.add(self)
        forks.forget(self)

    def resolve(self, observation: Observation, environ: WSGIEnvironment) -> None:
        """Read the labels that need the request context, which ends before the body is sent."""
        try:
            self._grouping.resolve(observation, environ)
            if self.has_tracer and not observation.untracked:
                observation.trace_id = active()
        except Exception as error:
            self.failures.count("labels", error)

    def record(self, observation: Observation, now: float) -> None:
        """Record a request without an outcome; `now` is its end in monotonic seconds."""
        instruments = self.instruments
        if observation.untracked:
            return
        if not observation.code:
            # No start_response: the application took over the connection, or gave no answer.
            observation.code = "101" if "HTTP_UPGRADE" in observation.environ else "500"
            self.resolve(observation, observation.environ)
        observation.name()
        if observation.reported and _has_answered(observation):
            observation.exception = None
        group = observation.group or observation.rule
        observation.failed = observation.status >= 500 or observation.exception is not None
        if observation.status >= 400 and not observation.error_type:
            observation.error_type = error_type_of(observation.status)
        observation.extra = observation.extra or self._blank
        key = (observation.method, group, observation.code, *observation.extra)
        recorder = instruments.recorder(key, observation.own_group)
        recorder(observation, now)
        rule, code = observation.matched, observation.code
        if observation.error_type or observation.disconnected:
            instruments.error(observation, group)
        elif (
            self._grouping.by_rule
            and rule is not None
            and key in instruments.recorders
            and len(self.table) < LIMIT
        ):
            bodiless = observation.method == "HEAD" or code in BODILESS
            self.table[observation.method, rule.rule, rule.endpoint, observation.status_line] = Outcome(
                recorder, rule, code, bodiless
            )

    def after_fork(self) -> None:
        """Forget the recorders, which write into the parent's files."""
        self.table.clear()


def _has_answered(observation: Observation) -> bool:
    """Whether the application has answered the exception that it signalled; otherwise Flask sends a 500."""
    error = observation.exception
    return observation.status != 500 or (isinstance(error, HTTPException) and error.code == 500)
