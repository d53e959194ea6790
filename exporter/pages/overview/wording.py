"""Figures and conditions in words, for people."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.pages.health import Condition
from exporter.settings import Settings


def printable(value: object) -> object:
    """Any text of a client without what a browser cannot show, or would show in another order."""
    if not isinstance(value, str) or hasattr(value, "__html__") or value.isprintable():
        return value
    return "".join(
        character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}"
        for character in value
    )


def percent(ratio: float | None) -> str:
    """A ratio: `0.6 %`."""
    return "-" if ratio is None else f"{ratio * 100:.1f} %"


def milliseconds(value: float | None) -> str:
    """Milliseconds with three digits that count, as seconds from 1 s on: `0.42 ms`, `25.1 ms`, `1.25 s`."""
    if value is None:
        return "-"
    if value >= 1000:
        return f"{value / 1000:,.2f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.1f} ms" if value >= 10 else f"{value:.2f} ms"


def span(seconds: float) -> str:
    """A time from then to now with its two greatest units: `0.3 s`, `42 s`, `2 min 5 s`, `3 d 4 h`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    parts, rest = [], int(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def clock(moment: str) -> str:
    """The time of day in an ISO time."""
    return moment[11:19]


def day(moment: str) -> str:
    """The day and the time in an ISO time."""
    return f"{moment[:10]} {moment[11:19]}"


def condition_in_words(condition: Condition, settings: Settings) -> str:
    """The reason for the condition of a service."""
    if condition.status == "unhealthy":
        return " ".join(_failed_checks(condition))
    if not condition.requests:
        return "No request in the last minute."
    sentence = f"{percent(condition.error_rate)} of {condition.requests:,} requests in the last minute failed"
    if condition.requests < settings.health_min_requests:
        return f"{sentence}; fewer than {settings.health_min_requests} are too few to judge."
    if condition.status == "healthy":
        return f"{sentence}."
    limit = settings.health_degraded if condition.status == "degraded" else settings.health_warning
    return f"{sentence}; it is {condition.status} above {percent(limit)}."


def _failed_checks(condition: Condition) -> Iterator[str]:
    for name, check in condition.checks.items():
        if not check.up:
            yield f"The check “{name}” is down: {check.error}."
