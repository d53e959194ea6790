"""One request on its way, from the server's call to the last byte of its answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

from werkzeug.wsgi import ClosingIterator

from exporter.labels import METHODS, OTHER_METHOD, UNMATCHED
from exporter.measure.tracing import active, announced

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment
    from werkzeug.routing import Rule

    from exporter.measure.middleware import Middleware
    from exporter.measure.recorder import Recorder

EXCHANGE = "exporter.exchange"
BODILESS = frozenset(["204", "304"])


class ClockError(Exception):
    """A duration that cannot be."""


STREAMING: ContextVar[Exchange | None] = ContextVar("exporter.streaming", default=None)
"""The exchange whose body is streamed here: log records know it when Flask's own context is gone."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What requests share that matched the same rule with the same method and were answered alike."""

    recorder: Recorder
    names: bytes
    """The labels as the flight recorder keeps them."""
    matched: Rule
    code: str
    bodiless: bool


class Exchange:
    """One request on its way: the `start_response` and the body of its answer at once.

    A request touches few of the attributes, so the defaults live on the class, and the middleware sets the
    first ones: slots or an `__init__` that fills all of them cost 0.3 µs more.
    """

    middleware: Middleware
    environ: WSGIEnvironment
    start_response: StartResponse
    started: float
    body: ClosingIterator
    expected: int | None = None
    """The Content-Length, in bytes."""
    outcome: Outcome | None = None
    """None where something is new or wrong: then the next three are set instead."""
    status_line = ""
    code = ""
    """The status as three digits; "" before there is one."""
    matched: Rule | None = None
    recorded = False
    exception: BaseException | None = None
    group = ""
    """What the families are grouped by, where that is not the rule."""
    extra: tuple[str, ...] = ()
    known = True
    skip = False

    # What the sinks read, besides the labels that `name` fills in.
    start_time: float
    """Seconds since the epoch."""
    duration: float
    """Seconds until the body had been handed to the server."""
    error_type = ""
    """The class of the exception or HTTP error; "" where there was none."""
    request_id = ""
    response_size = 0
    """Bytes that were handed to the server."""
    request_size = 0
    """Bytes, as announced by the client."""
    trace_id = ""
    """32 hex digits or ""."""
    disconnected = False
    failed = False
    """An error for health and error ratios: a status of 500 or more, or an unhandled exception."""
    method = ""
    rule = UNMATCHED
    endpoint = ""
    status = 0

    def start(  # noqa: C901
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Any:
        """The `start_response` of the application: labels are read while the request context is there."""
        # All in one place, and nothing asked twice: a call for each part would cost 0.3 µs.
        try:
            environ = self.environ
            request_id = self.request_id
            expected = None
            for name, value in headers:
                # Werkzeug writes it so; where another spelling hides it, the end of the body tells the same.
                if name == "Content-Length":
                    try:
                        expected = int(value)
                    except ValueError:
                        expected = None
                elif name != "Content-Type" and name.lower() == "x-request-id":
                    request_id = ""
            if request_id:
                headers.append(("X-Request-ID", request_id))
            middleware = self.middleware
            method = environ["REQUEST_METHOD"]
            request = environ.get("werkzeug.request")
            if request is None or self.error_type or (rule := request.url_rule) is None:
                outcome = None
            else:
                outcome = middleware.outcomes.get((method, rule.rule, rule.endpoint, status))
            if (
                outcome is None
                or "prom_do_not_track" in (marks := request.__dict__)
                or "prom_exclude_all" in marks
            ):
                self.outcome = None
                self.status_line = status
                self.code = code = status[:3]
                self.expected = 0 if method == "HEAD" or code in BODILESS else expected
                middleware.resolve(self, environ)
            else:
                self.outcome = outcome
                self.expected = 0 if outcome.bodiless else expected
                if middleware.traced:
                    self.trace_id = active()
        except Exception as error:
            self.middleware.failures.count("middleware", error)
        if exc_info is None:
            return self.start_response(status, headers)
        return self.start_response(status, headers, exc_info)

    def __iter__(self) -> Iterator[bytes]:
        expected = self.expected
        if expected is None:
            STREAMING.set(self)
        size = 0
        try:
            for chunk in self.body:
                if size != expected:
                    self.response_size = size = size + len(chunk)
                    if size == expected:
                        self.record()
                yield chunk
        except GeneratorExit:
            raise
        except BaseException as error:
            self.fail(error)
            raise
        finally:
            if expected is None:
                STREAMING.set(None)
        if not self.recorded:
            self.record()

    def close(self) -> None:
        """The server is done with the body, whether it took all of it or not."""
        try:
            self.body.close()
        finally:
            if not self.recorded:
                self.disconnected = True
                self.forget()
                self.record()

    def fail(self, error: BaseException) -> None:
        """The application, or its body half-way, raised; as long as nothing is sent, a server answers 500."""
        if self.recorded:
            return
        self.forget()
        # So Flask-Sock tells gunicorn that a connection which it has taken over is at its end.
        if not (isinstance(error, StopIteration) and not self.code and "HTTP_UPGRADE" in self.environ):
            self.raised(error)
            if not self.response_size:
                self.code = "500"
        self.record()

    def raised(self, error: BaseException) -> None:
        """The application raised what it does not handle; it may still answer with an error page."""
        if self.exception is not None:
            return
        self.exception = error
        self.error_type = type(error).__name__
        self.forget()
        if not self.code:
            self.code = "500"
            self.middleware.resolve(self, self.environ)

    def forget(self) -> None:
        """Something went wrong: what is known of its outcome does not hold for this exchange."""
        if self.outcome is not None:
            self.code, self.matched, self.outcome = self.outcome.code, self.outcome.matched, None

    def record(self) -> None:
        """Record the exchange; the caller has seen that it is not recorded yet."""
        self.recorded = True
        now = perf_counter()
        self.duration = duration = now - self.started
        middleware = self.middleware
        if duration < 0.0:
            middleware.failures.count("middleware", ClockError(f"the monotonic clock went {duration} s"))
            self.duration = 0.0
        try:
            outcome = self.outcome
            if outcome is None:
                middleware.record_unusual(self, now)
            else:
                outcome.recorder(self, now)
        except Exception as error:
            middleware.failures.count("instruments", error)
        if middleware.sinks and not self.skip:
            self.start_time = time() - self.duration
            if "HTTP_TRACEPARENT" in self.environ and not self.trace_id:
                self.trace_id = announced(self.environ)
            for stage, sink in middleware.sinks:
                try:
                    sink(self)
                except Exception as error:
                    middleware.failures.count(stage, error)
        # environ → exchange → environ would leave every request to the garbage collector.
        del self.environ

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
    def route(self) -> Rule | None:
        """The rule that the request matched."""
        return self.matched if self.outcome is None else self.outcome.matched

    def watch_close(self, body: Any) -> Iterable[bytes]:
        """The body as it is, recorded when it is closed: wrapped, the server would not call sendfile."""
        self.response_size = self.expected or 0
        close = getattr(body, "close", None)

        def close_and_record() -> None:
            try:
                if close is not None:
                    close()
            finally:
                if not self.recorded:
                    self.record()

        try:
            body.close = close_and_record
        except (AttributeError, TypeError):  # a server's own type that takes no attributes
            self.record()
        return body  # type: ignore[no-any-return]
