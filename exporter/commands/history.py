"""History: the rates between one look at a service and the next, and their course."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from exporter.commands.remote import Snapshot

_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Moment:
    """The time between two looks: requests a second, share of failures (0 to 1), times in milliseconds."""

    rate: float
    error_rate: float
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    endpoint_rates: dict[str, float]


class History:
    """The last `length` moments, the newest last."""

    def __init__(self, length: int = 240) -> None:
        self.moments: deque[Moment] = deque(maxlen=length)
        self._last: Snapshot | None = None

    def add(self, snapshot: Snapshot) -> Moment:
        """Add and return the moment that ends with this look; the first has the service's own rates."""
        stats, last = snapshot.stats, self._last
        percentiles = stats.get("response_time_percentiles") or {}
        requests = _since(snapshot, last, "total_requests")
        if last is None or requests is None:
            rate, error_rate = float(stats.get("requests_per_second", 0)), float(stats.get("error_rate", 0))
            rates: dict[str, float] = {}
        else:
            seconds = max(snapshot.at - last.at, 1e-3)
            rate = requests / seconds
            error_rate = (_since(snapshot, last, "total_errors") or 0) / requests if requests else 0.0
            former_counts = _counts(last)
            rates = {
                name: max(0, count - former_counts.get(name, 0)) / seconds
                for name, count in _counts(snapshot).items()
            }
        self._last = snapshot
        moment = Moment(
            rate,
            error_rate,
            stats.get("average_response_time_ms"),
            percentiles.get("p50"),
            percentiles.get("p95"),
            percentiles.get("p99"),
            rates,
        )
        self.moments.append(moment)
        return moment


def _counts(snapshot: Snapshot) -> dict[str, int]:
    return {name: figures.get("request_count", 0) for name, figures in snapshot.endpoints.items()}


def _since(snapshot: Snapshot, last: Snapshot | None, name: str) -> int | None:
    """The growth of a total; None if it is unknown, or if the total fell because the service is new."""
    if last is None:
        return None
    growth: int = snapshot.stats.get(name, 0) - last.stats.get(name, 0)
    return growth if growth >= 0 else None


def sparkline(values: Iterable[float | None], width: int, *, from_zero: bool = True) -> str:
    """The last `width` values as bars to the greatest, from 0 or from the least; a gap for None."""
    visible = list(values)[-width:]
    numbers = [value for value in visible if value is not None] or [0.0]
    low = 0.0 if from_zero else min(numbers)
    height = max(numbers) - low
    return "".join(
        " " if value is None else _BARS[round((value - low) / height * (len(_BARS) - 1)) if height > 0 else 0]
        for value in visible
    )


def number(value: Any, digits: int = 1) -> str:
    """The value for a person: `1,234.5`, or `-` for None."""
    return "-" if value is None else f"{value:,.{digits}f}"
