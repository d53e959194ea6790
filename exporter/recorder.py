"""What adds one finished exchange to every family: it knows where the values of its label set lie."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING

from exporter.cells import Cell, Distribution
from exporter.slots import SLOT, WINDOW

if TYPE_CHECKING:
    from exporter.exchange import Exchange
    from exporter.instruments import Instruments

# Sizes span from an empty answer to an upload: one bucket a power of ten is what a person asks for.
SIZE_BUCKETS = (1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)

Recorder = Callable[["Exchange", float], None]
"""Adds one finished exchange, whose end on the monotonic clock is given in seconds, to every family."""


def parents_recorder(lock: threading.Lock, duration: Distribution, total: Cell) -> Recorder:
    """A recorder of prometheus_flask_exporter's families alone.

    Closures, and every addition written out: a method for each, on an object, took 1 µs more.
    """
    sums, sum_at, buckets, bounds = duration
    totals, total_at = total.doubles, total.index

    def record(exchange: Exchange, now: float) -> None:  # noqa: ARG001  a Recorder
        amount = exchange.duration
        with lock:
            sums[sum_at] += amount
            doubles, index = buckets[bisect_left(bounds, amount)]
            doubles[index] += 1.0
            totals[total_at] += 1.0

    return record


def full_recorder(
    instruments: Instruments,
    duration: Distribution,
    total: Cell,
    request_size: Distribution,
    response_size: Distribution,
    slot: int,
) -> Recorder:
    """A recorder of all families; `slot` is where the group's one-second slots begin."""
    lock = instruments.lock
    slots = instruments.slots
    worker = instruments.worker
    sums, sum_at, buckets, bounds = duration
    totals, total_at = total.doubles, total.index
    in_progress, in_progress_at, busy, busy_at = instruments.gauges
    requests, request_at, request_buckets, _ = request_size
    responses, response_at, response_buckets, _ = response_size
    smallest, smallest_at = request_buckets[0]

    def record(exchange: Exchange, now: float) -> None:
        amount = exchange.duration
        length = exchange.environ.get("CONTENT_LENGTH")
        if length and length.isdecimal():
            # A length is the client's word; more than a terabyte would only blur the sum.
            exchange.request_size = min(int(length[:16]), 1 << 40)
        size = exchange.response_size
        second = int(now)
        with lock:
            in_progress[in_progress_at] -= 1.0
            busy[busy_at] -= 1.0
            sums[sum_at] += amount
            doubles, index = buckets[bisect_left(bounds, amount)]
            doubles[index] += 1.0
            totals[total_at] += 1.0
            responses[response_at] += size
            doubles, index = response_buckets[bisect_left(SIZE_BUCKETS, size)]
            doubles[index] += 1.0
            if exchange.request_size:
                size = exchange.request_size
                requests[request_at] += size
                doubles, index = request_buckets[bisect_left(SIZE_BUCKETS, size)]
                doubles[index] += 1.0
            else:
                smallest[smallest_at] += 1.0
            doubles = slots.view
            index = slot + SLOT * (second % WINDOW)
            fresh = doubles[index] != second
            if fresh:
                # The second comes last: until then readers see a slot of a minute ago.
                doubles[index + 1] = doubles[index + 2] = amount
                doubles[index + 3] = 1.0
                doubles[index + 4] = 0.0
                doubles[index] = second
            else:
                doubles[index + 3] += 1.0
                if amount > doubles[index + 2]:
                    doubles[index + 2] = amount
                elif amount < doubles[index + 1]:
                    doubles[index + 1] = amount
            if exchange.failed:
                doubles[index + 4] += 1.0
        if fresh:
            worker.tick(second)

    return record
