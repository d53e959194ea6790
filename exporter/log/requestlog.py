"""Request log: one JSON line for each request, and for each log record written while one is answered.

Everything that a client can choose is cut to a length and escaped to ASCII, so that no request can forge a
line or reach a terminal with control sequences.
"""

from __future__ import annotations

import json
import logging
import math
import time
from http import HTTPStatus
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from flask import Flask, has_request_context, request
from flask.logging import default_handler

from exporter.labels import UNMATCHED
from exporter.log.destinations import Destination, destination
from exporter.measure.exchange import EXCHANGE, STREAMING
from exporter.measure.tracing import active, announced
from exporter.pages.access import client_address, unmapped
from exporter.settings import Settings

if TYPE_CHECKING:
    from exporter.measure.exchange import Exchange

_PATH_LIMIT = 512  # characters; with all of them escaped a line still fits into one atomic write to a pipe
_TEXT_LIMIT = 16_384  # of a message or a traceback
_MASK = "***"
_LOGGED = "exporter.logged"  # in the environ of a request whose exception has been logged with its traceback
# RFC 5424, section 6.2.1
_SEVERITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_RECORD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class RequestLog:
    """Writes to the destination that the settings name; does nothing where that is `off`.

    Raises SettingsError if the destination cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._destination = destination(settings)
        self._level: int = logging.getLevelName(settings.log_level)
        self._mask = frozenset(settings.log_mask) if settings.log_query else None
        self._proxies = unmapped(settings.trusted_proxies)
        self._clock = _Clock()
        self._handler = (
            None
            if self._destination is None
            else JsonHandler(self._destination, settings.request_log, self._level)
        )

    @property
    def on(self) -> bool:
        """Whether there is a destination."""
        return self._destination is not None

    def write(self, exchange: Exchange) -> None:
        """Write the line of one finished request: 4 µs into a file. Raises OSError where it was lost."""
        exchange.name()
        status = exchange.status
        if exchange.failed:
            level, name, severity = logging.ERROR, "ERROR", 3
        elif status >= HTTPStatus.BAD_REQUEST:
            level, name, severity = logging.WARNING, "WARNING", 4
        else:
            level, name, severity = logging.INFO, "INFO", 6
        if self._destination is None or level < self._level:
            return
        environ = exchange.environ
        query = "" if self._mask is None else f'"query":{quoted(self._query(environ))},'
        line = (
            f'{{"timestamp":"{self._clock.stamp(exchange.start_time + exchange.duration)}",'
            f'"level":"{name}","logger":"exporter.request",'
            f'"message":{quoted(f"{exchange.method} {exchange.rule} {status}")},'
            f'"request_id":{quoted(exchange.request_id)},"trace_id":{quoted(exchange.trace_id)},'
            f'"method":{quoted(exchange.method)},"path":{quoted(_path(environ))},{query}'
            f'"url_rule":{quoted(exchange.rule)},"endpoint":{quoted(exchange.endpoint)},"status":{status},'
            f'"duration_seconds":{exchange.duration:.6f},"request_bytes":{exchange.request_size},'
            f'"response_bytes":{exchange.response_size},"remote_addr":{quoted(self._remote(environ))},'
            f'"error_type":{quoted(exchange.error_type)}}}\n'
        )
        self._destination.write(line.encode("ascii"), severity)
        if exchange.exception is not None and _LOGGED not in environ:
            self._log_exception(exchange, exchange.exception)

    def attach(self, app: Flask) -> None:
        """Send the process's log records there too, as JSON; the application's own plain output goes.

        Where nobody has configured logging yet, the level holds for every logger.
        """
        if self._handler is None:
            return
        root = logging.getLogger()
        if not root.handlers:
            root.setLevel(self._level)
        if not any(
            isinstance(handler, JsonHandler) and handler.name == self._handler.name
            for handler in root.handlers
        ):
            root.addHandler(self._handler)
        app.logger.removeHandler(default_handler)  # its lines can be forged with a line feed in the path
        if app.logger.level == logging.NOTSET:
            app.logger.setLevel(self._level)

    def close(self) -> None:
        """Stop writing and give up the destination."""
        if self._destination is not None and self._handler is not None:
            logging.getLogger().removeHandler(self._handler)
            self._destination.close()
            self._destination = self._handler = None

    def _log_exception(self, exchange: Exchange, error: BaseException) -> None:
        """Flask logs what its views raise, but neither what a body raises half-way nor what it propagates."""
        path = _path(exchange.environ)
        record = logging.makeLogRecord(
            {
                "name": "exporter.request",
                "levelno": logging.ERROR,
                "levelname": "ERROR",
                "msg": f"Exception on {path} [{exchange.method}]",
                "exc_info": (type(error), error, error.__traceback__),
                "request_id": exchange.request_id,
                "trace_id": exchange.trace_id,
                "method": exchange.method,
                "path": path,
                "url_rule": exchange.rule,
                "endpoint": exchange.endpoint,
            }
        )
        if self._handler is not None:
            self._handler.handle(record)

    def _query(self, environ: dict[str, Any]) -> str:
        text = environ.get("QUERY_STRING", "")[:_PATH_LIMIT]
        return "&".join(self._masked(pair) for pair in text.split("&"))

    def _masked(self, pair: str) -> str:
        """`user[password]=x` is masked with `password`, however the name is encoded."""
        name, equals, _ = pair.partition("=")
        words = unquote_plus(name).lower().replace("[", ".").replace("]", ".").split(".")
        return f"{name}={_MASK}" if equals and self._mask and not self._mask.isdisjoint(words) else pair

    def _remote(self, environ: dict[str, Any]) -> str:
        sender = str(environ.get("REMOTE_ADDR") or "")
        return str(client_address(environ, self._proxies) or sender) if self._proxies else sender


class JsonHandler(logging.Handler):
    """Writes log records as JSON lines with the id of the request during which they were made."""

    def __init__(self, to: Destination, name: str, level: int) -> None:
        super().__init__(level)
        self.set_name(name)
        self._destination = to
        self._clock = _Clock()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; what goes wrong is reported as for every handler of `logging`."""
        try:
            line = json.dumps(self._fields(record)) + "\n"
            severity = next((number for level, number in _SEVERITIES if record.levelno >= level), 7)
            self._destination.write(line.encode("ascii"), severity)
            if record.exc_info and has_request_context():
                exchange = request.environ.get(EXCHANGE)
                if exchange is not None and exchange.exception is record.exc_info[1]:
                    request.environ[_LOGGED] = True
        except Exception:
            self.handleError(record)

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "timestamp": self._clock.stamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage()[:_TEXT_LIMIT],
            **_request_fields(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            fields["error_type"] = record.exc_info[0].__name__
            trace = logging.Formatter().formatException(record.exc_info)
            fields["traceback"] = trace[-_TEXT_LIMIT:]  # its end says what happened
        if record.stack_info:
            fields["stack"] = record.stack_info[-_TEXT_LIMIT:]
        for name, value in vars(record).items():
            if name not in _RECORD_ATTRIBUTES and name not in fields:
                fields[name] = _plain(value)
        return fields


class RequestContext(logging.Filter):
    """For handlers of one's own: gives each record `request_id` and `trace_id`, "" outside of a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Never drops a record."""
        fields = _request_fields()
        record.request_id = fields.get("request_id", "")
        record.trace_id = fields.get("trace_id", "")
        return True


class _Clock:
    """ISO 8601 in UTC with microseconds; the part that changes once a second is kept."""

    def __init__(self) -> None:
        self._kept = (-1, "")

    def stamp(self, seconds: float) -> str:
        whole = int(seconds)
        kept, text = self._kept
        if kept != whole:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
            self._kept = whole, text
        return f"{text}.{int((seconds - whole) * 1_000_000):06d}Z"


def _request_fields() -> dict[str, str]:
    inside = has_request_context()
    exchange: Exchange | None = request.environ.get(EXCHANGE) if inside else STREAMING.get()
    if exchange is None:
        return {}
    environ = exchange.environ
    rule = request.url_rule if inside else exchange.route
    return {
        "request_id": exchange.request_id,
        "trace_id": active() or announced(environ),
        "method": environ["REQUEST_METHOD"][:_PATH_LIMIT],
        "path": _path(environ),
        "url_rule": rule.rule if rule else UNMATCHED,
        "endpoint": rule.endpoint if rule else "",
    }


def _path(environ: dict[str, Any]) -> str:
    path: str = environ.get("PATH_INFO", "")
    cut = "" if len(path) <= _PATH_LIMIT else "…"
    path = path[:_PATH_LIMIT]
    if not path.isascii():  # WSGI hands over the bytes as Latin-1
        path = path.encode("latin-1", "replace").decode("utf-8", "replace")
    return path + cut


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)[:_TEXT_LIMIT]
