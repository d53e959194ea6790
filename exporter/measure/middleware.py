"""WSGI: each request becomes one observation, as soon as the server has the whole body."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter, time
from typing import TYPE_CHECKING

from werkzeug.wsgi import ClosingIterator

from exporter import forks
from exporter.measure.exchange import Exchange
from exporter.measure.instruments import Instruments
from exporter.measure.outcomes import Outcomes
from exporter.measure.requestid import REQUEST_ID, ids, well_formed
from exporter.measure.tracing import is_active

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

BYPASS = "exporter.passed"
"""The key in the environ of the last middleware that did not measure the request."""
_REQUEST_START = re.compile(r"(?:t=)?(\d{9,17}(?:\.\d{1,9})?)").fullmatch

_next_id = ids.pool.pop


class Middleware:
    """Wraps a WSGI application and gives each request to the instruments and the sinks.

    A failure in here never reaches the response: it is counted, and the request goes on without measurement.
    """

    def __init__(
        self,
        wsgi_app: WSGIApplication,
        instruments: Instruments,
        outcomes: Outcomes,
        *,
        key: str,
        own_paths: set[str],
        begin: Callable[[WSGIEnvironment], None],
        exclusions: Sequence[re.Pattern[str]] = (),
        is_trusted: Callable[[WSGIEnvironment], bool] | None = None,
    ) -> None:
        """`key` is the key of the exchange in the environ. `own_paths` are the paths of the exporter itself.
        `begin` is called before the first request of each process. `is_trusted` tells whether the request's
        X-Request-Start comes from a declared proxy.
        """
        self._wsgi_app = wsgi_app
        self._instruments = instruments
        self.outcomes = outcomes
        self.key = key
        self._own_paths = own_paths
        self._begin = begin
        self._begin_lock = forks.Lock()
        self._ready = False
        self._exclusions = exclusions
        self._is_trusted = is_trusted
        forks.forget(self)

    def measure(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Call the wrapped application and measure the request; itself a WSGI application."""
        try:
            exchange = self.enter(environ)
        except Exception as error:  # an environ that breaks the rules of WSGI
            self.outcomes.failures.count("middleware", error)
            exchange = None
        if exchange is None:
            return self._wsgi_app(environ, start_response)
        exchange.start_response = start_response
        try:
            application = self._wsgi_app  # a call of an attribute would cost 0.07 µs more
            body = application(environ, exchange.start)
            if type(body) is ClosingIterator and exchange.length:
                exchange.body = body
                return exchange
            return exchange.take(body)
        except BaseException as error:
            exchange.fail(error)
            raise

    def enter(self, environ: WSGIEnvironment, started: float = 0.0) -> Exchange | None:
        """Begin to measure a request; None for a request without measurement, or with one already.

        The request has `started` at this time of the monotonic clock (s), or now for 0.
        """
        key = self.key
        path = environ.get("PATH_INFO", "")
        if (
            (not self._ready and not self._start(environ))
            or path in self._own_paths
            or (self._exclusions and self._excludes(path))
            or (key in environ and self._measures(environ))
        ):
            environ[BYPASS] = self
            return None
        environ[key] = exchange = Exchange()
        exchange.started = started or perf_counter()
        exchange.outcomes = self.outcomes
        exchange.environ = environ
        exchange.script_name = environ.get("SCRIPT_NAME", "")
        exchange.path_info = path
        # Each request reads these, and a read of the class would cost 0.1 µs.
        exchange.error_type = exchange.trace_id = ""
        exchange.untracked = exchange.failed = False
        if self._instruments.extended:
            try:
                request_id = _next_id()
            except IndexError:
                request_id = ids.refill()
            if "HTTP_X_REQUEST_ID" in environ and well_formed(environ["HTTP_X_REQUEST_ID"]):
                request_id = environ["HTTP_X_REQUEST_ID"]
            environ[REQUEST_ID] = exchange.request_id = request_id
            try:
                enter = self.outcomes.flight.enter
                enter(exchange)
            except Exception as error:
                self.outcomes.failures.count("recent", error)
            if self._is_trusted is not None and "HTTP_X_REQUEST_START" in environ:
                self._observe_queue(environ)
        return exchange

    def lets_pass(self, environ: WSGIEnvironment) -> bool:
        """Whether this middleware has seen the request, and does not measure it."""
        return environ.get(BYPASS) is self

    def after_fork(self) -> None:
        """Begin again at the next request."""
        self._ready = False

    def _start(self, environ: WSGIEnvironment) -> bool:
        """Begin before the first request of this process; after a failure return False, to be tried again."""
        outcomes = self.outcomes
        with self._begin_lock:
            if not self._ready:
                try:
                    self._instruments.begin()
                    self._begin(environ)
                    # OpenTelemetry is set up before the first request, so one check suffices.
                    outcomes.has_tracer = outcomes.keeps and is_active()
                    self._ready = True
                except Exception as error:
                    outcomes.failures.count("middleware", error)
            return self._ready

    def _measures(self, environ: WSGIEnvironment) -> bool:
        """Whether an outer application already measures the request for these instruments.

        This application is mounted in that one, which may have copied the environ. A request from inside a
        view has another path.
        """
        exchange: Exchange = environ[self.key]
        if exchange.recorded or exchange.outcomes.instruments is not self._instruments:
            return False
        if exchange.environ is not environ:
            if exchange.path != environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""):
                return False
            exchange.environ = environ  # Flask's request, and with it the rule, will be in this one
        return True

    def _excludes(self, path: str) -> bool:
        """Whether one of the exclusions matches this path, which is Latin-1 in WSGI."""
        if not path.isascii():
            path = path.encode("latin-1", "replace").decode("utf-8", "replace")
        return any(pattern.match(path) for pattern in self._exclusions)

    def _observe_queue(self, environ: WSGIEnvironment) -> None:
        """Read `t=1700000000.123` in seconds, milliseconds or microseconds; other values are ignored."""
        try:
            start = _REQUEST_START(environ["HTTP_X_REQUEST_START"].strip())
            if start is None or self._is_trusted is None or not self._is_trusted(environ):
                return
            seconds = float(start[1])
            if seconds >= 1e14:  # microseconds since the epoch
                seconds /= 1e6
            elif seconds >= 1e11:  # milliseconds
                seconds /= 1e3
            self._instruments.observe_queue(min(max(time() - seconds, 0.0), 60.0))
        except Exception as error:
            self.outcomes.failures.count("middleware", error)
