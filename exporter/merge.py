"""Merge: the values of all workers' files and the archive become one value a series.

What a key means is worked out once. Each file's values are then unpacked in one call, brought into the order
of all series by another, and summed column by column: while the series are the same, no Python code runs for
each of them before the buckets are accumulated.
"""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, repeat
from operator import itemgetter
from typing import NamedTuple

from exporter import workerfile
from exporter.archive import Archive
from exporter.families import Family, Group
from exporter.series import Labels, Series, parse

Merged = list[tuple[Family, list[float]]]
Row = tuple[float, ...]

_ADDED = ("counter", "histogram", "summary")

# How old (ns) a file's time must be to show a later change: the kernel's clock for it ticks every few ms.
_SETTLED = 50_000_000


class Entry:
    """A series that is known by its identity, which is cheaper to look up than its labels."""

    __slots__ = ("documentation", "series")

    def __init__(self, series: Series, documentation: str) -> None:
        self.series = series
        self.documentation = documentation


class Layout:
    """Which series lie where in a file; holds for as long as the file's keys are the same."""

    __slots__ = ("_getters", "_heads", "_plan", "_values", "added", "entries", "heads")

    def __init__(self, heads: Sequence[bytes], entries: Sequence[Entry]) -> None:
        self.heads = tuple(heads)
        self.entries = tuple(entries)
        self.added = not entries or entries[0].series.kind in _ADDED
        self._plan: Plan | None = None
        self._getters: list[Callable[[Row], Row]] = []
        value = "d8x" if self.added else "dd"
        lengths = (len(head) + workerfile.padding(len(head) - 4) for head in heads)
        self._heads: struct.Struct | None = None
        self._values = struct.Struct("=8x" + "".join(f"{length}x{value}" for length in lengths))

    @property
    def size(self) -> int:
        """Bytes that such a file uses."""
        return self._values.size

    def fits(self, data: bytes) -> bool:
        """Whether the keys of this content are those of the layout."""
        if self._heads is None:
            fields = ((len(head), workerfile.padding(len(head) - 4) + 16) for head in self.heads)
            self._heads = struct.Struct("=8x" + "".join(f"{length}s{rest}x" for length, rest in fields))
        return len(data) == self.size and self._heads.unpack(data) == self.heads

    def values(self, data: bytes) -> Row:
        """The values of a content that fits; for gauges value, timestamp, value, timestamp, …"""
        return self._values.unpack(data)

    def keys(self) -> list[str]:
        """The keys as text."""
        return [head[4:].decode() for head in self.heads]

    def arranged(self, plan: Plan, row: Row) -> Iterable[Row]:
        """The row in the order of the plan; another one where a second key means the same series."""
        if self._plan is not plan:
            self._plan, self._getters = plan, plan.getters(self.entries)
        padded = (*row, 0.0)
        return [get(padded) for get in self._getters]


class Content(NamedTuple):
    """What a file, or the archive, said at one time: rows of values for its layout's entries."""

    layout: Layout
    rows: Sequence[Row]
    pid: str
    living: bool

    def pairs(self) -> Iterable[tuple[float, float]]:
        """The value and timestamp of each entry, for a worker file's content."""
        (row,) = self.rows
        return zip(row, repeat(0.0)) if self.layout.added else zip(row[::2], row[1::2], strict=True)


class Plan:
    """The order of all series that are added up, and the families that they form."""

    def __init__(self, entries: Iterable[Entry], before: Plan | None = None) -> None:
        """What is the same as in the plan `before` stays the same object."""
        members: dict[tuple[str, str], dict[Labels, list[Entry]]] = {}
        for entry in entries:
            series = entry.series
            members.setdefault((series.kind, series.family), {}).setdefault(series.labels, []).append(entry)
        self.entries: dict[Entry, int] = {}
        self._groups: dict[tuple[Entry, ...], Group] = {}
        self._families: dict[tuple[str, str], Family] = {}
        self._spans: list[tuple[Family, int, int, list[tuple[int, int, int]]]] = []
        for key, by_labels in members.items():
            start, spans, groups = len(self.entries), [], []
            for unordered in by_labels.values():
                ordered = tuple(sorted(unordered, key=_position))
                group = before._groups.get(ordered) if before else None
                self._groups[ordered] = group = group or Group.of([entry.series for entry in ordered])
                groups.append(group)
                first = len(self.entries)
                self.entries.update(zip(ordered, range(first, first + len(ordered)), strict=True))
                buckets = sum(entry.series.le is not None for entry in ordered)
                spans.append((first, first + buckets, len(self.entries)))
            known = before._families.get(key) if before else None
            family = self._families[key] = _family(key, ordered[0].documentation, groups, known)
            self._spans.append((family, start, len(self.entries), spans if key[0] == "histogram" else []))

    def getters(self, entries: Sequence[Entry]) -> list[Callable[[Row], Row]]:
        """Functions that bring a row of these entries, with 0.0 appended, into the order of the plan."""
        absent = len(entries)
        layers: list[list[int]] = []
        for at, entry in enumerate(entries):
            column = self.entries[entry]
            for layer in layers:
                if layer[column] == absent:
                    break
            else:
                # Two more columns than there are series: itemgetter returns no tuple for fewer than two.
                layer = [absent] * (len(self.entries) + 2)
                layers.append(layer)
            layer[column] = at
        return [itemgetter(*layer) for layer in layers]

    def merged(self, rows: Sequence[Row]) -> Merged:
        """The values of each family, one for each line of its groups."""
        totals = _sums(rows) if rows else []
        merged = []
        for family, start, stop, spans in self._spans:
            if not spans:
                merged.append((family, totals[start:stop]))
                continue
            values: list[float] = []
            for first, end, last in spans:
                if first < end:
                    values += accumulate(totals[first:end])
                    values.append(values[-1])
                values += totals[end:last]
            merged.append((family, values))
        return merged


def _position(entry: Entry) -> tuple[bool, float, str]:
    series = entry.series
    return series.le is None, series.le or 0.0, series.suffix


def _family(key: tuple[str, str], documentation: str, groups: list[Group], known: Family | None) -> Family:
    if known is not None and known.groups == tuple(groups):
        return known
    return Family(key[1], documentation, key[0], groups)


def _sums(rows: Sequence[Row]) -> list[float]:
    try:
        return [*map(math.fsum, zip(*rows, strict=True))]
    except (OverflowError, ValueError):  # beyond the largest float, or +Inf and -Inf
        return [*map(sum, zip(*rows, strict=True))]


class Merge:
    """Merges one directory again and again, and keeps between scrapes what has not changed."""

    def __init__(self) -> None:
        self._layouts: dict[tuple[int, int], tuple[Layout, int]] = {}
        self._meanings: dict[str, dict[bytes, tuple[bytes, Entry]]] = {}
        self._entries: dict[Series, Entry] = {}
        self._planned: tuple[Layout, ...] = ()
        self._plan = Plan(())
        self._gauge_groups: dict[Series, Group] = {}
        self._gauge_families: dict[tuple[str, str], Family] = {}
        self.crowded = False
        """Whether most of what is kept is of series that are gone: time to begin anew."""

    def expected(self, stat: os.stat_result) -> int:
        """The likely size of a file's content, in bytes."""
        known = self._layouts.get((stat.st_dev, stat.st_ino))
        return known[0].size if known else 0

    def content(self, stem: str, pid: str, living: bool, stat: os.stat_result, data: bytes) -> Content:
        """The content of a worker file; raises CorruptFileError.

        Memory-mapped writing does not touch the time of a file on tmpfs, any other change does: while it is
        the same, so are the keys that were seen last.
        """
        key = stat.st_dev, stat.st_ino
        layout, verified = self._layouts.get(key, (None, 0))
        if (
            layout is None
            or len(data) != layout.size
            or (stat.st_mtime_ns != verified and not layout.fits(data))
        ):
            layout = self.layout(stem, workerfile.heads(data))
        settled = stat.st_mtime_ns if time.time_ns() - stat.st_mtime_ns > _SETTLED else 0
        self._layouts[key] = layout, settled
        return Content(layout, [layout.values(data)], pid, living)

    def layout(self, stem: str, heads: Iterable[bytes]) -> Layout:
        """The layout of a file of these keys; raises CorruptFileError."""
        meanings = self._meanings.setdefault(stem, {})
        found = []
        for head in heads:
            meaning = meanings.get(head)
            if meaning is None:
                series, documentation = parse(stem, head[4:])
                entry = self._entries.setdefault(series, Entry(series, documentation))
                meaning = meanings[head] = head, entry
            found.append(meaning)
        return Layout([head for head, _ in found], [entry for _, entry in found])

    def archived(self, archive: Archive) -> list[Content]:
        """The contents of the archive; raises CorruptFileError."""
        contents = []
        for stem, series in archive.series.items():
            encoded = [key.encode("utf-8", "surrogatepass") for key in series]
            layout = self.layout(stem, [struct.pack("=i", len(key)) + key for key in encoded])
            if stem == "gauge_mostrecent":
                rows = [tuple(number for pair in series.values() for number in pair)]
            else:
                depth = max(map(len, series.values()), default=0) or 1
                columns = [tuple(n[i] if i < len(n) else 0.0 for n in series.values()) for i in range(depth)]
                rows = (
                    columns if layout.added else [tuple(x for v in row for x in (v, 0.0)) for row in columns]
                )
            contents.append(Content(layout, rows, "", living=False))
        return contents

    def __call__(self, contents: Sequence[Content]) -> Merged:
        """The merged families, sorted by name; `all` gauges have the label `pid`."""
        added = [content for content in contents if content.layout.added]
        layouts = tuple(content.layout for content in added)
        if layouts != self._planned:
            entries = dict.fromkeys(entry for layout in layouts for entry in layout.entries)
            if entries.keys() != self._plan.entries.keys():
                self._plan = Plan(entries, self._plan)
            self._planned = layouts
            gauges = sum(len(content.layout.entries) for content in contents if not content.layout.added)
            self.crowded = len(self._entries) > 2 * (len(entries) + gauges) + 1000
        plan = self._plan
        rows = [
            arranged
            for layout, rows, _, _ in added
            for row in rows
            for arranged in layout.arranged(plan, row)
        ]
        merged = plan.merged(rows) + self._gauges([one for one in contents if not one.layout.added])
        merged.sort(key=lambda item: item[0].name)
        return merged

    def forget_others(self, contents: Iterable[Content]) -> None:
        """Drop the layouts of files other than these."""
        current = {content.layout for content in contents}
        self._layouts = {key: known for key, known in self._layouts.items() if known[0] in current}

    def _gauges(self, contents: Sequence[Content]) -> Merged:
        values, documentation = _gauge_values(contents)
        members: dict[tuple[str, str], dict[Series, float]] = {}
        for series, value in values.items():
            members.setdefault((series.kind, series.family), {}).setdefault(series._replace(mode=""), value)
        groups, families = self._gauge_groups, self._gauge_families
        self._gauge_groups, self._gauge_families = {}, {}
        merged = []
        for key, by_series in members.items():
            for series in by_series:
                self._gauge_groups[series] = groups.get(series) or Group.of((series,))
            formed = [self._gauge_groups[series] for series in by_series]
            family = self._gauge_families[key] = _family(key, documentation[key], formed, families.get(key))
            merged.append((family, [*by_series.values()]))
        return merged


def _gauge_values(contents: Iterable[Content]) -> tuple[dict[Series, float], dict[tuple[str, str], str]]:
    """The value of each gauge by its multiprocess mode, and the help texts of their families."""
    found: dict[Series, list[tuple[float, float]]] = {}
    documentation: dict[tuple[str, str], str] = {}
    for layout, rows, pid, living in contents:
        for at, entry in enumerate(layout.entries):
            series = entry.series
            if not living and series.mode.startswith(("live", "all")):
                continue
            if series.mode.endswith("all"):
                series = series._replace(labels=tuple(sorted({**dict(series.labels), "pid": pid}.items())))
            documentation.setdefault((series.kind, series.family), entry.documentation)
            found.setdefault(series, []).extend((row[2 * at], row[2 * at + 1]) for row in rows)
    merged = {}
    for series, pairs in found.items():
        numbers = [value for value, _ in pairs]
        mode = series.mode.removeprefix("live")
        if mode == "sum":
            merged[series] = _sums([(number,) for number in numbers])[0]
        elif mode == "mostrecent":
            value, timestamp = max(pairs, key=itemgetter(1))
            if timestamp > 0.0:
                merged[series] = value
        else:
            merged[series] = min(numbers) if mode == "min" else max(numbers) if mode == "max" else numbers[-1]
    return merged, documentation
