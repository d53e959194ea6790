"""The filter of requests that a query asks for."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from exporter.worker.requests import Request

MAX_LIMIT = 10_000
_DEFAULT_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Filter:
    """The conditions of a query for requests; None for no condition. `since` is seconds since the epoch."""

    limit: int = _DEFAULT_LIMIT
    endpoint: str | None = None
    status: str | None = None
    since: float | None = None
    request_id: str | None = None
    where: str | None = None

    @classmethod
    def of(cls, arguments: Iterable[tuple[str, str]]) -> Filter:
        """Parse a query; raises ValueError that names the argument, its value and the remedy."""
        values: dict[str, Any] = {}
        for name, text in arguments:
            if name not in _PARSERS:
                raise ValueError(f"{name!r} is no parameter; there are {', '.join(_PARSERS)}")
            if name in values:
                raise ValueError(f"{name}={text!r}: give {name} once")
            try:
                values[name] = _PARSERS[name](text)
            except ValueError as error:
                raise ValueError(f"{name}={text[:100]!r}: {error}") from None
        return cls(**values)

    def matches(self, candidate: Request) -> bool:
        """Whether this request meets all conditions."""
        return (
            (self.endpoint is None or self.endpoint in (candidate.url_rule, candidate.endpoint))
            and (self.status is None or str(candidate.status).startswith(self.status))
            and (self.since is None or candidate.start_time >= self.since)
            and (self.request_id is None or candidate.request_id == self.request_id)
            and (self.where is None or candidate.where == self.where)
        )


def _limit(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= MAX_LIMIT:
        raise ValueError(f"give a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _status(text: str) -> str:
    if not re.fullmatch(r"[1-5]([0-9]{2}|xx)", text):
        raise ValueError("give a status such as 404, or a class such as 5xx")
    return text.removesuffix("xx")


def _since(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
        except (ValueError, OverflowError):
            seconds = math.nan
    if not 0 <= seconds <= 1e15:
        raise ValueError("give seconds since the epoch, or a UTC time such as 2026-01-31T12:00:00Z")
    return seconds


_PARSERS: dict[str, Callable[[str], Any]] = {
    "limit": _limit,
    "endpoint": str,
    "status": _status,
    "since": _since,
    "request_id": str,
    "where": str,
}
