"""The recorder: a function that adds one observation to every family of its label set."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable
from functools import cache
from math import inf

from exporter.buckets import BOUNDS
from exporter.measure.cells import Cell, Distribution, Doubles
from exporter.measure.metrics import SIZE_BUCKETS
from exporter.measure.native import NativeBuckets
from exporter.observation import Observation, Recorder
from exporter.worker.requests import COUNTED
from exporter.worker.slots import SLOT, WINDOW, Slots


def plain_recorder(lock: threading.Lock, duration: Distribution, total: Cell) -> Recorder:
    """A recorder of prometheus_flask_exporter's families alone.

    It is a closure with every addition in place, because the methods of an object took 1 µs more. It calls
    `acquire` and `release`, because `with` costs 0.1 µs more.
    """
    acquire, release = lock.acquire, lock.release
    durations, sum_at, buckets_at, bounds = duration
    totals, total_at = total.doubles, total.index

    def record(observation: Observation, now: float) -> None:  # noqa: ARG001  a Recorder
        amount = observation.duration
        acquire()
        try:
            durations[sum_at] += amount
            durations[buckets_at[bisect_left(bounds, amount)]] += 1.0
            totals[total_at] += 1.0
        finally:
            release()

    return record


def extended_recorder(
    lock: threading.Lock,
    slots: Slots,
    slot: int,
    tick: Callable[[int], None],
    duration: Distribution,
    total: Cell,
    request_size: Distribution,
    response_size: Distribution,
    native: NativeBuckets | None,
) -> Recorder:
    """A recorder of all families; `slot` is the index of the group's first one-second slot.

    The first observation of a second calls `tick` with that second.
    """
    acquire, release = lock.acquire, lock.release
    durations, sum_at = duration.doubles, duration.sum_at
    edges = _edges(duration.bounds) if native is not None else duration.bounds
    places = _Places(edges, duration, native)
    totals, total_at = total.doubles, total.index
    requests, request_at, request_buckets_at, _ = request_size
    responses, response_at, response_buckets_at, _ = response_size
    empty_at = request_buckets_at[0]
    # The slot of the current second, its end, and bounds that lie within its minimum and maximum: recorders
    # of other statuses and methods write into the same slot.
    count_at = 0
    until = low = high = 0.0

    def begin_second(now: float, amount: float) -> None:
        nonlocal count_at, until, low, high
        second = int(now)
        doubles = slots.view
        at = slot + SLOT * (second % WINDOW)
        count_at = at + 3
        until = second + 1.0
        if doubles[at] != second:
            doubles[at + 1] = doubles[at + 2] = amount
            doubles[at + 3] = doubles[at + 4] = 0.0
            # The second comes last: until then readers see a slot of a minute ago.
            doubles[at] = second
        low, high = doubles[at + 1], doubles[at + 2]

    def record(observation: Observation, now: float) -> None:
        nonlocal low, high
        amount = observation.duration
        environ = observation.environ
        announced = announced_size(environ["CONTENT_LENGTH"]) if "CONTENT_LENGTH" in environ else 0
        observation.request_size = announced
        size = observation.response_size
        fresh = now >= until
        acquire()
        try:
            # The calls come first: at each of them another thread may take over, and end the process. The
            # request is then in all of these counters and marked, or in none.
            bucket, natives, native_at = places[bisect_left(edges, amount)]
            responses_at = response_buckets_at[bisect_left(SIZE_BUCKETS, size)]
            if announced:
                requests_at = request_buckets_at[bisect_left(SIZE_BUCKETS, announced)]
                requests[request_at] += announced
            else:
                requests_at = empty_at
            requests[requests_at] += 1.0
            responses[response_at] += size
            responses[responses_at] += 1.0
            totals[total_at] += 1.0
            natives[native_at] += 1.0
            durations[sum_at] += amount
            durations[bucket] += 1.0
            observation.durations[observation.slot] = COUNTED
            if fresh:
                begin_second(now, amount)
            doubles = slots.view
            doubles[count_at] += 1.0
            if amount > high:
                high = doubles[count_at - 1] = max(amount, doubles[count_at - 1])
            elif amount < low:
                low = doubles[count_at - 2] = min(amount, doubles[count_at - 2])
            if observation.failed:
                doubles[count_at + 1] += 1.0
        finally:
            release()
        if fresh:
            tick(int(now))

    return record


@cache
def _edges(bounds: tuple[float, ...]) -> tuple[float, ...]:
    """These bounds and the native ones: what lies between two of them is in one bucket of each kind."""
    return tuple(sorted({*bounds, *BOUNDS}))


class _Places(dict[int, tuple[int, Doubles, int]]):
    """The places of the classic and of the native count of a duration, by its position among the edges.

    One search finds both.
    """

    def __init__(
        self, edges: tuple[float, ...], duration: Distribution, native: NativeBuckets | None
    ) -> None:
        self._edges = edges
        self._duration = duration
        self._native = native

    def __missing__(self, position: int) -> tuple[int, Doubles, int]:
        duration, native = self._duration, self._native
        edge = (*self._edges, inf)[position]
        bucket = duration.buckets_at[bisect_left(duration.bounds, edge)]
        if native is None:
            self[position] = place = bucket, [0.0], 0
            return place
        native_position = bisect_left(BOUNDS, edge)
        place = bucket, *native[native_position]
        if native_position in native:  # otherwise there is no room for it now
            self[position] = place
        return place


def announced_size(length: str) -> int:
    """The bytes that a client announces, at most a terabyte to keep the sum exact; 0 for no number."""
    return min(int(length[:16]), 1 << 40) if length.isdecimal() else 0
