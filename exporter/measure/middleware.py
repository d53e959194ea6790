"""WSGI: a request comes in, one observation goes out when its body has been handed to the server."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from time import perf_counter, time
from typing import TYPE_CHECKING

from exporter import forks
from exporter.measure.exchange import Exchange
from exporter.measure.instruments import Instruments
from exporter.measure.outcomes import Outcomes
from exporter.measure.requestid import REQUEST_ID, ids, well_formed
from exporter.measure.tracing import is_active

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

PASSED = "exporter.passed"
"""Where the environ keeps the last middleware that let its request pass without measuring it."""
_REQUEST_START = re.compile(r"(?:t=)?(\d{9,17}(?:\.\d{1,9})?)").fullmatch

_next_id = ids.pool.pop


class Middleware:
    """Wraps a WSGI application and gives each request to the instruments and the sinks.

    Nothing that fails here reaches the response: it is counted and the request goes on unmeasured.
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
        excluded: Sequence[re.Pattern[str]] = (),
        trusted: Callable[[WSGIEnvironment], bool] | None = None,
    ) -> None:
        """`key` is where the environ keeps the exchange; requests for `own_paths` are the exporter's; `begin`
        is called before the first request of each process; `trusted` says whether X-Request-Start comes from
        a declared proxy.
        """
        self._wsgi_app = wsgi_app
        self._instruments = instruments
        self.outcomes = outcomes
        self.key = key
        self._own_paths = own_paths
        self._begin = begin
        self._beginning = forks.Lock()
        self._ready = False
        self._excluded = excluded
        self._trusted = trusted
        forks.forget(self)

    def measured(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """The WSGI application in the place of the wrapped one."""
        exchange = self.enter(environ)
        if exchange is None:
            return self._wsgi_app(environ, start_response)
        exchange.start_response = start_response
        try:
            return exchange.take(self._wsgi_app(environ, exchange.start))
        except BaseException as error:
            exchange.fail(error)
            raise

    def enter(self, environ: WSGIEnvironment, started: float = 0.0) -> Exchange | None:
        """Begin to measure a request; None where it is not to be measured, or is already.

        It has `started` now, or at this time of the monotonic clock, in seconds.
        """
        key = self.key
        path = environ.get("PATH_INFO", "")
        if (
            (not self._ready and not self._start(environ))
            or path in self._own_paths
            or (self._excluded and self._excludes(path))
            or (key in environ and self._begun(environ))
        ):
            environ[PASSED] = self
            return None
        environ[key] = exchange = Exchange()
        exchange.started = started or perf_counter()
        exchange.outcomes = self.outcomes
        exchange.environ = environ
        exchange.script_name = environ.get("SCRIPT_NAME", "")
        exchange.path_info = path
        if self._instruments.extended:
            try:
                request_id = _next_id()
            except IndexError:
                request_id = ids.refill()
            if "HTTP_X_REQUEST_ID" in environ and well_formed(environ["HTTP_X_REQUEST_ID"]):
                request_id = environ["HTTP_X_REQUEST_ID"]
            environ[REQUEST_ID] = exchange.request_id = request_id
            try:
                self.outcomes.flight.enter(exchange)
            except Exception as error:
                self.outcomes.failures.count("recent", error)
            if self._trusted is not None and "HTTP_X_REQUEST_START" in environ:
                self._queued(environ)
        return exchange

    def passed(self, environ: WSGIEnvironment) -> bool:
        """Whether this request has come through here and is not to be measured."""
        return environ.get(PASSED) is self

    def after_fork(self) -> None:
        """Get ready anew."""
        self._ready = False

    def _start(self, environ: WSGIEnvironment) -> bool:
        """Get ready for the first request of this process; False where that fails, to be tried again."""
        outcomes = self.outcomes
        with self._beginning:
            if not self._ready:
                try:
                    self._instruments.begin()
                    self._begin(environ)
                    # OpenTelemetry is set up before the first request, so one check suffices.
                    outcomes.traced = outcomes.keeps and is_active()
                    self._ready = True
                except Exception as error:
                    outcomes.failures.count("middleware", error)
            return self._ready

    def _begun(self, environ: WSGIEnvironment) -> bool:
        """Whether an application of these instruments, in which this one is mounted, measures the request.

        The environ may have been copied on the way. A request that a view makes itself has another path.
        """
        exchange: Exchange = environ[self.key]
        if exchange.recorded or exchange.outcomes.instruments is not self._instruments:
            return False
        if exchange.environ is not environ:
            if exchange.path != environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""):
                return False
            exchange.environ = environ  # where the request will be, and with it the rule
        return True

    def _excludes(self, path: str) -> bool:
        """Whether a pattern begins like this path, which WSGI hands over as Latin-1."""
        if not path.isascii():
            path = path.encode("latin-1").decode("utf-8", "replace")
        return any(pattern.match(path) for pattern in self._excluded)

    def _queued(self, environ: WSGIEnvironment) -> None:
        """`t=1700000000.123` in seconds, milliseconds or microseconds; garbage counts for nothing."""
        try:
            start = _REQUEST_START(environ["HTTP_X_REQUEST_START"].strip())
            if start is None or self._trusted is None or not self._trusted(environ):
                return
            seconds = float(start[1])
            if seconds >= 1e14:  # microseconds since the epoch
                seconds /= 1e6
            elif seconds >= 1e11:  # milliseconds
                seconds /= 1e3
            self._instruments.queued(min(max(time() - seconds, 0.0), 60.0))
        except Exception as error:
            self.outcomes.failures.count("middleware", error)
