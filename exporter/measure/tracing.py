"""The trace that a request belongs to: that of OpenTelemetry's active span, else that of its caller.

There is no tracing here. In a service that OpenTelemetry instruments, its own packages make the spans and
hand the trace on: `opentelemetry-instrumentation-flask` takes it from `traceparent`, and those for `requests`
and `httpx` put it into the requests that the service sends. Log lines, the flight recorder and exemplars then
show the id of that very trace. In a service that is not instrumented they show the trace of the caller.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?").fullmatch


def is_active() -> bool:
    """Whether anything in this process has imported OpenTelemetry's tracing."""
    return "opentelemetry.trace" in sys.modules


def active() -> str:
    """Trace id of OpenTelemetry's active span, 32 hex digits; "" where there is none."""
    if not is_active():
        return ""
    number: int = sys.modules["opentelemetry.trace"].get_current_span().get_span_context().trace_id
    return f"{number:032x}" if number else ""


def announced(environ: WSGIEnvironment) -> str:
    """Trace id in the caller's `traceparent`, 32 hex digits; "" where there is none or it is not valid."""
    match = _TRACEPARENT(environ.get("HTTP_TRACEPARENT", ""))
    return match[1] if match else ""
