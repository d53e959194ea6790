"""`/monitoring/inflight`: every request of every worker that is being answered, the oldest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from time import perf_counter
from typing import Any

from exporter.worker.inflight import Running
from exporter.worker.stacks import stack

STACK_SECONDS = 0.1
"""Age from which a request is shown with the stack of its thread."""


def inflight(
    running: Iterable[Running], rule: Callable[[str, str], str] | None = None
) -> list[dict[str, Any]]:
    """The body of the page; `rule` knows the rule of a method and a path, if anybody does."""
    now = perf_counter()
    oldest = sorted(running, key=lambda one: one.request.started)
    return [_shown(one, max(now - one.request.started, 0.0), rule) for one in oldest]


def _shown(one: Running, age: float, rule: Callable[[str, str], str] | None) -> dict[str, Any]:
    request = one.request
    return {
        "request_id": request.request_id,
        "method": request.method,
        "path": request.path,
        "url_rule": rule(*request.route) if rule else None,
        "datetime": datetime.fromtimestamp(request.start_time, timezone.utc).isoformat(
            timespec="microseconds"
        ),
        "age_seconds": round(age, 6),
        "state": request.state,
        "worker": one.worker,
        "pid": one.pid,
        "thread": request.thread,
        "stack": stack(one.thread) if one.thread is not None and age > STACK_SECONDS else None,
    }
