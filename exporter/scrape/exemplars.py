"""Exemplars: the newest requests of the flight recorder, each beside the sample that counts it.

prometheus_client keeps none under several workers. Prometheus refuses an exemplar that is older than one that
it has of the same series, and warns of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client.samples import Exemplar

from exporter.merge.families import Family
from exporter.worker.requests import Request


class Observed(NamedTuple):
    """An exemplar and its place: in a histogram the bucket of its value, in a counter the total."""

    family: str
    """The metric's name, a counter's without `_total`."""
    labels: Mapping[str, str]
    exemplar: Exemplar


def of_requests(
    requests: Iterable[Request], *, durations: str, errors: str, group: str
) -> Iterator[Observed]:
    """Exemplars of recorded requests for the histogram `durations` and the counter `errors`, in their order.

    `group` is the label that requests are grouped by.
    """
    for request in requests:
        ids = {"request_id": request.request_id, "trace_id": request.trace_id}
        ids = {name: value for name, value in ids.items() if value}
        labels = {"method": request.method, group: request.url_rule, "status": str(request.status)}
        end = request.end_time
        yield Observed(durations, labels, Exemplar(ids, request.duration, end))
        if request.status >= 400 or request.error_type:
            yield Observed(errors, {**labels, "error_type": request.error_type}, Exemplar(ids, 1.0, end))


def by_family(observed: Iterable[Observed]) -> dict[str, list[Observed]]:
    """The exemplars of each family, in their order."""
    families: defaultdict[str, list[Observed]] = defaultdict(list)
    for observation in observed:
        families[observation.family].append(observation)
    return families


def by_line(family: Family, observed: Iterable[Observed]) -> dict[int, Exemplar]:
    """The first exemplar of each line of the family; without a line an exemplar is dropped."""
    exemplars: dict[int, Exemplar] = {}
    for observation in observed:
        place = family.places.get(frozenset(observation.labels.items()))
        if place is None:
            continue
        at = bisect_left(place.bounds, observation.exemplar.value) if family.type == "histogram" else 0
        if at < len(place.bounds) or family.type == "counter":
            exemplars.setdefault(place.line + at, observation.exemplar)
    return exemplars
