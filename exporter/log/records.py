"""Log records of the application become JSON lines with the id of the request."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from exporter.log.destinations import Destination
from exporter.log.fields import TEXT_LIMIT, Clock, current_request, error_group_of, plain, request_fields
from exporter.log.masking import Mask

LOG_MARK = "exporter.logged"
"""A key in the environ: the exception of the request has been logged with its traceback."""

# RFC 5424, section 6.2.1
_SEVERITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_RECORD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

# Servers write a line for each request to these, which the request log has already.
_ACCESS_LOGGERS = frozenset(["gunicorn.access", "uvicorn.access", "hypercorn.access", "granian.access"])

_encode = json.JSONEncoder(separators=(",", ":")).encode


class JsonHandler(logging.Handler):
    """Writes log records as JSON lines with the id of the request during which they were made."""

    def __init__(
        self,
        destination: Destination,
        name: str,
        level: int,
        mask: Mask,
        instance: str,
        on_loss: Callable[[BaseException], None] | None = None,
    ) -> None:
        """`on_loss` is called with the error of each record that could not be written."""
        super().__init__(level)
        self._on_loss = on_loss
        self.set_name(name)
        self._destination = destination
        self._mask = mask
        self._instance = instance
        self._clock = Clock()

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; an error is reported as in every handler of `logging`."""
        if _is_access(record):
            return
        try:
            line = _encode(self._fields(record)) + "\n"
            severity = next((number for level, number in _SEVERITIES if record.levelno >= level), 7)
            self._destination.write(line.encode("ascii"), severity)
            if record.exc_info:
                observation = current_request()
                if observation is not None and observation.exception is record.exc_info[1]:
                    getattr(observation, "environ", {})[LOG_MARK] = True
        except Exception as error:
            if self._on_loss is not None:
                self._on_loss(error)
            self.handleError(record)

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "timestamp": self._clock.stamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "instance": self._instance,
            "message": self._mask.text(record.getMessage())[:TEXT_LIMIT],
            **request_fields(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            fields["error_type"] = name = record.exc_info[0].__name__
            observation = current_request()
            if observation is not None and observation.error_type == name:
                fields["error_group"] = error_group_of(observation)
            trace = logging.Formatter().formatException(record.exc_info)
            fields["traceback"] = self._mask.text(trace)[-TEXT_LIMIT:]  # the error is at its end
        if record.stack_info:
            fields["stack"] = self._mask.text(record.stack_info)[-TEXT_LIMIT:]
        for name, attribute in vars(record).items():
            if name in _RECORD_ATTRIBUTES:
                continue
            value = plain(attribute)
            value = self._mask.field(name, value)[:TEXT_LIMIT] if isinstance(value, str) else value
            if fields.get(name, value) == value:
                fields[name] = value
                continue
            while name in fields:  # an extra of the application with the name of a field
                name = f"extra_{name}"
            fields[name] = value
        return fields


def _is_access(record: logging.LogRecord) -> bool:
    """Whether this is a server's own line about an answer."""
    if record.name == "werkzeug":
        return isinstance(record.msg, str) and '"%s" %s %s' in record.msg
    return record.name in _ACCESS_LOGGERS


class RequestContext(logging.Filter):
    """A filter for any handler: gives each record `request_id` and `trace_id`, "" outside of a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the ids; never drops a record."""
        try:
            fields = request_fields()
        except Exception:  # nobody guards a filter: the application's log call would raise
            fields = {}
        record.request_id = fields.get("request_id", "")
        record.trace_id = fields.get("trace_id", "")
        return True


def request_id() -> str:
    """The id of the current request; "" outside of a request, or if it is not measured."""
    observation = current_request()
    return "" if observation is None else observation.request_id
