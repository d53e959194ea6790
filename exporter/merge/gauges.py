"""Gauges of many workers: one value a series, by its multiprocess mode."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter

from exporter.merge.families import Family, Group
from exporter.merge.plan import Content, FamilyValues, family_of, sums
from exporter.merge.series import Series


class Gauges:
    """Merges gauges again and again; unchanged groups and families stay the same objects."""

    def __init__(self) -> None:
        self._groups: dict[Series, Group] = {}
        self._families: dict[tuple[str, str], Family] = {}

    def __call__(self, contents: Sequence[Content]) -> FamilyValues:
        """The merged families of these contents; `all` gauges have the label `pid`."""
        values, documentation = _values(contents)
        members: dict[tuple[str, str], dict[Series, float]] = {}
        for series, value in values.items():
            members.setdefault((series.kind, series.family), {}).setdefault(series._replace(mode=""), value)
        former_groups, former_families = self._groups, self._families
        self._groups, self._families = {}, {}
        result = []
        for key, by_series in members.items():
            for series in by_series:
                self._groups[series] = former_groups.get(series) or Group.of((series,))
            groups = [self._groups[series] for series in by_series]
            family = self._families[key] = family_of(
                key, documentation[key], groups, former_families.get(key)
            )
            result.append((family, [*by_series.values()]))
        return result


def _values(contents: Iterable[Content]) -> tuple[dict[Series, float], dict[tuple[str, str], str]]:
    """The value of each gauge, and the help texts of their families."""
    samples: dict[Series, list[tuple[float, float]]] = {}
    documentation: dict[tuple[str, str], str] = {}
    for layout, rows, pid, alive in contents:
        for at, entry in enumerate(layout.entries):
            series = entry.series
            if not alive and series.mode.startswith(("live", "all")):
                continue
            if series.mode.endswith("all"):
                series = series._replace(labels=tuple(sorted({**dict(series.labels), "pid": pid}.items())))
            documentation.setdefault((series.kind, series.family), entry.documentation)
            samples.setdefault(series, []).extend((row[2 * at], row[2 * at + 1]) for row in rows)
    values = {}
    for series, pairs in samples.items():
        numbers = [value for value, _ in pairs]
        mode = series.mode.removeprefix("live")
        if mode == "sum":
            values[series] = sums([(number,) for number in numbers])[0]
        elif mode == "mostrecent":
            value, timestamp = max(pairs, key=itemgetter(1))
            if timestamp > 0.0:
                values[series] = value
        else:
            values[series] = min(numbers) if mode == "min" else max(numbers) if mode == "max" else numbers[-1]
    return values, documentation
