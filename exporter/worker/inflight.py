"""In flight: how many requests the workers are answering, and for how long, counted at each scrape.

Counts and ages come from the rings of requests. So a worker that still sends to a slow client counts as busy,
and a process that serves no requests can read them too.
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

LABELS_SECONDS = 1.0
"""The age from which the oldest request has a rule and a worker as labels; younger ones would add series."""


class Tally(NamedTuple):
    """The number of requests in progress in one worker, and the oldest that waits for its answer."""

    worker: int
    """The number of the worker's ring."""
    prefix: str
    requests: int
    oldest: InFlight | None = None


def tally(worker: int, descriptor: int) -> Tally | None:
    """The tally of an open ring; None if its worker is dead, or the file is no such ring."""
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
    """The tally of these starts; `read` takes an offset in the ring and a number of bytes."""
    starts = array("d", data[: len(data) & -8])  # a truncated ring has fewer
    surplus = sum(int(number) for number in starts[:1] if 0 < number < 1e6)
    starts_and_slots = sorted((start, slot) for slot, start in enumerate(starts[1:], 1) if 0 < start < 1e11)
    for start, slot in starts_and_slots:
        request = InFlight.of(slot, start, read(header.first + RECORD * slot + HEAD_AT, head.size))
        if request is not None and not request.is_sending:
            return Tally(worker, header.prefix, len(starts_and_slots) + surplus, request)
    return Tally(worker, header.prefix, len(starts_and_slots) + surplus)


def tallies(directory: str) -> list[Tally]:
    """The tallies of all living workers. Raises OSError if the directory cannot be read."""
    workers = (tally(number, descriptor) for number, descriptor in ring.descriptors(directory, KIND))
    return [worker for worker in workers if worker is not None]


class WorkerRequest(NamedTuple):
    """A request in progress, and the worker that answers it."""

    worker: int
    """The number of the worker's ring."""
    pid: int
    request: InFlight
    thread: Any = None
    """The ident of the request's thread, or the greenlet, if it belongs to this process."""


def in_flight(directory: str, most: int) -> Iterator[WorkerRequest]:
    """The requests in progress of all living workers; raises OSError if the directory cannot be read.

    Rings with more than `most` records are left out.
    """
    for number, descriptor in ring.descriptors(directory, KIND):
        content = requests.content(descriptor, most)
        if content is not None and content.header.owner and ring.is_held(descriptor, content.header.owner):
            for request in requests.in_flight(content):
                yield WorkerRequest(number, content.header.owner, request)


Tallies = Callable[[], Iterable[Tally]]


class Busy(Collector):
    """The number of busy threads."""

    def __init__(self, tallies: Tallies, prefix: str = "flask_") -> None:
        self._tallies = tallies
        self._prefix = prefix

    def describe(self) -> Iterable[Metric]:
        """The family, without samples."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """The family with its current value."""
        family = self._family()
        family.add_metric([], sum(tally.requests for tally in self._tallies()))
        return [family]

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(
            f"{self._prefix}worker_threads_busy", "Threads that serve a request right now"
        )


class InProgress(Collector):
    """The number of requests in progress, and the age of the oldest that waits for its answer."""

    def __init__(
        self, tallies: Tallies, *prefixes: str, rule: Callable[[str, str], str] = lambda *_: ""
    ) -> None:
        """Without `prefixes`, those of the rings count; `rule` gives the rule of a method and a path."""
        self._tallies = tallies
        self._prefixes = prefixes
        self._rule = rule

    def describe(self) -> Iterable[Metric]:
        """The families, without samples."""
        return [family for prefix in self._prefixes for family in _in_progress(prefix)]

    def collect(self) -> Iterable[Metric]:
        """The families with their current values; all exporters of an application count the same requests."""
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
        """The age of the oldest request in seconds, with its rule and its worker from `LABELS_SECONDS` on."""
        candidates = [(tally.oldest, tally.worker) for tally in tallies if tally.oldest is not None]
        if not candidates:
            return 0.0, ("", "")
        request, worker = min(candidates, key=lambda candidate: candidate[0].started)
        age = max(perf_counter() - request.started, 0.0)
        return age, (self._rule(*request.route), str(worker)) if age >= LABELS_SECONDS else ("", "")


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
