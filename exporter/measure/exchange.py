"""The exchange: one request on its way, from the server's call to the last byte of its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from os import fstat
from sys import exc_info
from time import perf_counter, time
from types import BuiltinFunctionType, GeneratorType, MethodType
from typing import TYPE_CHECKING, Any
from weakref import WeakMethod

from werkzeug.wsgi import ClosingIterator

from exporter.measure.fallible import Fallible
from exporter.measure.outcomes import BODILESS
from exporter.measure.tracing import active, announced
from exporter.observation import CURRENT, Route

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse


_END = object()
_IS_PARTIAL = isinstance(getattr(ClosingIterator(()), "_next", None), partial)


def _chunks_of(body: Any) -> Iterator[bytes]:
    """The chunks of a body, past Werkzeug's own `__next__`, which would cost 0.3 µs for each of them."""
    if not _IS_PARTIAL:  # another version of Werkzeug
        return iter(body)
    iterator = body._next.args[0]
    return iterator if type(iterator) is GeneratorType else iter(body._next, _END)


def _write(exchange_and_server: tuple[Exchange, Callable[[bytes], object]], chunk: bytes) -> None:
    """The `write` of PEP 3333, for an application that hands over its body before it returns."""
    exchange, write = exchange_and_server
    try:
        write(chunk)
    except BaseException:
        if isinstance(chunk, bytes):  # the client has left
            exchange.abandon()
        raise
    if exchange.length != 0:
        exchange.response_size += len(chunk)


class ClockError(Exception):
    """A negative duration."""


class Exchange(Fallible):
    """One request on its way, which is both the `start_response` and the body of its answer.

    The middleware sets the attributes without a value here, because an `__init__` would cost 0.3 µs more.
    """

    start_response: StartResponse
    body: ClosingIterator
    length: int | None = None
    """The Content-Length, in bytes."""

    def start(  # noqa: C901
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Any:
        """The `start_response` of the application; it reads the labels while the request context lasts."""
        # One function: a call for each part would cost 0.3 µs.
        length = None
        try:
            if exc_info is not None:
                self.report(exc_info[1])
            if type(headers) is not list:  # it could be read only once
                headers = [*headers]
            request_id = self.request_id
            for name, value in headers:
                if name == "Content-Type":
                    continue
                key = name.lower()  # Falcon's are in lower case
                if key == "content-length":
                    try:
                        length = int(value)
                    except ValueError:
                        length = None
                elif key == "x-request-id":
                    request_id = ""
            if request_id:
                # A new list: the application may use its own one for another answer.
                headers = [*headers, ("X-Request-ID", request_id)]
        except Exception as error:
            self.outcomes.failures.count("middleware", error)
        # Before the labels: what the server refuses, because an answer has begun, is none.
        start_response = self.start_response
        if exc_info is None:
            write = start_response(status, headers)
        else:
            write = start_response(status, headers, exc_info)
        try:
            environ = self.environ
            outcomes = self.outcomes
            method = environ["REQUEST_METHOD"]
            route_of = outcomes.route
            route = None if self.error_type else route_of(environ)
            if route is None:
                outcome = None
            else:
                outcome = outcomes.table.get((method, route.rule, route.endpoint, status))
            if outcome is None:
                self.outcome = None
                self.status_line = status
                self.code = code = status[:3]
                self.length = 0 if method == "HEAD" or code in BODILESS else length
                outcomes.resolve(self, environ)
            else:
                self.outcome = outcome
                self.length = 0 if outcome.bodiless else length
                if outcomes.has_tracer:
                    self.trace_id = active()
        except Exception as error:
            self.outcomes.failures.count("middleware", error)
            if not self.recorded:
                self.outcome, self.status_line, self.code = None, status, str(status)[:3]
                self.outcomes.resolve(self, self.environ)
        return MethodType(_write, (self, write))  # an attribute more would cost 0.4 µs

    def take(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """The body for the server, from the body of the application."""
        if type(body) is not ClosingIterator:  # Werkzeug's own type, except for files
            wrapper = self.environ.get("wsgi.file_wrapper")
            # uWSGI's is a function that returns the file itself, whose iterator would give lines.
            if type(body) is wrapper or (type(wrapper) is BuiltinFunctionType and hasattr(body, "read")):
                return _watch_close(self, body)
            body = ClosingIterator(body)
        self.body = body
        if self.length == 0 and not self.recorded:
            self.record()
        return self

    def __iter__(self) -> Iterator[bytes]:
        length = self.length
        if length is None:
            CURRENT.set(self)
            self.outcomes.flight.stream(self)
        size = self.response_size
        try:
            for chunk in _chunks_of(self.body):
                if size != length:
                    self.response_size = size = size + len(chunk)
                    if size == length:
                        self.record()
                yield chunk
        except GeneratorExit:  # the only sign of a client that left, below a middleware that is a generator
            self.abandon()
            raise
        except BaseException as error:
            self.fail(error)
            raise
        finally:
            if length is None:
                CURRENT.set(None)
        if not self.recorded:
            self.record()
        if length is None:  # a server that closes nothing may keep the context, and so this object
            self.outcomes.flight.leave(self)

    def routed(self) -> Route | None:
        """The route as far as it is known before the answer."""
        return self.route or (None if self.recorded else self.outcomes.route(self.environ))

    def close(self) -> None:
        """The server closes the body, which it may not have read to the end."""
        try:
            self.body.close()
        finally:
            if not self.recorded:
                self.abandon()
            else:
                leave = self.outcomes.flight.leave
                leave(self)

    def abandon(self) -> None:
        """Record a disconnect: nobody reads the rest of the body."""
        if not self.recorded:
            self.disconnected = True
            self.forget()
            self.record()
        self.outcomes.flight.leave(self)

    def fail(self, error: BaseException) -> None:
        """Record an error of the application or of its body; before the first byte a server answers 500.

        The request keeps its slot if the error may end the process: the death must name this request.
        """
        try:
            if not self.recorded:
                self.fall(error)
        finally:
            if isinstance(error, Exception):
                self.outcomes.flight.leave(self)
            else:
                self.slot = 0  # a `close()` by the server must not free the slot

    def fall(self, error: BaseException) -> None:
        """Record an exchange that ends with an error."""
        self.forget()
        # Flask-Sock and Engine.IO end a connection that they took over from the server with such an error.
        is_end = isinstance(error, StopIteration | ConnectionError) and "HTTP_UPGRADE" in self.environ
        if not is_end or self.code:
            self.note_exception(error)
            if not self.response_size:
                self.code = "500"
        self.record()

    def record(self) -> None:  # noqa: C901  one function, as `start`
        """Record the exchange, which must not be recorded yet."""
        self.recorded = True
        now = perf_counter()
        self.duration = duration = now - self.started
        outcomes = self.outcomes
        if duration < 0.0:
            outcomes.failures.count("middleware", ClockError(f"the monotonic clock went {duration} s"))
            self.duration = 0.0
        outcome = self.outcome
        try:
            record = outcomes.record if outcome is None else outcome.record
            record(self, now)
        except Exception as error:
            outcomes.failures.count("instruments", error)
        if outcomes.keeps and not self.untracked:
            if "HTTP_TRACEPARENT" in self.environ and not self.trace_id:
                self.trace_id = announced(self.environ)
            try:
                write = outcomes.flight.record
                write(self)
            except Exception as error:
                outcomes.failures.count("recent", error)
            if duration >= outcomes.slow:  # costs 0.02 µs
                outcomes.explain(self)
            if outcomes.sinks:
                self.start_time = time() - self.duration
                for stage, sink in outcomes.sinks:
                    try:
                        sink(self)
                    except Exception as error:
                        outcomes.failures.count(stage, error)
        # Break the reference cycles, or each request would be garbage, and a failed one that no server closes
        # would stay in progress: its traceback has frames that hold the exchange.
        del self.environ
        if outcome is None:
            self.exception = None


def _watch_close(exchange: Exchange, body: Any) -> Iterable[bytes]:
    """The same body, recorded at its `close()`; for a wrapped one the server would not call sendfile."""
    try:
        body.close = _Close(exchange, body)
    except (AttributeError, TypeError):  # the server's own type, which accepts no attributes
        if not exchange.recorded:  # CPython has deleted the `_Close`, and so recorded the exchange
            exchange.response_size = exchange.length or 0
            exchange.record()
        exchange.outcomes.flight.leave(exchange)
    return body  # type: ignore[no-any-return]


class _Close:
    """The `close()` of a server's file wrapper, which records the exchange.

    A middleware that is a generator never calls it; then the end of the wrapper itself records the exchange.
    How much the server has sent shows in the file's position. Where a whole file has been sent by sendfile,
    gunicorn moves the position back to where it was.
    """

    def __init__(self, exchange: Exchange, body: Any) -> None:
        self._exchange = exchange
        self._file = getattr(body, "filelike", None) or getattr(body, "file", body)  # the latter is waitress'
        self._start = self._position()
        self._error = exc_info()[1]
        self._size = exchange.length
        if self._size is None:  # a file object that Flask does not measure
            with suppress(Exception):
                self._size = fstat(self._file.fileno()).st_size - self._start
        close = getattr(body, "close", None)
        if getattr(close, "__self__", None) is body is not self._file:
            close = WeakMethod(close)  # a strong reference would keep the body, and so this object
        self._close = close

    def __call__(self) -> None:
        close = self._close() if isinstance(self._close, WeakMethod) else self._close
        # The server closes the body while it handles the error of a client that left.
        sent, failed = self._position() - self._start, exc_info()[1] is not self._error
        try:
            if close is not None:
                close()
        finally:
            self._record(sent, failed=failed)
            self._close = self._file = None  # breaks the reference cycle of a file that is the body itself

    def __del__(self) -> None:
        self._record(self._position() - self._start)

    def _record(self, sent: int, *, failed: bool = False) -> None:
        exchange = self._exchange
        if not exchange.recorded:
            length = exchange.length
            sent = max(sent, 0)  # a file that somebody has closed has no position
            if (failed and sent != length) or (length is not None and 0 < sent < length):
                exchange.response_size = sent
                exchange.abandon()
            else:
                exchange.response_size = (sent or self._size or 0) if length is None else length
                exchange.record()
        exchange.outcomes.flight.leave(exchange)

    def _position(self) -> int:
        try:
            return self._file.tell()  # type: ignore[no-any-return]
        except Exception:  # a pipe has none, a closed file has none any more
            return 0
