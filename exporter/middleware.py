"""WSGI: a request comes in, one observation goes out when its body has been handed to the server."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

from exporter.labels import METHODS, OTHER_METHOD, UNMATCHED, error_type_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from exporter.instruments import Instruments

EXCHANGE = "exporter.exchange"
REQUEST_ID = "exporter.request_id"

_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch
# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?").fullmatch

# A request id is unique by the process's random half and a count; 16 random bytes a request would cost 1 µs.
_id_half = os.urandom(8).hex()
_id_count = count()


def _new_id_half() -> None:
    global _id_half  # noqa: PLW0603  a fact about the process
    _id_half = os.urandom(8).hex()


os.register_at_fork(after_in_child=_new_id_half)


class Exchange:
    """One request on its way: the `start_response` and the body of its answer at once.

    When it is recorded it has: `start_time` (s since the epoch), `duration` (s), `method` (label value), `rule` (label
    value), `group` (what the families are grouped by; the rule by default), `endpoint` ("" where none matched), `status`,
    `error_type` ("" where there was no error), `request_size` and `response_size` (bytes), `request_id`, `trace_id` (32
    hex digits or ""), `disconnected`, and `failed`: an error for health and error ratios, that is a status of 500 or
    more, or an unhandled exception.
    """

    __slots__ = (
        "_body", "_expected", "_middleware", "_next", "_recorded", "_start_response", "_started", "disconnected",
        "duration", "endpoint", "environ", "error_type", "exception", "extra", "failed", "group", "known", "method",
        "request_id", "request_size", "response_size", "rule", "skip", "start_time", "status", "trace_id",
    )  # fmt: skip

    def __init__(
        self, middleware: Middleware, environ: WSGIEnvironment, start_response: StartResponse
    ) -> None:
        self._started = perf_counter()
        self._middleware = middleware
        self._start_response = start_response
        self._expected: int | None = None
        self._recorded = self.skip = self.disconnected = self.failed = False
        self.environ = environ
        self.status = self.response_size = 0
        self.rule = self.error_type = ""
        self.exception: BaseException | None = None
        given = environ.get("HTTP_X_REQUEST_ID")
        self.request_id = environ[REQUEST_ID] = (
            given if given and _WELL_FORMED_ID(given) else f"{_id_half}{next(_id_count):08x}"
        )
        environ[EXCHANGE] = self

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """The `start_response` of the application: labels are read while the request context is there."""
        try:
            self.status = int(status[:3])
            self._middleware.resolve(self)
            named = False
            for name, value in headers:
                if len(name) == 14 and name.lower() == "content-length":
                    self._expected = int(value)
                elif len(name) == 12 and name.lower() == "x-request-id":
                    named = True
            if not named:
                headers.append(("X-Request-ID", self.request_id))
        except Exception as error:
            self._middleware.failures.count("labels", error)
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)

    def hand_over(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Take the application's body; returns what the server gets in its place."""
        if "wsgi.file_wrapper" in self.environ and _is_wrapper(body, self.environ["wsgi.file_wrapper"]):
            self.response_size = self._expected or 0
            return self._watch_close(body)
        self._body = body
        self._next = iter(body).__next__
        if self._expected == 0 or self.status in (204, 304) or self.environ["REQUEST_METHOD"] == "HEAD":
            self.record()
        return self

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            chunk = self._next()
        except StopIteration:
            self.record()
            raise
        except BaseException as error:
            self.fail(error)
            raise
        self.response_size += len(chunk)
        if self.response_size == self._expected:
            self.record()
        return chunk

    def close(self) -> None:
        """The server is done with the body, whether it took all of it or not."""
        try:
            if hasattr(self._body, "close"):
                self._body.close()
        finally:
            if not self._recorded:
                self.disconnected = True
                self.record()

    def raised(self, error: BaseException) -> None:
        """The application raised what it does not handle; it may still answer with an error page."""
        self._middleware.failed(self, error)

    def fail(self, error: BaseException) -> None:
        """The application, or its body half-way, raised."""
        if not self._recorded:
            self._middleware.failed(self, error)
            self.record()

    def record(self) -> None:
        """Record the exchange, once."""
        if self._recorded:
            return
        self._recorded = True
        now = perf_counter()
        self.duration = now - self._started
        self._middleware.record(self, now)

    def _watch_close(self, body: Any) -> Iterable[bytes]:
        """The body as it is, or the server would not see that it can call sendfile."""
        close = getattr(body, "close", None)

        def close_and_record() -> None:
            try:
                if close is not None:
                    close()
            finally:
                self.record()

        try:
            body.close = close_and_record
        except AttributeError:  # a server's own type that takes no attributes
            self.record()
        return body  # type: ignore[no-any-return]


def _is_wrapper(body: object, wrapper: object) -> bool:
    return isinstance(wrapper, type) and isinstance(body, wrapper)


Sink = tuple[str, Callable[[Exchange], None]]


class Middleware:
    """Wraps a Flask application's `wsgi_app` and gives each request to the instruments and the sinks.

    Nothing that fails here reaches the response: it is counted and the request goes on unmeasured.
    """

    def __init__(
        self,
        wsgi_app: WSGIApplication,
        instruments: Instruments,
        *,
        own_paths: set[str],
        begin: Callable[[WSGIEnvironment], None],
        excluded: Sequence[re.Pattern[str]] = (),
        group_of: Callable[[Any], str] | None = None,
        extra_of: Callable[[WSGIEnvironment], tuple[str, ...]] | None = None,
        trusted: Callable[[WSGIEnvironment], bool] | None = None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        """`begin` is called before the first request of each process; `group_of` gives another group than the rule;
        `extra_of` the values of default labels; `trusted` says whether X-Request-Start comes from a declared proxy;
        `sinks` take each recorded exchange, with the stage that their failures count for.
        """
        self._wsgi_app = wsgi_app
        self._instruments = instruments
        self._own_paths = own_paths
        self._begin = begin
        self._beginning = threading.Lock()
        self.ready = False
        self._excluded = excluded
        self._group_of = group_of
        self._extra_of = extra_of
        self._trusted = trusted
        self._sinks = sinks
        self.failures = instruments.worker.failures
        instruments.worker.forks.append(self)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not self.ready and not self._start(environ):
            return self._wsgi_app(environ, start_response)
        instruments = self._instruments
        path = environ.get("PATH_INFO", "")
        if path in self._own_paths or (self._excluded and any(one.match(path) for one in self._excluded)):
            return self._wsgi_app(environ, start_response)
        exchange = Exchange(self, environ, start_response)
        instruments.enter()
        if self._trusted is not None and "HTTP_X_REQUEST_START" in environ and self._trusted(environ):
            self._queued(environ["HTTP_X_REQUEST_START"])
        try:
            body = self._wsgi_app(environ, exchange)
        except BaseException as error:
            exchange.fail(error)
            raise
        return exchange.hand_over(body)

    def after_fork(self) -> None:
        """The child begins anew."""
        self._beginning = threading.Lock()
        self.ready = False

    def resolve(self, exchange: Exchange) -> None:
        """Read the labels that need the request context, which is gone when the body is sent."""
        request = exchange.environ.get("werkzeug.request")
        rule = None if request is None else request.url_rule
        if rule is None:
            exchange.rule = UNMATCHED
            exchange.endpoint = ""
        else:
            exchange.rule = rule.rule
            exchange.endpoint = rule.endpoint
        method = exchange.environ["REQUEST_METHOD"]
        exchange.method = method if method in METHODS else OTHER_METHOD
        exchange.known = True
        exchange.group = exchange.rule
        exchange.extra = ()
        if request is None:
            return
        if "prom_do_not_track" in request.__dict__ or "prom_exclude_all" in request.__dict__:
            exchange.skip = True
            return
        if self._group_of is not None:
            exchange.group = self._group_of(request)
            exchange.known = rule is not None and exchange.group in (rule.rule, rule.endpoint)
        if self._extra_of is not None:
            exchange.extra = self._extra_of(exchange.environ)

    def failed(self, exchange: Exchange, error: BaseException) -> None:
        """An exception that nobody handled; called in the request context where there is one."""
        if exchange.exception is not None:
            return
        exchange.exception = error
        exchange.failed = True
        exchange.error_type = type(error).__name__
        try:
            if not exchange.rule:
                self.resolve(exchange)
        except Exception as second:
            self.failures.count("labels", second)

    def record(self, exchange: Exchange, now: float) -> None:
        """Give a finished exchange to the families and the sinks; `now` is its end, monotonic seconds."""
        instruments = self._instruments
        instruments.leave()
        if exchange.skip:
            return
        try:
            if not exchange.rule:
                self.resolve(exchange)
            status = exchange.status
            if not status:
                switched = exchange.exception is None and "HTTP_UPGRADE" in exchange.environ
                status = exchange.status = 101 if switched else 500
            if status >= 400:
                exchange.failed = exchange.failed or status >= 500
                exchange.error_type = exchange.error_type or error_type_of(status)
            length = exchange.environ.get("CONTENT_LENGTH")
            # A length is the client's word; more than a terabyte would only blur the sum.
            exchange.request_size = min(int(length), 1 << 40) if length and length.isdecimal() else 0
            key = (exchange.method, exchange.group, str(status), *exchange.extra)
            recorder = instruments.recorders.get(key) or instruments.recorder(key, exchange.known)
            recorder.record(exchange, now)
            if exchange.error_type or exchange.disconnected:
                instruments.error(exchange)
        except Exception as error:
            self.failures.count("instruments", error)
            return
        second = int(now)
        if second != instruments.worker.ticked:
            instruments.worker.tick(second)
        if not self._sinks:
            return
        exchange.start_time = time() - exchange.duration
        parent = exchange.environ.get("HTTP_TRACEPARENT")
        found = _TRACEPARENT(parent) if parent else None
        exchange.trace_id = found[1] if found else ""
        for stage, sink in self._sinks:
            try:
                sink(exchange)
            except Exception as error:
                self.failures.count(stage, error)

    def _start(self, environ: WSGIEnvironment) -> bool:
        """Make ready for the first request of this process; False where that fails, to be tried again."""
        with self._beginning:
            if not self.ready:
                try:
                    self._instruments.begin()
                    self._begin(environ)
                    self.ready = True
                except Exception as error:
                    self.failures.count("middleware", error)
            return self.ready

    def _queued(self, header: str) -> None:
        """`t=1700000000.123` in seconds, milliseconds or microseconds; garbage and clock skew count for nothing."""
        found = re.fullmatch(r"(?:t=)?(\d{9,17}(?:\.\d{1,9})?)", header.strip())
        if found is None:
            return
        started = float(found[1])
        if started >= 1e14:  # microseconds since the epoch
            started /= 1e6
        elif started >= 1e11:  # milliseconds
            started /= 1e3
        self._instruments.queued(min(max(time() - started, 0.0), 60.0))
