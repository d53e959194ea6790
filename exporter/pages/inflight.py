"""`/monitoring/inflight`: the requests in progress of all workers, the oldest first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from time import perf_counter
from typing import Any

from exporter.worker.inflight import WorkerRequest
from exporter.worker.stackring import Stacks
from exporter.worker.stacks import stack

STACK_SECONDS = 0.1
"""The age from which a request has the stack of its thread beside it."""


def inflight(
    entries: Iterable[WorkerRequest], stacks: Stacks, rule: Callable[[str, str], str] | None = None
) -> list[dict[str, Any]]:
    """The body of the page; `rule` gives the rule of a method and a path, None if no rules are known.

    `stacks` are those of the requests of other processes.
    """
    now = perf_counter()
    oldest_first = sorted(entries, key=lambda entry: entry.request.started)
    return [
        _element(entry, max(now - entry.request.started, 0.0), rule) | _stack(entry, now, stacks)
        for entry in oldest_first
    ]


def _stack(entry: WorkerRequest, now: float, stacks: Stacks) -> dict[str, Any]:
    """The calls of its thread, and how many seconds ago that was."""
    lines, age = None, None
    if now - entry.request.started > STACK_SECONDS:
        if entry.thread is not None:
            lines, age = stack(entry.thread), 0.0
        elif sample := stacks.get((entry.pid, entry.request.started)):
            lines, age = sample.lines, max(round(now - sample.time, 6), 0.0)
    return {"stack": lines, "stack_age_seconds": age if lines else None}


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
    }
