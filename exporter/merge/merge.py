"""Merge: the values of all workers' files and the archive become one value a series.

Each key is parsed once; its meaning, and the layout of each file, are kept between scrapes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence

from exporter.merge.format import head, split
from exporter.merge.gauges import Gauges
from exporter.merge.plan import Content, FamilyValues, Layout, Plan
from exporter.merge.series import Entry, Series, parse

# A file's time shows a later change only if it is older than this (ns): its clock ticks every few ms.
_QUIET_NANOSECONDS = 50_000_000


class Merge:
    """Merges one directory again and again, and keeps between scrapes all that has not changed."""

    def __init__(self) -> None:
        self._layouts: dict[tuple[int, int], tuple[Layout, int]] = {}
        self._meanings: dict[str, dict[bytes, tuple[bytes, Entry]]] = {}
        self._entries: dict[Series, Entry] = {}
        self._sums = _Sums()
        self._native_sums = _Sums()
        self._gauges = Gauges()
        self.is_overgrown = False
        """Whether most entries belong to series that are gone, so that a new Merge saves memory."""

    def likely_size(self, stat: os.stat_result) -> int:
        """The likely size of a file's content, in bytes."""
        layout = self._layouts.get((stat.st_dev, stat.st_ino))
        return layout[0].size if layout else 0

    def content(self, stem: str, pid: str, alive: bool, stat: os.stat_result, data: bytes) -> Content:
        """The content of a worker file; raises CorruptFileError.

        On tmpfs, writing through memory does not touch a file's time, but any other change does: while the
        time is the same, the keys are too.
        """
        key = stat.st_dev, stat.st_ino
        layout, stamp = self._layouts.get(key, (None, 0))
        if (
            layout is None
            or len(data) != layout.size
            or (stat.st_mtime_ns != stamp and not layout.fits(data))
        ):
            layout = self.layout(stem, split(data))
            layout.note_creation(data)
        stamp = stat.st_mtime_ns if time.time_ns() - stat.st_mtime_ns > _QUIET_NANOSECONDS else 0
        self._layouts[key] = layout, stamp
        return Content(layout, [layout.values(data)], pid, alive)

    def layout(self, stem: str, heads: Iterable[bytes]) -> Layout:
        """The layout of a file of these keys; raises CorruptFileError."""
        meanings = self._meanings.setdefault(stem, {})
        entries = []
        for prefix in heads:
            meaning = meanings.get(prefix)
            if meaning is None:
                series, documentation = parse(stem, prefix[4:])
                entry = self._entries.setdefault(series, Entry(series, documentation))
                meaning = meanings[prefix] = prefix, entry
            entries.append(meaning)
        return Layout([prefix for prefix, _ in entries], [entry for _, entry in entries])

    def archive_contents(
        self,
        totals: Mapping[str, Mapping[str, Sequence[float]]],
        created: Mapping[str, Mapping[str, float]],
    ) -> list[Content]:
        """The contents of an archive, whose totals and creation times come by stem and key.

        Raises CorruptFileError.
        """
        contents = []
        for stem, series in totals.items():
            raw_keys = [key.encode("utf-8", "surrogatepass") for key in series]
            layout = self.layout(stem, [head(key) for key in raw_keys])
            times = created.get(stem, {})
            for key, entry in zip(series, layout.entries, strict=True) if times else ():
                entry.created = min(entry.created, times.get(key, entry.created))
            if stem == "gauge_mostrecent":
                rows = [tuple(number for pair in series.values() for number in pair)]
            else:
                depth = max(map(len, series.values()), default=0) or 1
                columns = [tuple(n[i] if i < len(n) else 0.0 for n in series.values()) for i in range(depth)]
                rows = (
                    columns if layout.is_sum else [tuple(x for v in row for x in (v, 0.0)) for row in columns]
                )
            contents.append(Content(layout, rows, "", alive=False))
        return contents

    def __call__(self, contents: Sequence[Content]) -> FamilyValues:
        """The merged families without native buckets, sorted by name; `all` gauges have the label `pid`."""
        result = self._sums(
            [content for content in contents if content.layout.is_sum and not content.layout.native]
        )
        gauges = [content for content in contents if not content.layout.is_sum]
        entries = len(self._sums.entries) + sum(
            len(content.layout.entries)
            for content in contents
            if content.layout.native or not content.layout.is_sum
        )
        self.is_overgrown = len(self._entries) > 2 * entries + 1000
        result += self._gauges(gauges)
        result.sort(key=lambda item: item[0].name)
        return result

    def natives(self, contents: Sequence[Content]) -> FamilyValues:
        """The families of native buckets; the name of a line is the histogram's, a colon and the index."""
        return self._native_sums([content for content in contents if content.layout.native])

    def keep_only(self, contents: Iterable[Content]) -> None:
        """Drop the layouts of files other than these."""
        current = {content.layout for content in contents}
        self._layouts = {key: layout for key, layout in self._layouts.items() if layout[0] in current}


class _Sums:
    """Adds up contents again and again; while the layouts are the same, so is the plan."""

    def __init__(self) -> None:
        self._layouts: tuple[Layout, ...] = ()
        self._plan = Plan(())

    @property
    def entries(self) -> Mapping[Entry, int]:
        """The series of the last call."""
        return self._plan.entries

    def __call__(self, contents: Sequence[Content]) -> FamilyValues:
        layouts = tuple(content.layout for content in contents)
        if layouts != self._layouts:
            entries = dict.fromkeys(entry for layout in layouts for entry in layout.entries)
            if entries.keys() != self._plan.entries.keys():
                self._plan = Plan(entries, self._plan)
            self._layouts = layouts
        plan = self._plan
        rows = [line for layout, rows, _, _ in contents for row in rows for line in layout.arrange(plan, row)]
        return plan.merge(rows)
