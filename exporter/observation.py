"""One request and its answer, as everything that records it sees them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from exporter.labels import METHODS, OTHER_METHOD, UNMATCHED

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

EXCHANGE = "exporter.exchange"
"""The key of the observation in the environ of its request."""


class Route(Protocol):
    """The part of an application that a request was routed to, as Werkzeug's rules have it."""

    @property
    def rule(self) -> str:
        """The template of its paths."""

    @property
    def endpoint(self) -> Any:
        """The name of what answers, usually a text; "" for none."""


class Fingerprint(NamedTuple):
    """What errors of one group share: they are the same over workers, restarts and deploys."""

    error_group: str
    """Twelve hex digits that stand for it."""
    error_type: str
    """The class of what was raised last."""
    where: str
    """The application's own function, or template, that it comes from."""


@dataclass(frozen=True, slots=True)
class Delay:
    """The place at which a slow request has spent most of its time."""

    where: str
    """A place of the application's own: `module:function`, or the path of a template."""
    line: int
    """0 where it is not known."""
    library: str
    """The function of a library that was called there; "" for none."""
    call: str
    """The call that was waited for, without its arguments; "" where it is not known."""
    shares: Mapping[str, float]
    """The largest parts of the time by place, the first of which is `where`."""


class Observation:
    """One request and its answer.

    A request touches few of the attributes, so the defaults live on the class: slots, or an `__init__` that
    fills all of them, cost 0.3 µs more.
    """

    environ: WSGIEnvironment
    started: float
    """Seconds of the monotonic clock."""
    slot = 0
    """The place of the request in this process's ring; 0 where no ring is written, or where it is full."""
    durations: Any = {}  # noqa: RUF012  nobody reads marks of requests without a slot
    """The durations in that ring by slot."""
    thread: Any = None
    """The ident of the thread that answers the request, or the greenlet where threads are greenlets."""
    samples: Any = None
    """The samples of where it stood; None as long as it is fast."""
    recorded = False
    """Whether the request has been counted: all of its answer has been handed to the server."""
    outcome: Outcome | None = None
    """None for a new combination or after a failure; then `code`, `matched` and `status_line` tell."""
    status_line = ""
    code = ""
    """The status as three digits; "" before there is one."""
    matched: Route | None = None
    exception: BaseException | None = None
    """The exception that the application raised and did not handle."""
    reported = False
    """Whether the application has only signalled the exception; its answer then decides."""
    group = ""
    """The group in the families, if that is not the rule."""
    extra: tuple[str, ...] = ()
    """The values of the default labels."""
    own_group = True
    """Whether the group is the application's own and not a client's invention."""
    untracked = False
    """Whether the view asks not to be measured."""

    script_name = ""
    path_info = ""
    """Both as they arrived, in Latin-1 as in WSGI; an application below may rewrite those of the environ."""
    start_time: float
    """Seconds since the epoch, for the sinks."""
    duration: float
    """Seconds until the body had been handed to the server."""
    error_type = ""
    """The class of the exception or HTTP error; "" where there was none."""
    fingerprint: Fingerprint | None = None
    """Of the exception; None where there was none, or an HTTP error that the application answers."""
    traceback = ""
    """The exception's, without its message, where nobody has one of its group yet."""
    request_id = ""
    response_size = 0
    """Bytes that were handed to the server."""
    request_size = 0
    """Bytes, as the client announced them."""
    trace_id = ""
    """32 hex digits or ""."""
    disconnected = False
    """Whether the body was closed before all of it had been handed over."""
    delay: Delay | None = None
    """Set for slow requests alone."""
    failed = False
    """An error for health and error ratios: a status of 500 or more, or an unhandled exception."""

    method = ""
    rule = UNMATCHED
    endpoint = ""
    status = 0

    def name(self) -> None:
        """Fill in `method` (a registered one or `_OTHER`), `rule`, `endpoint` ("" for none) and `status`."""
        if not self.status:
            code = self.code if self.outcome is None else self.outcome.code
            self.status = int(code) if code.isdecimal() else 0
            method = self.environ["REQUEST_METHOD"]
            self.method = method if method in METHODS else OTHER_METHOD
            route = self.route
            if route is not None:
                self.rule = route.rule
                self.endpoint = route.endpoint

    @property
    def path(self) -> str:
        """The path that the client asked for, in Latin-1 as in WSGI."""
        return self.script_name + self.path_info

    @property
    def route(self) -> Route | None:
        """The rule that the request matched."""
        return self.matched if self.outcome is None else self.outcome.matched

    def routed(self) -> Route | None:
        """The route as far as it is known before the answer: an exchange asks its application."""

    def abandon(self) -> None:
        """Record that nobody reads the rest of the answer."""


CURRENT: ContextVar[Observation | None] = ContextVar("exporter.current", default=None)
"""The request that is answered here, for log records where no framework's own context tells it."""


class Context(NamedTuple):
    """What a framework's own context knows of the current request."""

    observation: Observation | None
    """None for a request that is not measured."""
    environ: WSGIEnvironment
    route: Route | None


contexts: list[Callable[[], Context | None]] = []
"""The frameworks that have contexts of their own; each gives None outside of a request."""


Recorder = Callable[[Observation, float], None]
"""Adds an observation to every family; the second argument is its end on the monotonic clock (seconds)."""


@dataclass(slots=True)
class Outcome:
    """The common properties of requests with the same method, rule and status."""

    record: Recorder
    matched: Route
    code: str
    bodiless: bool
    packed: bytes = b""
    """The labels in the form of the flight recorder, which fills them in at the first use."""
