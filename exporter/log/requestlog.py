"""Request log: one JSON line for each request.

Everything that a client can choose is cut to a length and escaped to ASCII, so that no request can forge a
line or reach a terminal with control sequences.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from json.encoder import encode_basestring_ascii as quote
from socket import gethostname
from typing import Any

from exporter.addresses import client_address, plain_networks
from exporter.log.destinations import destination
from exporter.log.fields import PATH_LIMIT, Clock, error_group_of, path_of
from exporter.log.masking import Mask
from exporter.log.records import LOG_MARK, JsonHandler
from exporter.observation import Delay, Observation
from exporter.settings import Settings


class RequestLog:
    """Writes to the destination that the settings name; does nothing where that is `off`.

    Raises SettingsError if the destination cannot be used.
    """

    def __init__(self, settings: Settings, on_loss: Callable[[BaseException], None] | None = None) -> None:
        """`on_loss` is called with the error of each lost record of the application; it may take no lock."""
        self._destination = destination(settings)
        self.level: int = logging.getLevelName(settings.log_level)
        self._mask = Mask(settings.log_mask)
        self._with_query = settings.log_query
        self._proxies = plain_networks(settings.trusted_proxies)
        instance = settings.instance or gethostname()
        self._instance = quote(instance)
        self._clock = Clock()
        self._handler = (
            None
            if self._destination is None
            else JsonHandler(
                self._destination, settings.request_log, self.level, self._mask, instance, on_loss
            )
        )

    @property
    def on(self) -> bool:
        """Whether there is a destination."""
        return self._destination is not None

    def write(self, observation: Observation) -> None:
        """Write the line of one finished request: 4 µs into a file. Raises OSError if it is lost."""
        observation.name()
        status = observation.status
        if observation.failed:
            level, name, severity = logging.ERROR, "ERROR", 3
        elif status >= HTTPStatus.BAD_REQUEST:
            level, name, severity = logging.WARNING, "WARNING", 4
        else:
            level, name, severity = logging.INFO, "INFO", 6
        if self._destination is None or level < self.level:
            return
        environ = observation.environ
        query = ""
        error = _error_of(observation) if observation.error_type else '"error_type":"","error_group":""'
        if self._with_query:
            query = f'"query":{quote(self._mask.query(environ.get("QUERY_STRING", "")[:PATH_LIMIT]))},'
        line = (
            f'{{"timestamp":"{self._clock.stamp(observation.start_time + observation.duration)}",'
            f'"level":"{name}","logger":"exporter.request","instance":{self._instance},'
            f'"message":{quote(f"{observation.method} {observation.rule} {status}")},'
            f'"request_id":{quote(observation.request_id)},"trace_id":{quote(observation.trace_id)},'
            f'"method":{quote(observation.method)},"path":{quote(path_of(observation))},{query}'
            f'"url_rule":{quote(observation.rule)},"endpoint":{quote(observation.endpoint)},"status":{status},'
            f'"duration_seconds":{observation.duration:.6f},"request_bytes":{observation.request_size},'
            f'"response_bytes":{observation.response_size},"remote_addr":{quote(self._remote(environ))},'
            f"{error}{_delay(observation.delay)}}}\n"
        )
        self._destination.write(line.encode("ascii"), severity)
        if observation.exception is not None and LOG_MARK not in environ:
            self._log_exception(observation, observation.exception)

    def attach(self) -> None:
        """Send the process's log records to the same place, as JSON.

        If logging is not configured yet, the level applies to every logger.
        """
        if self._handler is None:
            return
        root = logging.getLogger()
        if not root.handlers:
            root.setLevel(self.level)
        if not any(
            isinstance(handler, JsonHandler) and handler.name == self._handler.name
            for handler in root.handlers
        ):
            root.addHandler(self._handler)

    def close(self) -> None:
        """Stop writing and give up the destination."""
        if self._destination is not None and self._handler is not None:
            logging.getLogger().removeHandler(self._handler)
            self._destination.close()
            self._destination = self._handler = None

    def _log_exception(self, observation: Observation, error: BaseException) -> None:
        """Log an exception that Flask did not: one that a body raised half-way, or that Flask propagated."""
        path = path_of(observation)
        record = logging.makeLogRecord(
            {
                "name": "exporter.request",
                "levelno": logging.ERROR,
                "levelname": "ERROR",
                "msg": f"Exception on {path} [{observation.method}]",
                "exc_info": (type(error), error, error.__traceback__),
                "request_id": observation.request_id,
                "trace_id": observation.trace_id,
                "method": observation.method,
                "path": path,
                "url_rule": observation.rule,
                "endpoint": observation.endpoint,
                "error_group": error_group_of(observation),
            }
        )
        if self._handler is not None:
            self._handler.handle(record)

    def _remote(self, environ: dict[str, Any]) -> str:
        sender = str(environ.get("REMOTE_ADDR") or "")
        return str(client_address(environ, self._proxies) or sender) if self._proxies else sender


def _error_of(observation: Observation) -> str:
    error_group = error_group_of(observation)
    return f'"error_type":{quote(observation.error_type)},"error_group":{quote(error_group)}'


def _delay(delay: Delay | None) -> str:
    """The fields of slow requests alone."""
    if delay is None:
        return ""
    shares = ",".join(f"{quote(where)}:{share:g}" for where, share in delay.shares.items())
    return (
        f',"where":{quote(delay.where)},"line":{delay.line},"library":{quote(delay.library)},'
        f'"call":{quote(delay.call)},"shares":{{{shares}}}'
    )
