"""One request on its way, from the server's call to the last byte of its answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from time import perf_counter, time
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from werkzeug.wsgi import ClosingIterator

from exporter.measure.fallible import Fallible
from exporter.measure.outcomes import BODILESS
from exporter.measure.tracing import active, announced
from exporter.observation import Observation

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse

STREAMING: ContextVar[Observation | None] = ContextVar("exporter.streaming", default=None)
"""The request whose body is streamed here: log records know it when Flask's own context is gone."""


class ClockError(Exception):
    """A duration that cannot be."""


class Exchange(Fallible):
    """One request on its way: the `start_response` and the body of its answer at once.

    The middleware sets the attributes that have no value here: an `__init__` cost 0.3 µs more.
    """

    start_response: StartResponse
    body: ClosingIterator
    expected: int | None = None
    """The Content-Length, in bytes."""

    def start(  # noqa: C901
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Any:
        """The `start_response` of the application: labels are read while the request context is there."""
        # All in one place, and nothing asked twice: a call for each part would cost 0.3 µs.
        try:
            headers = [*headers]  # the application may use its own list for another answer
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
            outcomes = self.outcomes
            method = environ["REQUEST_METHOD"]
            request: Any = environ.get("werkzeug.request")
            try:
                rule = request.url_rule
            except AttributeError:  # there is none, or it is Werkzeug's and not Flask's
                rule = None
            if rule is None or self.error_type:
                outcome = None
            else:
                outcome = outcomes.table.get((method, rule.rule, rule.endpoint, status))
            if (
                outcome is None
                or "prom_do_not_track" in (marks := request.__dict__)
                or "prom_exclude_all" in marks
            ):
                self.outcome = None
                self.status_line = status
                self.code = code = status[:3]
                self.expected = 0 if method == "HEAD" or code in BODILESS else expected
                outcomes.resolve(self, environ)
            else:
                self.outcome = outcome
                self.expected = 0 if outcome.bodiless else expected
                if outcomes.traced:
                    self.trace_id = active()
        except Exception as error:
            self.outcomes.failures.count("middleware", error)
            if not self.recorded:
                self.outcome, self.status_line, self.code = None, status, str(status)[:3]
                self.outcomes.resolve(self, self.environ)
        if exc_info is None:
            return self.start_response(status, headers)
        return self.start_response(status, headers, exc_info)

    def take(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """The body of the application's answer, as the server gets it."""
        if type(body) is not ClosingIterator:  # Werkzeug's own, but for files
            if type(body) is self.environ.get("wsgi.file_wrapper"):
                return self.watch_close(body)
            body = ClosingIterator(body)  # closes what can be closed
        self.body = body
        if self.expected == 0 and not self.recorded:
            self.record()
        return self

    def __iter__(self) -> Iterator[bytes]:
        expected = self.expected
        if expected is None:
            STREAMING.set(self)
            self.outcomes.flight.stream(self)
        size = 0
        try:
            for chunk in self.body:
                if size != expected:
                    self.response_size = size = size + len(chunk)
                    if size == expected:
                        self.record()
                yield chunk
        except (
            GeneratorExit
        ):  # all that a middleware outside shows of a client's leaving, if it is a generator
            self.abandon()
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
            if self.recorded:
                self.outcomes.flight.leave(self)
            else:
                self.abandon()

    def abandon(self) -> None:
        """Nobody takes the rest of the body."""
        if not self.recorded:
            self.disconnected = True
            self.forget()
            self.record()
        self.outcomes.flight.leave(self)

    def fail(self, error: BaseException) -> None:
        """The application, or its body half-way, raised; as long as nothing is sent, a server answers 500.

        The request is over, unless the error may end the process: then it is what that died of.
        """
        try:
            if not self.recorded:
                self.fall(error)
        finally:
            if isinstance(error, Exception):
                self.outcomes.flight.leave(self)
            else:
                self.slot = 0  # what the server closes on its way out stays in its place

    def fall(self, error: BaseException) -> None:
        """Record an exchange that ends with an error."""
        self.forget()
        # So Flask-Sock and Engine.IO tell gunicorn, and Werkzeug, that a connection which they have taken
        # over is at its end.
        ended = isinstance(error, StopIteration | ConnectionError) and "HTTP_UPGRADE" in self.environ
        if not ended or self.code:
            self.raised(error)
            if not self.response_size:
                self.code = "500"
        self.record()

    def record(self) -> None:  # noqa: C901  all in one place, as in `start`
        """Record the exchange; the caller has seen that it is not recorded yet."""
        self.recorded = True
        now = perf_counter()
        self.duration = duration = now - self.started
        outcomes = self.outcomes
        if duration < 0.0:
            outcomes.failures.count("middleware", ClockError(f"the monotonic clock went {duration} s"))
            self.duration = 0.0
        try:
            outcome = self.outcome
            if outcome is None:
                outcomes.record(self, now)
            else:
                outcome.record(self, now)
        except Exception as error:
            outcomes.failures.count("instruments", error)
        if outcomes.keeps and not self.untracked:
            if "HTTP_TRACEPARENT" in self.environ and not self.trace_id:
                self.trace_id = announced(self.environ)
            if duration >= outcomes.slow:  # for all others 0.02 µs
                outcomes.explain(self)
            try:
                outcomes.flight.record(self)
            except Exception as error:
                outcomes.failures.count("recent", error)
            if outcomes.sinks:
                self.start_time = time() - self.duration
            for stage, sink in outcomes.sinks:
                try:
                    sink(self)
                except Exception as error:
                    outcomes.failures.count(stage, error)
        # environ → exchange → environ would leave every request to the garbage collector.
        del self.environ

    def watch_close(self, body: Any) -> Iterable[bytes]:
        """The body as it is, recorded when it is closed: wrapped, the server would not call sendfile."""
        self.response_size = self.expected or 0
        try:
            body.close = _Close(self, body)
        except (AttributeError, TypeError):  # a server's own type that takes no attributes
            if not self.recorded:  # in CPython the end of what has no place has done so
                self.record()
            self.outcomes.flight.leave(self)
        return body  # type: ignore[no-any-return]


class _Close:
    """The `close()` of a server's file wrapper, after which its exchange is recorded.

    A middleware outside that is a generator calls none; then the wrapper goes at the end of its iteration.
    """

    def __init__(self, exchange: Exchange, body: Any) -> None:
        self._exchange = exchange
        close = getattr(body, "close", None)
        if getattr(close, "__self__", None) is body:
            close = WeakMethod(close)  # which must not keep the body, and with it this object
        self._close = close

    def __call__(self) -> None:
        close = self._close() if isinstance(self._close, WeakMethod) else self._close
        try:
            if close is not None:
                close()
        finally:
            self.__del__()

    def __del__(self) -> None:
        if not self._exchange.recorded:
            self._exchange.record()
        self._exchange.outcomes.flight.leave(self._exchange)
