"""In flight: how many requests the workers are answering, and for how long, counted at each scrape.

Counts and ages come from the rings, so that a worker that is blocked in sending to a slow client is busy, and
a process that serves nothing can tell them too.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable
from typing import NamedTuple

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.worker import ring
from exporter.worker.requests import HEAD_AT, HEADER, KIND, RECORD, Header


class Tally(NamedTuple):
    """How many requests one worker is answering, and since when the oldest waits for its answer."""

    prefix: str
    requests: int
    oldest: float | None
    """Monotonic seconds; those whose answer has begun do not count."""


def tally(descriptor: int) -> Tally | None:
    """The tally of an open ring; None where its worker is dead, or it is none of ours."""
    header = Header.of(os.pread(descriptor, HEADER, 0))
    if header is None or not header.owner:
        return None
    data = os.pread(descriptor, 8 * header.records, HEADER)
    if data == bytes(len(data)):
        return Tally(header.prefix, 0, None)
    if not ring.is_held(descriptor, header.owner):
        return None
    return count(header, data, lambda at: os.pread(descriptor, 8, at))


def count(header: Header, data: bytes, read: Callable[[int], bytes]) -> Tally:
    """The tally of these starts; `read` gives eight bytes of the ring."""
    starts = array("d", data[: len(data) & -8])  # cut short, it has fewer
    surplus = sum(int(number) for number in starts[:1] if 0 < number < 1e6)
    places = sorted((start, slot) for slot, start in enumerate(starts[1:], 1) if 0 < start < 1e11)
    requests = len(places) + surplus
    for start, slot in places:
        if not any(read(header.first + RECORD * slot + HEAD_AT)):
            return Tally(header.prefix, requests, start)
    return Tally(header.prefix, requests, None)


def tallies(directory: str) -> list[Tally]:
    """The tallies of all living workers. Raises OSError where the directory cannot be read."""
    workers = (tally(descriptor) for _, descriptor in ring.opened(directory, KIND))
    return [worker for worker in workers if worker is not None]


Tallies = Callable[[], Iterable[Tally]]


class Busy(Collector):
    """The number of busy threads."""

    def __init__(self, tallies: Tallies) -> None:
        self._tallies = tallies

    def describe(self) -> Iterable[Metric]:
        """The family, without samples."""
        return [_busy()]

    def collect(self) -> Iterable[Metric]:
        """The family as it is now."""
        family = _busy()
        family.add_metric([], sum(tally.requests for tally in self._tallies()))
        return [family]


class InProgress(Collector):
    """The number of requests in progress."""

    def __init__(self, tallies: Tallies, *prefixes: str) -> None:
        """Without prefixes, those of the rings have a family each."""
        self._tallies = tallies
        self._prefixes = prefixes

    def describe(self) -> Iterable[Metric]:
        """The families, without samples."""
        return map(_in_progress, self._prefixes)

    def collect(self) -> Iterable[Metric]:
        """The families as they are now: several exporters of one application count the same requests."""
        tallies = list(self._tallies())
        families = list(map(_in_progress, self._prefixes or sorted({tally.prefix for tally in tallies})))
        for family in families:
            family.add_metric([], sum(tally.requests for tally in tallies))
        return families


def _busy() -> GaugeMetricFamily:
    return GaugeMetricFamily("flask_worker_threads_busy", "Threads that serve a request right now")


def _in_progress(prefix: str) -> GaugeMetricFamily:
    text = "Requests that are being answered right now, until the server has sent all of the answer"
    return GaugeMetricFamily(f"{prefix}http_requests_in_progress", text)
