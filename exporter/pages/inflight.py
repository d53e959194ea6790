"""`/monitoring/inflight`: the requests in progress of all workers, the oldest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from time import perf_counter
from typing import Any

from exporter.worker.inflight import WorkerRequest
from exporter.worker.stacks import stack

STACK_SECONDS = 0.1
"""The age from which a request has the stack of its thread beside it."""


def inflight(
    entries: Iterable[WorkerRequest], rule: Callable[[str, str], str] | None = None
) -> list[dict[str, Any]]:
    """The body of the page; `rule` gives the rule of a method and a path, None if no rules are known."""
    now = perf_counter()
    oldest_first = sorted(entries, key=lambda entry: entry.request.started)
    return [_element(entry, max(now - entry.request.started, 0.0), rule) for entry in oldest_first]


def _element(entry: WorkerRequest, age: float, rule: Callable[[str, str], str] | None) -> dict[str, Any]:
    request = entry.request
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
        "worker": entry.worker,
        "pid": entry.pid,
        "thread": request.thread,
        "stack": stack(entry.thread) if entry.thread is not None and age > STACK_SECONDS else None,
    }
