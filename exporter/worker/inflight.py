"""In flight: how many requests the workers are answering, and for how long, counted at each scrape.

Counts and ages come from the rings, so that a worker that is blocked in sending to a slow client is busy, and
a process that serves nothing can tell them too.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator
from time import perf_counter
from typing import Any, NamedTuple

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from exporter.worker import requests, ring
from exporter.worker.requests import HEAD_AT, HEADER, KIND, RECORD, Header, InFlight, head

NAMED_SECONDS = 1.0
"""Age from which the oldest request has its rule and its worker in labels: all others would be series too."""


class Tally(NamedTuple):
    """How many requests one worker is answering, and which is the oldest that waits for its answer."""

    worker: int
    """The number of its ring."""
    prefix: str
    requests: int
    oldest: InFlight | None = None


def tally(worker: int, descriptor: int) -> Tally | None:
    """The tally of an open ring; None where its worker is dead, or it is none of ours."""
    header = Header.of(os.pread(descriptor, HEADER, 0))
    if header is None or not header.owner:
        return None
    data = os.pread(descriptor, 8 * header.records, HEADER)
    if data == bytes(len(data)):
        return Tally(worker, header.prefix, 0)
    if not ring.is_held(descriptor, header.owner):
        return None
    return count(worker, header, data, lambda at, size: os.pread(descriptor, size, at))


def count(worker: int, header: Header, data: bytes, read: Callable[[int, int], bytes]) -> Tally:
    """The tally of these starts; `read` gives so many bytes from somewhere in the ring."""
    starts = array("d", data[: len(data) & -8])  # cut short, it has fewer
    surplus = sum(int(number) for number in starts[:1] if 0 < number < 1e6)
    places = sorted((start, slot) for slot, start in enumerate(starts[1:], 1) if 0 < start < 1e11)
    for start, slot in places:
        request = InFlight.of(slot, start, read(header.first + RECORD * slot + HEAD_AT, head.size))
        if request is not None and not request.sending:
            return Tally(worker, header.prefix, len(places) + surplus, request)
    return Tally(worker, header.prefix, len(places) + surplus)


def tallies(directory: str) -> list[Tally]:
    """The tallies of all living workers. Raises OSError where the directory cannot be read."""
    workers = (tally(number, descriptor) for number, descriptor in ring.opened(directory, KIND))
    return [worker for worker in workers if worker is not None]


class Running(NamedTuple):
    """A request in progress, and who answers it."""

    worker: int
    """The number of its ring."""
    pid: int
    request: InFlight
    thread: Any = None
    """The ident of its thread, or its greenlet, where that is one of this process."""


def running(directory: str, most: int) -> Iterator[Running]:
    """The requests of all living workers; raises OSError where the directory cannot be read.

    Rings with more than `most` records are left out.
    """
    for number, descriptor in ring.opened(directory, KIND):
        content = requests.content(descriptor, most)
        if content is not None and content.header.owner and ring.is_held(descriptor, content.header.owner):
            for request in requests.in_flight(content):
                yield Running(number, content.header.owner, request)


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
    """The number of requests in progress, and the age of the oldest that waits for its answer."""

    def __init__(
        self, tallies: Tallies, *prefixes: str, rule: Callable[[str, str], str] = lambda *_: ""
    ) -> None:
        """Without prefixes, those of the rings have their families; `rule` is that of a method and a path."""
        self._tallies = tallies
        self._prefixes = prefixes
        self._rule = rule

    def describe(self) -> Iterable[Metric]:
        """The families, without samples."""
        return [family for prefix in self._prefixes for family in _in_progress(prefix)]

    def collect(self) -> Iterable[Metric]:
        """The families as they are now: several exporters of one application count the same requests."""
        tallies = list(self._tallies())
        requests = sum(tally.requests for tally in tallies)
        age, labels = self._oldest(tallies)
        families: list[Metric] = []
        for prefix in self._prefixes or sorted({tally.prefix for tally in tallies}):
            in_progress, oldest = _in_progress(prefix)
            in_progress.add_metric([], requests)
            oldest.add_metric(labels, age)
            families += [in_progress, oldest]
        return families

    def _oldest(self, tallies: list[Tally]) -> tuple[float, tuple[str, str]]:
        """Its age in seconds, with the rule and the worker once that is worth a series."""
        waiting = [(tally.oldest, tally.worker) for tally in tallies if tally.oldest is not None]
        if not waiting:
            return 0.0, ("", "")
        request, worker = min(waiting, key=lambda one: one[0].started)
        age = max(perf_counter() - request.started, 0.0)
        return age, (self._rule(*request.route), str(worker)) if age >= NAMED_SECONDS else ("", "")


def _busy() -> GaugeMetricFamily:
    return GaugeMetricFamily("flask_worker_threads_busy", "Threads that serve a request right now")


def _in_progress(prefix: str) -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
    return (
        GaugeMetricFamily(
            f"{prefix}http_requests_in_progress",
            "Requests that are being answered right now, until the server has sent all of the answer",
        ),
        GaugeMetricFamily(
            f"{prefix}http_request_oldest_seconds",
            "Age of the oldest request that waits for its answer; streams and websockets have theirs",
            labels=["url_rule", "worker"],
        ),
    )
