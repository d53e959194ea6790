"""`/monitoring/errors`: the error groups of all workers, or one of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any

from exporter.worker.errorslots import Group

_GROUP = re.compile("[0-9a-f]{12}|_other").fullmatch


def group_of(arguments: Iterable[tuple[str, str]]) -> str | None:
    """The group in a query; None for all groups. Raises ValueError that names the argument and its value."""
    group = None
    for name, value in arguments:
        if name != "group":
            raise ValueError(f"{name!r} is no parameter; there is group")
        if group is not None:
            raise ValueError(f"group={value[:100]!r}: give group once")
        if not _GROUP(value):
            raise ValueError(f"group={value[:100]!r}: give twelve hex digits, or _other")
        group = value
    return group


def body(groups: Iterable[Group], group: str | None) -> list[dict[str, Any]]:
    """The body of the page: all groups, or this one with its traceback."""
    if group is None:
        return [_element(candidate) for candidate in groups]
    return [with_traceback(candidate) for candidate in groups if candidate.fingerprint.error_group == group]


def with_traceback(group: Group) -> dict[str, Any]:
    """One element with its traceback."""
    return {**_element(group), "traceback": group.traceback}


def _element(group: Group) -> dict[str, Any]:
    return {
        **group.fingerprint._asdict(),
        "url_rule": group.url_rule,
        "count": group.count,
        "first_seen": _moment(group.first),
        "last_seen": _moment(group.last),
        "first_version": group.first_version,
        "last_version": group.version,
        "requests": [
            {"datetime": _moment(at), "request_id": request_id} for at, request_id in group.requests
        ],
    }


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="microseconds")
