"""Exemplars: the newest requests of the flight recorder, each put beside the sample that it counted in.

prometheus_client keeps none under several workers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.samples import Exemplar

from exporter.merge.families import Family

if TYPE_CHECKING:
    from exporter.worker.flightrecorder import Request


class Observed(NamedTuple):
    """An exemplar and its place: in a histogram the bucket of its value, in a counter the total."""

    family: str
    """The metric's name, a counter's without `_total`."""
    labels: Mapping[str, str]
    exemplar: Exemplar


def of_requests(
    requests: Iterable[Request], *, durations: str, errors: str, group: str
) -> Iterator[Observed]:
    """Exemplars of recorded requests for the histogram `durations` and the counter `errors`.

    `group` is the label that requests are grouped by.
    """
    for request in requests:
        ids = {"request_id": request.request_id, "trace_id": request.trace_id}
        ids = {name: value for name, value in ids.items() if value}
        labels = {"method": request.method, group: request.url_rule, "status": str(request.status)}
        end = request.start_time + request.duration
        yield Observed(durations, labels, Exemplar(ids, request.duration, end))
        if request.status >= 400 or request.error_type:
            yield Observed(errors, {**labels, "error_type": request.error_type}, Exemplar(ids, 1.0, end))


def by_family(observed: Iterable[Observed]) -> dict[str, list[Observed]]:
    """The exemplars of each family, in their order."""
    found: defaultdict[str, list[Observed]] = defaultdict(list)
    for one in observed:
        found[one.family].append(one)
    return found


def placed(family: Family, observed: Iterable[Observed]) -> dict[int, Exemplar]:
    """The first exemplar for each line of the family that has one; others have no place."""
    if "places" not in family.texts:
        places = {}
        first = 0
        for group in family.groups:
            bounds = [float(labels["le"]) for name, labels in group.lines if name == family.name + "_bucket"]
            places[frozenset(group.labels)] = first, bounds
            first += len(group.lines)
        family.texts["places"] = places
    found: dict[int, Exemplar] = {}
    for one in observed:
        first, bounds = family.texts["places"].get(frozenset(one.labels.items()), (None, ()))
        at = bisect_left(bounds, one.exemplar.value) if family.type == "histogram" else 0
        if first is not None and (at < len(bounds) or family.type == "counter"):
            found.setdefault(first + at, one.exemplar)
    return found
