"""Samples: the spots of one request, and its seconds at each of them."""

from __future__ import annotations

from collections.abc import Mapping

from exporter.observation import Delay
from exporter.worker.spots import BLOCKED, NOWHERE, SEVERAL, Spot

_LIMIT = 64
_RESOLUTION = 10
"""The next sample of a request is due after this part of its age: a tenth."""
_SHARES = 5


class Samples:
    """The seconds of one request by spot.

    A sample gets all of the time since the previous one. So the time of a call that held the interpreter, and
    kept the sampler out, goes to the spot of that call. Only the sampler's thread writes here.
    """

    __slots__ = ("_last", "_seconds", "_spot", "_start")

    def __init__(self, start: float) -> None:
        """`start` is that of the request; all times here are seconds of the monotonic clock."""
        self._start = self._last = start
        self._seconds: dict[Spot, float] = {}
        self._spot = NOWHERE

    def is_due(self, now: float) -> bool:
        """Whether a sample is due; the older a request, the rarer its samples, which limits their cost."""
        return now - self._last >= (now - self._start) / _RESOLUTION

    def add(self, spot: Spot, now: float) -> None:
        """Add a sample: the request is at this spot now."""
        seconds = self._seconds
        if spot not in seconds and len(seconds) >= _LIMIT:
            spot = SEVERAL
        self._spot = spot
        seconds[spot] = seconds.get(spot, 0.0) + now - self._last
        self._last = now

    def total(self, duration: float) -> dict[Spot, float]:
        """The seconds by spot, with the sum `duration`: the last spot gets the time after the last sample."""
        spot, seconds = self._spot, self._seconds.copy()
        seconds[spot] = seconds.get(spot, 0.0) + duration - sum(seconds.values())
        return seconds


def unsampled_seconds(duration: float, is_blocked: bool) -> dict[Spot, float]:
    """The seconds of a request without samples; it `is_blocked` if another thread held the interpreter."""
    return {BLOCKED if is_blocked else NOWHERE: duration}


def delay(seconds: Mapping[Spot, float], view: str) -> Delay:
    """The delay with the place of most seconds; `view` gets those outside of the application's own code."""
    places: dict[str, float] = {}
    for spot, amount in seconds.items():
        where = spot.where or view
        places[where] = places.get(where, 0.0) + amount
    duration = sum(places.values())
    order = sorted(places, key=lambda where: -places[where])
    spot = max((spot for spot in seconds if (spot.where or view) == order[0]), key=seconds.__getitem__)
    shares = {where: round(places[where] / duration, 4) for where in order[:_SHARES]}
    return Delay(order[0], spot.line, spot.library, spot.call, shares)
