"""What adds one finished exchange to every family: it knows where the values of its label set lie."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING

from exporter.measure.cells import Cell, Distribution, Doubles
from exporter.worker.slots import SLOT, WINDOW

if TYPE_CHECKING:
    from exporter.measure.exchange import Exchange
    from exporter.measure.instruments import Instruments

# Sizes span from an empty answer to an upload: one bucket a power of ten is what a person asks for.
SIZE_BUCKETS = (1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)

Recorder = Callable[["Exchange", float], None]
"""Adds one finished exchange, whose end on the monotonic clock is given in seconds, to every family."""


def parents_recorder(lock: threading.Lock, duration: Distribution, total: Cell) -> Recorder:
    """A recorder of prometheus_flask_exporter's families alone.

    Closures, and every addition written out: a method for each, on an object, took 1 µs more. The lock is
    taken by hand: `with` costs 0.1 µs more.
    """
    acquire, release = lock.acquire, lock.release
    durations, sum_at, buckets_at, bounds = duration
    totals, total_at = total.doubles, total.index

    def record(exchange: Exchange, now: float) -> None:  # noqa: ARG001  a Recorder
        amount = exchange.duration
        acquire()
        try:
            durations[sum_at] += amount
            durations[buckets_at[bisect_left(bounds, amount)]] += 1.0
            totals[total_at] += 1.0
        finally:
            release()

    return record


def full_recorder(  # noqa: C901  two functions
    instruments: Instruments,
    duration: Distribution,
    total: Cell,
    request_size: Distribution,
    response_size: Distribution,
    slot: int,
) -> Recorder:
    """A recorder of all families; `slot` is where the group's one-second slots begin."""
    acquire, release = instruments.lock.acquire, instruments.lock.release
    slots = instruments.slots
    worker = instruments.worker
    durations, sum_at, buckets_at, bounds = duration
    totals, total_at = total.doubles, total.index
    in_progress, in_progress_at, busy, busy_at = instruments.gauges
    requests, request_at, request_buckets_at, _ = request_size
    responses, response_at, response_buckets_at, _ = response_size
    empty_at = request_buckets_at[0]
    # The slot of the current second, its end, and what lies within its minimum and maximum for sure:
    # recorders of other statuses and methods write the same slot.
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

    def record(exchange: Exchange, now: float) -> None:
        nonlocal low, high
        amount = exchange.duration
        if "CONTENT_LENGTH" in exchange.environ:
            exchange.request_size = announced_size(exchange.environ["CONTENT_LENGTH"])
        size = exchange.response_size
        fresh = now >= until
        acquire()
        try:
            in_progress[in_progress_at] -= 1.0
            busy[busy_at] -= 1.0
            durations[sum_at] += amount
            durations[buckets_at[bisect_left(bounds, amount)]] += 1.0
            totals[total_at] += 1.0
            responses[response_at] += size
            responses[response_buckets_at[bisect_left(SIZE_BUCKETS, size)]] += 1.0
            if exchange.request_size:
                size = exchange.request_size
                requests[request_at] += size
                requests[request_buckets_at[bisect_left(SIZE_BUCKETS, size)]] += 1.0
            else:
                requests[empty_at] += 1.0
            if fresh:
                begin_second(now, amount)
            doubles = slots.view
            doubles[count_at] += 1.0
            if amount > high:
                high = doubles[count_at - 1] = max(amount, doubles[count_at - 1])
            elif amount < low:
                low = doubles[count_at - 2] = min(amount, doubles[count_at - 2])
            if exchange.failed:
                doubles[count_at + 1] += 1.0
        finally:
            release()
        if fresh:
            worker.tick(int(now))

    return record


def announced_size(length: str) -> int:
    """Bytes: the client's word, of which more than a terabyte would only blur the sum; 0 for garbage."""
    return min(int(length[:16]), 1 << 40) if length.isdecimal() else 0


def counter_in_progress(
    lock: threading.Lock, in_progress: Doubles, in_progress_at: int, busy: Doubles, busy_at: int
) -> Callable[[float], None]:
    acquire, release = lock.acquire, lock.release

    def count(change: float) -> None:
        acquire()
        try:
            in_progress[in_progress_at] += change
            busy[busy_at] += change
        finally:
            release()

    return count
