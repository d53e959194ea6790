"""Fields of log lines: times, paths and texts of limited length, and the fields of the current request."""

from __future__ import annotations

import math
import time

from exporter.labels import UNMATCHED
from exporter.measure.tracing import active, announced
from exporter.observation import CURRENT, Context, Observation, contexts

PATH_LIMIT = 512  # characters; with all of them escaped a line still fits into one atomic write to a pipe
TEXT_LIMIT = 16_384  # of a message or a traceback


class Clock:
    """Writes ISO 8601 in UTC with microseconds; it keeps the text of the current second."""

    def __init__(self) -> None:
        self._second = (-1, "")

    def stamp(self, seconds: float) -> str:
        """The time of these seconds since the epoch."""
        whole = int(seconds)
        second, text = self._second
        if second != whole:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
            self._second = whole, text
        return f"{text}.{int((seconds - whole) * 1_000_000):06d}Z"


def current_request() -> Observation | None:
    """The request that this thread or task answers, or whose body it streams; None outside of one."""
    context = _context()
    return CURRENT.get() if context is None else context.observation


def request_fields() -> dict[str, str]:
    """The fields of the current request for a log record; none outside of a request."""
    context = _context()
    observation = CURRENT.get() if context is None else context.observation
    if observation is None:
        return {}
    if context is None:
        environ, route = getattr(observation, "environ", {}), observation.routed()
    else:
        # A recorded observation has lost its environ; in work that outlives the answer Flask still has it.
        environ, route = context.environ, context.route
    return {
        "request_id": observation.request_id,
        "trace_id": active() or observation.trace_id or announced(environ),
        "method": environ.get("REQUEST_METHOD", observation.method)[:PATH_LIMIT],
        "path": path_of(observation),
        "url_rule": route.rule if route else UNMATCHED,
        "endpoint": route.endpoint if route else "",
    }


def _context() -> Context | None:
    """The context of a framework that has one of its own."""
    for find in contexts:
        context = find()
        if context is not None:
            return context
    return None


def error_group_of(observation: Observation) -> str:
    """The group of the request's exception; "" for none."""
    return observation.fingerprint.error_group if observation.fingerprint else ""


def path_of(observation: Observation) -> str:
    """The path of a request as text, of limited length."""
    path = observation.path
    cut = "" if len(path) <= PATH_LIMIT else "…"
    path = path[:PATH_LIMIT]
    if not path.isascii():  # WSGI hands over the bytes as Latin-1
        path = path.encode("latin-1", "replace").decode("utf-8", "replace")
    return path + cut


def plain(value: object) -> object:
    """The value in a form that JSON has: a number, true, false, null or a text."""
    if value is None or isinstance(value, bool) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, int) and value.bit_length() < 10_000:  # Python writes no more than 4,300 digits
        return value
    try:
        return str(value)
    except Exception as error:  # a foreign object, or a number with thousands of digits
        return f"<{type(value).__name__}: {type(error).__name__}>"
