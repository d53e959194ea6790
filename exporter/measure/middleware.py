"""WSGI: a request comes in, one observation goes out when its body has been handed to the server."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

from werkzeug.wsgi import ClosingIterator

from exporter.labels import error_type_of
from exporter.measure.exchange import BODILESS, Exchange, Outcome
from exporter.measure.tracing import active, is_active
from exporter.worker.flightrecorder import names_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from exporter.measure.instruments import Instruments

REQUEST_ID = "exporter.request_id"
# Outcomes that are remembered, each with 1 KB or so: an application may invent status lines without end.
OUTCOMES = 10_000

_WELL_FORMED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch
_REQUEST_START = re.compile(r"(?:t=)?(\d{9,17}(?:\.\d{1,9})?)").fullmatch

# A request id is the random half of this process and a count. They are made many at a time: one by one each
# would cost 0.2 µs, 16 random bytes 1 µs.
_id_half = os.urandom(8).hex()
_id_blocks = count()
_ids: list[str] = []


def _new_ids() -> str:
    first = next(_id_blocks) * 1000
    _ids.extend(f"{_id_half}{number:08x}" for number in range(first + 999, first, -1))
    return f"{_id_half}{first:08x}"


def _forget_ids() -> None:
    global _id_half
    _id_half = os.urandom(8).hex()
    _ids.clear()


os.register_at_fork(after_in_child=_forget_ids)

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
        key: str,
        own_paths: set[str],
        begin: Callable[[WSGIEnvironment], None],
        request_of: Callable[[WSGIEnvironment], Any],
        excluded: Sequence[re.Pattern[str]] = (),
        group_of: Callable[[Any], str] | None = None,
        extra_of: Callable[[WSGIEnvironment], tuple[str, ...]] | None = None,
        trusted: Callable[[WSGIEnvironment], bool] | None = None,
        sinks: Sequence[Sink] = (),
    ) -> None:
        """`key` is where the environ has the exchange; `begin` is called before the first request of each
        process; `request_of` gives a request with its rule where there is none; `group_of` another group
        than the rule; `extra_of` the values of default labels; `trusted` says whether X-Request-Start comes
        from a declared proxy; `sinks` take each recorded exchange, with the stage that their failures count
        for.
        """
        self._wsgi_app = wsgi_app
        self._instruments = instruments
        self.outcomes: dict[tuple[str, str, str, str], Outcome] = {}
        """By method, rule, endpoint and status line."""
        self._extended = instruments.extended
        self._key = key
        self._own_paths = own_paths
        self._begin = begin
        self._beginning = threading.Lock()
        self._ready = False
        self._request_of = request_of
        self._excluded = excluded
        self._group_of = group_of
        self._extra_of = extra_of
        self._blank = ("",) * len(instruments.shape[1])
        self._by_rule = group_of is None and extra_of is None
        self._trusted = trusted
        self.sinks = sinks
        self.traced = False
        self.failures = instruments.worker.failures
        instruments.worker.forks.add(self)

    def measured(  # noqa: C901  the hot path
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """The WSGI application in the place of the wrapped one."""
        if not self._ready and not self._start(environ):
            return self._wsgi_app(environ, start_response)
        path = environ.get("PATH_INFO", "")
        if path in self._own_paths or (self._excluded and self._excludes(path)):
            return self._wsgi_app(environ, start_response)
        environ[self._key] = exchange = Exchange()
        exchange.started = perf_counter()
        exchange.middleware = self
        exchange.environ = environ
        exchange.start_response = start_response
        if self._extended:
            try:
                request_id = _ids.pop()
            except IndexError:
                request_id = _new_ids()
            if "HTTP_X_REQUEST_ID" in environ and _WELL_FORMED_ID(environ["HTTP_X_REQUEST_ID"]):
                request_id = environ["HTTP_X_REQUEST_ID"]
            environ[REQUEST_ID] = exchange.request_id = request_id
            self._instruments.count_in_progress(1.0)
            if self._trusted is not None and "HTTP_X_REQUEST_START" in environ:
                self._queued(environ)
        try:
            body = self._wsgi_app(environ, exchange.start)
            if type(body) is not ClosingIterator:  # Werkzeug's own, but for files
                if type(body) is environ.get("wsgi.file_wrapper"):
                    return exchange.watch_close(body)
                body = ClosingIterator(body)  # closes what can be closed
        except BaseException as error:
            exchange.fail(error)
            raise
        exchange.body = body
        if exchange.expected == 0 and not exchange.recorded:
            exchange.record()
        return exchange

    def resolve(self, exchange: Exchange, environ: WSGIEnvironment) -> None:
        """Read the labels that need the request context, which is gone when the body is sent."""
        try:
            request = environ.get("werkzeug.request")
            if request is None:
                request = self._request_of(environ)
            exchange.matched = rule = request.url_rule
            marks = request.__dict__
            if "prom_do_not_track" in marks or "prom_exclude_all" in marks:
                exchange.skip = True
                return
            if self._group_of is not None:
                exchange.group = self._group_of(request)
                exchange.known = rule is not None and exchange.group in (rule.rule, rule.endpoint)
            if self._extra_of is not None:
                exchange.extra = self._extra_of(environ)
            if self.traced:
                exchange.trace_id = active()
        except Exception as error:
            self.failures.count("labels", error)

    def record_unusual(self, exchange: Exchange, now: float) -> None:
        """Record what has no recorder yet, or went wrong; `now` is its end, monotonic seconds."""
        instruments = self._instruments
        if exchange.skip:
            instruments.count_in_progress(-1.0)
            return
        try:
            if not exchange.code:
                # No start_response: a server's connection was taken over, or nothing was answered.
                exchange.code = "101" if "HTTP_UPGRADE" in exchange.environ else "500"
                self.resolve(exchange, exchange.environ)
            exchange.name()
            group = exchange.group or exchange.rule
            exchange.failed = exchange.status >= 500 or exchange.exception is not None
            if exchange.status >= 400 and not exchange.error_type:
                exchange.error_type = error_type_of(exchange.status)
            exchange.extra = exchange.extra or self._blank
            key = (exchange.method, group, exchange.code, *exchange.extra)
            recorder = instruments.recorder(key, exchange.known)
        except BaseException:
            instruments.count_in_progress(-1.0)
            raise
        recorder(exchange, now)
        if exchange.error_type or exchange.disconnected:
            instruments.error(exchange, group)
        elif (
            self._by_rule
            and exchange.matched is not None
            and key in instruments.recorders
            and len(self.outcomes) < OUTCOMES
        ):
            rule, code = exchange.matched, exchange.code
            self.outcomes[exchange.method, rule.rule, rule.endpoint, exchange.status_line] = Outcome(
                recorder,
                names_of(exchange),
                rule,
                code,
                bodiless=exchange.method == "HEAD" or code in BODILESS,
            )

    def after_fork(self) -> None:
        """The child begins anew."""
        self._beginning = threading.Lock()
        self._ready = False
        self.outcomes.clear()

    def _start(self, environ: WSGIEnvironment) -> bool:
        """Make ready for the first request of this process; False where that fails, to be tried again."""
        with self._beginning:
            if not self._ready:
                try:
                    self._instruments.begin()
                    self._begin(environ)
                    # Who instruments a Flask application does so before its first request.
                    self.traced = bool(self.sinks) and is_active()
                    self._ready = True
                except Exception as error:
                    self.failures.count("middleware", error)
            return self._ready

    def _excludes(self, path: str) -> bool:
        """Whether a pattern begins like this path, which WSGI hands over as Latin-1."""
        if not path.isascii():
            path = path.encode("latin-1").decode("utf-8", "replace")
        return any(pattern.match(path) for pattern in self._excluded)

    def _queued(self, environ: WSGIEnvironment) -> None:
        """`t=1700000000.123` in seconds, milliseconds or microseconds; garbage counts for nothing."""
        try:
            found = _REQUEST_START(environ["HTTP_X_REQUEST_START"].strip())
            if found is None or self._trusted is None or not self._trusted(environ):
                return
            started = float(found[1])
            if started >= 1e14:  # microseconds since the epoch
                started /= 1e6
            elif started >= 1e11:  # milliseconds
                started /= 1e3
            self._instruments.queued(min(max(time() - started, 0.0), 60.0))
        except Exception as error:
            self.failures.count("middleware", error)
