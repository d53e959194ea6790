"""Samples: the spots at which one request has been seen, and how long it was there."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.observation import Delay
from exporter.worker.spots import BLOCKED, NOWHERE, SEVERAL, Spot

_LIMIT = 64
_RESOLUTION = 10
"""Parts of a request's time that are told apart, beyond the first ticks."""
_SHARES = 5


class Samples:
    """The time of one request by spot.

    A sample takes all of the time since the one before it, so that a thread that could not be looked at for
    long, because one call held the interpreter, is found where it was. Written by the sampler's thread alone.
    """

    __slots__ = ("_last", "_seconds", "_spot", "_started")

    def __init__(self, started: float) -> None:
        """`started`: when the request came in, in seconds of the monotonic clock as all times here."""
        self._started = self._last = started
        self._seconds: dict[Spot, float] = {}
        self._spot = NOWHERE

    def is_due(self, now: float) -> bool:
        """Whether a sample is missing: what has taken long is looked at less often, or it would be dear."""
        return now - self._last >= (now - self._started) / _RESOLUTION

    def add(self, spot: Spot, now: float) -> None:
        """The request stands here now."""
        seconds = self._seconds
        if spot not in seconds and len(seconds) >= _LIMIT:
            spot = SEVERAL
        self._spot = spot
        seconds[spot] = seconds.get(spot, 0.0) + now - self._last
        self._last = now

    def total(self, duration: float) -> dict[Spot, float]:
        """Seconds by spot, which sum up to the duration: the last spot has what came after it."""
        spot, seconds = self._spot, self._seconds.copy()
        seconds[spot] = seconds.get(spot, 0.0) + duration - sum(seconds.values())
        return seconds


def unseen(duration: float, blocked: bool) -> dict[Spot, float]:
    """The same of a request without samples; `blocked`: while the interpreter was."""
    return {BLOCKED if blocked else NOWHERE: duration}


def delay(seconds: Mapping[Spot, float], view: str) -> Delay:
    """The place of most of these seconds; those at no place of the application's own are its `view`'s."""
    places: dict[str, float] = {}
    for spot, amount in seconds.items():
        where = spot.where or view
        places[where] = places.get(where, 0.0) + amount
    duration = sum(places.values())
    order = sorted(places, key=lambda where: -places[where])
    spot = max((spot for spot in seconds if (spot.where or view) == order[0]), key=seconds.__getitem__)
    shares = {where: round(places[where] / duration, 4) for where in order[:_SHARES]}
    return Delay(order[0], spot.line, spot.library, spot.call, shares)
