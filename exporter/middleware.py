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

    from exporter.instruments import Instruments, Recorder

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

    A request sets few of them, so the defaults live on the class; the middleware sets the first ones, because an
    `__init__` costs 0.2 µs.
    """

    middleware: Middleware
    environ: WSGIEnvironment
    start_response: StartResponse
    started: float
    recorder: Recorder | None = None
    extra: tuple[str, ...] = ()
    known = True
    skip = False
    exception: BaseException | None = None

    method = rule = group = endpoint = error_type = request_id = trace_id = ""
    start_time = duration = 0.0
    status = request_size = response_size = 0
    disconnected = failed = False

    _body: Iterable[bytes]
    _expected: int | None = None
    _recorded = False

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        """The `start_response` of the application: labels are read while the request context is there."""
        try:
            self.middleware.resolve(self, status[:3])
            request_id = self.request_id
            for name, value in headers:
                length = len(name)
                if length == 14 and name.lower() == "content-length":
                    self._expected = int(value)
                elif length == 12 and name.lower() == "x-request-id":
                    request_id = ""
            if request_id:
                headers.append(("X-Request-ID", request_id))
        except Exception as error:
            self.middleware.failures.count("labels", error)
        if exc_info is None:
            return self.start_response(status, headers)
        return self.start_response(status, headers, exc_info)

    def hand_over(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Take the application's body; returns what the server gets in its place."""
        wrapper = self.environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper):
            return self._watch_close(body)
        self._body = body
        if not self._expected and (self._expected == 0 or self.status in (204, 304)):
            self.record()
        elif self.environ["REQUEST_METHOD"] == "HEAD":
            self.record()
        return self

    def __iter__(self) -> Iterator[bytes]:
        expected = self._expected
        sent = 0
        try:
            for chunk in self._body:
                sent += len(chunk)
                if sent == expected:
                    self.response_size = sent
                    self.record()
                elif not self._recorded:
                    self.response_size = sent
                yield chunk
        except GeneratorExit:
            raise
        except BaseException as error:
            self.fail(error)
            raise
        self.record()

    def close(self) -> None:
        """The server is done with the body, whether it took all of it or not."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            if not self._recorded:
                self.disconnected = True
                self.record()

    def fail(self, error: BaseException) -> None:
        """The application, or its body half-way, raised."""
        if not self._recorded:
            self.raised(error)
            self.record()

    def raised(self, error: BaseException) -> None:
        """The application raised what it does not handle; it may still answer with an error page."""
        if self.exception is None:
            self.exception = error
            self.error_type = type(error).__name__
            if not self.rule:
                try:
                    self.middleware.resolve(self, "500")
                except Exception as second:
                    self.middleware.failures.count("labels", second)

    def record(self) -> None:
        """Record the exchange, once."""
        if not self._recorded:
            self._recorded = True
            now = perf_counter()
            self.duration = now - self.started
            # A cycle would leave every request to the garbage collector.
            self.environ.pop(EXCHANGE, None)
            self.middleware.record(self, now)

    def _watch_close(self, body: Any) -> Iterable[bytes]:
        """The body as it is, or the server would not see that it can call sendfile."""
        self.response_size = self._expected or 0
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
        self._ready = False
        self._extended = instruments.extended
        self._excluded = excluded
        self._group_of = group_of
        self._extra_of = extra_of
        self._by_rule = group_of is None and extra_of is None
        self._trusted = trusted
        self._sinks = sinks
        self.failures = instruments.worker.failures
        instruments.worker.forks.append(self)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not self._ready and not self._start(environ):
            return self._wsgi_app(environ, start_response)
        path = environ.get("PATH_INFO", "")
        if path in self._own_paths or (self._excluded and any(one.match(path) for one in self._excluded)):
            return self._wsgi_app(environ, start_response)
        environ[EXCHANGE] = exchange = Exchange()
        exchange.started = perf_counter()
        exchange.middleware = self
        exchange.environ = environ
        exchange.start_response = start_response
        if self._extended:
            given = environ.get("HTTP_X_REQUEST_ID")
            environ[REQUEST_ID] = exchange.request_id = (
                given if given and _WELL_FORMED_ID(given) else "%s%08x" % (_id_half, next(_id_count))
            )
            self._instruments.enter()
            if self._trusted is not None and "HTTP_X_REQUEST_START" in environ and self._trusted(environ):
                self._queued(environ["HTTP_X_REQUEST_START"])
        try:
            body = self._wsgi_app(environ, exchange)
        except BaseException as error:
            exchange.fail(error)
            raise
        return exchange.hand_over(body)

    def resolve(self, exchange: Exchange, status: str) -> None:
        """Read the labels that need the request context, which is gone when the body is sent."""
        environ = exchange.environ
        request = environ.get("werkzeug.request")
        rule = None
        if request is not None:
            rule = request.url_rule
            if hasattr(request, "prom_do_not_track") or hasattr(request, "prom_exclude_all"):
                exchange.skip = True
        if rule is None:
            exchange.rule = UNMATCHED
        else:
            exchange.rule = rule.rule
            exchange.endpoint = rule.endpoint
        exchange.method = method = environ["REQUEST_METHOD"]
        if method not in METHODS:
            exchange.method = OTHER_METHOD
        exchange.status = int(status)
        if self._by_rule:
            exchange.recorder = self._instruments.recorders.get((method, exchange.rule, status))
            exchange.group = exchange.rule
            return
        if self._extra_of is not None:
            exchange.extra = self._extra_of(environ)
        exchange.group = exchange.rule if self._group_of is None or request is None else self._group_of(request)
        exchange.known = exchange.group in (exchange.rule, exchange.endpoint)

    def record(self, exchange: Exchange, now: float) -> None:
        """Give a finished exchange to the families and the sinks; `now` is its end, monotonic seconds."""
        if exchange.skip:
            self._instruments.leave()
            return
        try:
            recorder = exchange.recorder
            if recorder is None or exchange.exception is not None:
                recorder = self._find_recorder(exchange)
            length = exchange.environ.get("CONTENT_LENGTH")
            if length and length.isdecimal():
                # A length is the client's word; more than a terabyte would only blur the sum.
                exchange.request_size = min(int(length), 1 << 40)
            wrong = exchange.status >= 400 or exchange.error_type or exchange.disconnected
            if wrong:
                exchange.failed = exchange.status >= 500 or exchange.exception is not None
                if exchange.status >= 400 and not exchange.error_type:
                    exchange.error_type = error_type_of(exchange.status)
        except Exception as error:
            self._instruments.leave()
            self.failures.count("labels", error)
            return
        try:
            recorder.record(exchange, now)
            if wrong:
                self._instruments.error(exchange)
        except Exception as error:
            self.failures.count("instruments", error)
        if self._sinks:
            exchange.start_time = time() - exchange.duration
            if "HTTP_TRACEPARENT" in exchange.environ:
                found = _TRACEPARENT(exchange.environ["HTTP_TRACEPARENT"])
                exchange.trace_id = found[1] if found else ""
            for stage, sink in self._sinks:
                try:
                    sink(exchange)
                except Exception as error:
                    self.failures.count(stage, error)

    def after_fork(self) -> None:
        """The child begins anew."""
        self._beginning = threading.Lock()
        self._ready = False

    def _find_recorder(self, exchange: Exchange) -> Recorder:
        """The recorder for labels that are new, folded by the cap, or changed by what happened since."""
        if not exchange.rule:
            switched = exchange.exception is None and "HTTP_UPGRADE" in exchange.environ
            self.resolve(exchange, "101" if switched else "500")
        key = (exchange.method, exchange.group, str(exchange.status), *exchange.extra)
        return self._instruments.recorder(key, exchange.known)

    def _start(self, environ: WSGIEnvironment) -> bool:
        """Make ready for the first request of this process; False where that fails, to be tried again."""
        with self._beginning:
            if not self._ready:
                try:
                    self._instruments.begin()
                    self._begin(environ)
                    self._ready = True
                except Exception as error:
                    self.failures.count("middleware", error)
            return self._ready

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
