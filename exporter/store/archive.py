"""The archive: what dead workers counted, added up exactly.

A sum of plain floats depends on their order, so folding one file could lower a total by one unit in the last
place, which Prometheus takes for a restart. The archive therefore keeps every total as a list of floats whose
exact sum it is (Shewchuk 1997, "Adaptive Precision Floating-Point Arithmetic"); a scrape rounds once, over
these and the living workers' values, with `math.fsum`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from exporter.merge.format import CorruptFileError

VERSION = 1

# `live*` and `all` gauges are absent: they vanish with their process.
_SUM_STEMS = ("counter", "histogram", "summary", "gauge_sum", "native")
STEMS = (*_SUM_STEMS, "gauge_min", "gauge_max", "gauge_mostrecent")


@dataclass(slots=True)
class Archive:
    """Totals by stem and key, and the names of the files that they already contain."""

    file_names: list[str] = field(default_factory=list)
    series: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    created: dict[str, dict[str, float]] = field(default_factory=dict)
    """When a series began, in seconds since the epoch, if that is known."""

    def fold(
        self,
        stem: str,
        keys: Sequence[str],
        pairs: Iterable[tuple[float, float]],
        created: Iterable[float] = (),
    ) -> None:
        """Add the values and timestamps of a dead worker's file, and the times at which its series began."""
        if stem not in STEMS:
            return
        series = self.series.setdefault(stem, {})
        for key, time in zip(keys, created, strict=False):
            self.begin(stem, key, time)
        for key, (value, timestamp) in zip(keys, pairs, strict=True):
            total = series.get(key)
            if stem in _SUM_STEMS:
                add(series.setdefault(key, []), value)
            elif stem == "gauge_mostrecent":
                if total is None or timestamp > total[1]:
                    series[key] = [value, timestamp]
            elif total is None or (value < total[0] if stem == "gauge_min" else value > total[0]):
                series[key] = [value]

    def begin(self, stem: str, key: str, time: float) -> None:
        """Note that a series began at this time, unless an earlier time is known."""
        if math.isfinite(time):
            times = self.created.setdefault(stem, {})
            times[key] = min(time, times.get(key, time))

    def dump(self) -> bytes:
        """The archive as a file's content."""
        content = {
            "version": VERSION,
            "folded": self.file_names,
            "series": self.series,
            "created": self.created,
        }
        return json.dumps(content).encode()


def load(content: bytes) -> Archive:
    """The archive of a file's content.

    Raises:
        CorruptFileError: it is not whole, or of another version.
    """
    try:
        document = json.loads(content)
        if document["version"] != VERSION:
            raise ValueError(f"version {document['version']!r} instead of {VERSION}")
        archive = Archive(document["folded"], document["series"], document.get("created", {}))
        for stem, series in archive.series.items():
            length = 2 if stem == "gauge_mostrecent" else None if stem in _SUM_STEMS else 1
            for numbers in series.values():
                if {*map(type, numbers)} - {float} or length not in (None, len(numbers)) or stem not in STEMS:
                    raise ValueError(f"{stem} {numbers!r}")
        times = [time for times in archive.created.values() for time in times.values()]
        if not all(isinstance(time, float) and math.isfinite(time) for time in times):
            raise ValueError("a time of creation is no number")
        if not all(isinstance(name, str) for name in archive.file_names):
            raise ValueError("folded names are no strings")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CorruptFileError(f"archive: {error}") from None
    return archive


def add(partials: list[float], value: float) -> None:
    """Add `value` to the exact sum that `partials` hold: floats of ascending size that do not overlap.

    A value that is not finite swallows the rest, as in any sum.
    """
    count = 0
    for partial in partials:
        if abs(value) < abs(partial):
            value, partial = partial, value
        high = value + partial
        low = partial - (high - value)
        if low:
            partials[count] = low
            count += 1
        value = high
    if math.isfinite(value):
        partials[count:] = [value] if value else []
    else:  # so was one of them, or the sum is beyond the largest float
        partials[:] = [value]
