"""Figures for people, from the recorded requests and the merged counters, as `/monitoring` serves them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from math import floor
from typing import Any

from prometheus_client import Metric

from exporter.worker.requests import Request
from exporter.worker.slowest import SlowRequest

_TOP = 10
_PERCENTILES = (50, 95, 99)
_FIELDS = frozenset(field.name for field in fields(Request))


@dataclass(frozen=True, slots=True)
class Totals:
    """Requests since the service started, over all workers living and dead, by their labels.

    An error is what error ratios count: a status of 500 or more, or an exception under a better status.
    """

    methods: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    error_types: Counter[str] = field(default_factory=Counter)
    groups: dict[str, Counter[str]] = field(default_factory=dict)  # statuses of each
    group_errors: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """All requests."""
        return self.statuses.total()

    @property
    def errors(self) -> int:
        """All errors."""
        return self.group_errors.total()

    @classmethod
    def of(cls, families: Iterable[Metric], prefix: str, group: str) -> Totals:
        """The totals of the families `<prefix>http_request_*`, which are grouped by the label `group`."""
        totals = cls()
        for sample in (sample for family in families for sample in family.samples):
            count, labels = round(sample.value), sample.labels
            if not count:
                continue
            if sample.name == f"{prefix}http_request_total":
                totals.methods[labels["method"]] += count
                totals.statuses[labels["status"]] += count
            elif sample.name == f"{prefix}http_request_duration_seconds_count":
                totals.groups.setdefault(labels[group], Counter())[labels["status"]] += count
                if labels["status"] >= "5":
                    totals.group_errors[labels[group]] += count
            elif sample.name == f"{prefix}http_request_errors_total":
                totals.error_types[labels["error_type"]] += count
                if labels["status"] < "4":
                    totals.group_errors[labels[group]] += count
        return totals


def stats(totals: Totals, requests: Sequence[Request], uptime: float, last_minute: int) -> dict[str, Any]:
    """The body of `/monitoring/stats`; `uptime` in seconds, `last_minute` the number of recent requests."""
    return {
        "uptime_seconds": round(uptime, 3),
        "total_requests": totals.requests,
        "total_errors": totals.errors,
        "requests_per_second": round(last_minute / max(min(uptime, 60.0), 1.0), 3),
        "error_rate": _ratio(totals.errors, totals.requests),
        **_times(requests),
        "status_codes": _by_name(totals.statuses),
        "top_paths": _top(Counter(request.path for request in requests)),
        "top_methods": _top(totals.methods),
        "top_endpoints": _top(Counter({name: codes.total() for name, codes in totals.groups.items()})),
        "error_types": dict(totals.error_types.most_common()),
        "recent_request_count": len(requests),
    }


def endpoints(totals: Totals, requests: Sequence[Request], group: str) -> dict[str, dict[str, Any]]:
    """The body of `/monitoring/endpoints`: counts since the start, times over the recorded requests.

    Where the families are grouped by something that is not recorded, the counts are of `requests` too.
    """
    attribute = group if group in _FIELDS else "url_rule"
    groups: dict[str, list[Request]] = {}
    for request in requests:
        groups.setdefault(str(getattr(request, attribute)), []).append(request)
    if attribute == group:
        codes, errors = totals.groups, totals.group_errors
    else:
        codes = {
            name: Counter(str(request.status) for request in members) for name, members in groups.items()
        }
        errors = Counter(
            {name: sum(request.failed for request in members) for name, members in groups.items()}
        )
    return {
        name: {
            "request_count": codes[name].total(),
            **_times(groups.get(name, ())),
            "error_count": errors[name],
            "error_rate": _ratio(errors[name], codes[name].total()),
            "status_codes": _by_name(codes[name]),
            "recent_request_count": len(groups.get(name, ())),
        }
        for name in sorted(codes, key=lambda name: (-codes[name].total(), name))
    }


def element(request: Request) -> dict[str, Any]:
    """One element of the body of `/monitoring/requests`."""
    return {
        **_moment(request.start_time),
        "path": request.path,
        "method": request.method,
        "url_rule": request.url_rule,
        "endpoint": request.endpoint or None,
        "status_code": request.status,
        "duration_ms": _shown(request.duration * 1000),
        "error_occurred": request.failed,
        "error_type": request.error_type or None,
        "request_bytes": request.request_size,
        "response_bytes": request.response_size,
        "request_id": request.request_id,
        "trace_id": request.trace_id or None,
        "disconnected": request.disconnected,
        "where": request.where or None,
        "line": request.line or None,
        "library": request.library or None,
        "call": request.call or None,
    }


def slow_element(request: SlowRequest) -> dict[str, Any]:
    """One element of a list in the body of `/monitoring/slow`."""
    return {
        **_moment(request.start_time),
        "path": request.path,
        "method": request.method,
        "endpoint": request.endpoint or None,
        "status_code": request.status,
        "duration_ms": _shown(request.duration * 1000),
        "where": request.where,
        "line": request.line or None,
        "library": request.library or None,
        "call": request.call or None,
        "shares": dict(request.shares),
        "request_id": request.request_id,
        "trace_id": request.trace_id or None,
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """Interpolate between the closest ranks of ascending values, as numpy.percentile, to the last bit.

    Source: Hyndman and Fan, "Sample Quantiles in Statistical Packages" (1996), definition 7.
    """
    rank = (len(values) - 1) * (percent / 100)
    low = floor(rank)
    below, above = values[low], values[min(low + 1, len(values) - 1)]
    weight = rank - low
    # From the nearer end, as numpy does: exact at both.
    return below + (above - below) * weight if weight < 0.5 else above - (above - below) * (1 - weight)


def _moment(seconds: float) -> dict[str, Any]:
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return {"timestamp": seconds, "datetime": moment.isoformat(timespec="microseconds")}


def _times(requests: Sequence[Request]) -> dict[str, Any]:
    times = sorted(request.duration * 1000 for request in requests)
    return {
        "average_response_time_ms": _shown(sum(times) / len(times)) if times else None,
        "min_response_time_ms": _shown(times[0]) if times else None,
        "max_response_time_ms": _shown(times[-1]) if times else None,
        "response_time_percentiles": {
            f"p{percent}": _shown(percentile(times, percent)) if times else None for percent in _PERCENTILES
        },
    }


def _shown(milliseconds: float) -> float:
    """To the nanosecond, which is more than the clock knows."""
    return round(milliseconds, 6)


def _ratio(part: int, whole: int) -> float:
    return round(part / whole, 9) if whole else 0.0


def _top(counts: Counter[str]) -> dict[str, int]:
    return dict(counts.most_common(_TOP))


def _by_name(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))
