"""Plans: which series lie where in each file, and the order in which all of them are added up.

A layout unpacks a file in one call, brings its values into the order of the plan with another, and the plan
sums column by column: while the series are the same, no Python code runs for each of them before the buckets
are accumulated.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, repeat
from operator import itemgetter
from typing import NamedTuple

from exporter.merge.families import Family, Group
from exporter.merge.format import padding
from exporter.merge.series import NATIVE, Entry, Labels

FamilyValues = list[tuple[Family, list[float]]]
Row = tuple[float, ...]

_SUM_KINDS = ("counter", "histogram", "summary", NATIVE)


class Layout:
    """Which series lie where in a file; holds for as long as the file's keys are the same."""

    __slots__ = ("_getters", "_heads", "_plan", "_values", "entries", "heads", "is_sum", "native")

    def __init__(self, heads: Sequence[bytes], entries: Sequence[Entry]) -> None:
        self.heads = tuple(heads)
        self.entries = tuple(entries)
        self.is_sum = not entries or entries[0].series.kind in _SUM_KINDS
        self.native = bool(entries) and entries[0].series.kind == NATIVE
        self._plan: Plan | None = None
        self._getters: list[Callable[[Row], Row]] = []
        value = "d8x" if self.is_sum else "dd"
        lengths = (len(head) + padding(len(head) - 4) for head in heads)
        self._heads: struct.Struct | None = None
        self._values = struct.Struct("=8x" + "".join(f"{length}x{value}" for length in lengths))

    @property
    def size(self) -> int:
        """Bytes that such a file uses."""
        return self._values.size

    def fits(self, data: bytes) -> bool:
        """Whether the keys of this content are those of the layout."""
        if self._heads is None:
            fields = ((len(head), padding(len(head) - 4) + 16) for head in self.heads)
            self._heads = struct.Struct("=8x" + "".join(f"{length}s{rest}x" for length, rest in fields))
        return len(data) == self.size and self._heads.unpack(data) == self.heads

    def values(self, data: bytes) -> Row:
        """The values of a content that fits; for gauges value, timestamp, value, timestamp, …"""
        return self._values.unpack(data)

    def note_creation(self, data: bytes) -> None:
        """Tell the series of a counter's or histogram's file when they began, by a content that fits."""
        if not self.is_sum:
            return
        lengths = (len(head) + padding(len(head) - 4) for head in self.heads)
        times = struct.unpack("=8x" + "".join(f"{length}x8xd" for length in lengths), data)
        for entry, time in zip(self.entries, times, strict=True):
            if 0.0 < time < entry.created:
                entry.created = time

    def keys(self) -> list[str]:
        """The keys as text."""
        return [head[4:].decode() for head in self.heads]

    def arrange(self, plan: Plan, row: Row) -> Iterable[Row]:
        """The row in the order of the plan, and another row where a second key means the same series."""
        if self._plan is not plan:
            self._plan, self._getters = plan, plan.getters(self.entries)
        row = (*row, 0.0)
        return [get(row) for get in self._getters]


class Content(NamedTuple):
    """A snapshot of one file, or of the archive: rows of values for its layout's entries."""

    layout: Layout
    rows: Sequence[Row]
    pid: str
    alive: bool

    def pairs(self) -> Iterable[tuple[float, float]]:
        """The value and timestamp of each entry, for a worker file's content."""
        (row,) = self.rows
        return zip(row, repeat(0.0)) if self.layout.is_sum else zip(row[::2], row[1::2], strict=True)


class Plan:
    """The order of all series that are added up, and the families that they form."""

    def __init__(self, entries: Iterable[Entry], before: Plan | None = None) -> None:
        """Unchanged groups and families of the plan `before` stay the same objects."""
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
            for siblings in by_labels.values():
                group_entries = tuple(sorted(siblings, key=_position))
                group = before._groups.get(group_entries) if before else None
                self._groups[group_entries] = group = group or Group.of(
                    [entry.series for entry in group_entries], group_entries
                )
                groups.append(group)
                first = len(self.entries)
                self.entries.update(zip(group_entries, range(first, first + len(group_entries)), strict=True))
                buckets = sum(entry.series.le is not None for entry in group_entries)
                spans.append((first, first + buckets, len(self.entries)))
            former = before._families.get(key) if before else None
            family = self._families[key] = family_of(key, group_entries[0].documentation, groups, former)
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

    def merge(self, rows: Sequence[Row]) -> FamilyValues:
        """The values of each family, one for each line of its groups."""
        totals = sums(rows) if rows else []
        result = []
        for family, start, stop, spans in self._spans:
            if not spans:
                result.append((family, totals[start:stop]))
                continue
            values: list[float] = []
            for first, end, last in spans:
                if first < end:
                    values += accumulate(totals[first:end])
                    values.append(values[-1])
                values += totals[end:last]
            result.append((family, values))
        return result


def _position(entry: Entry) -> tuple[bool, float, str]:
    series = entry.series
    return series.le is None, series.le or 0.0, series.suffix


def family_of(key: tuple[str, str], documentation: str, groups: list[Group], former: Family | None) -> Family:
    """The former family if it has these very groups, else a new one."""
    if former is not None and former.groups == tuple(groups):
        return former
    return Family(key[1], documentation, key[0], groups)


def sums(rows: Sequence[Row]) -> list[float]:
    """The sum of each column, rounded once."""
    try:
        return [*map(math.fsum, zip(*rows, strict=True))]
    except (OverflowError, ValueError):  # beyond the largest float, or +Inf and -Inf
        return [*map(sum, zip(*rows, strict=True))]
