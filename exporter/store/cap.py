"""The series cap in the archive, which collects the label sets of all workers that come and go.

Above the cap the label set of a dead worker is folded as `exporter.labels.SeriesCap` folds that of a living
one. A label set that a living worker has too stays, because its counter would fall.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterable

from exporter.labels import coarse
from exporter.merge.plan import Content
from exporter.merge.series import Labels, Series
from exporter.store.archive import Archive, add

# The families of requests under any prefix. The families that users declare have no cap.
_REQUESTS = re.compile(r"(?:\A|(?<=._))http_(?:request|response|client)(?:_.|\Z)", re.DOTALL)

LabelSet = tuple[str, Labels]


def label_sets(contents: Iterable[Content]) -> set[LabelSet]:
    """The label sets of these contents: (family, labels without `le`)."""
    return {label_set(entry.series) for content in contents for entry in content.layout.entries}


def label_set(series: Series) -> LabelSet:
    """The label set that a series belongs to."""
    return series.family, series.labels


def apply(
    total: Archive, contents: Iterable[Content], limit: int, live_sets: Callable[[], Collection[LabelSet]]
) -> None:
    """Fold the label sets above `limit` in each family of `total`, which has these `contents`.

    `live_sets` gives those of the living; it is called only if there is something to fold.
    """
    for content in contents:
        if not content.layout.is_sum or not content.layout.entries:
            continue
        families: dict[str, dict[LabelSet, list[str]]] = {}
        for key, entry in zip(content.layout.keys(), content.layout.entries, strict=True):
            families.setdefault(entry.series.family, {}).setdefault(label_set(entry.series), []).append(key)
        excess = [
            (labels, keys)
            for family, sets in families.items()
            if _REQUESTS.search(family)
            for labels, keys in list(sets.items())[limit:]
            if not _is_coarse(dict(labels[1]))
        ]
        exempt = live_sets() if excess else ()
        kind = content.layout.entries[0].series.kind
        numbers = total.series[kind]
        for labels, keys in excess:
            if labels not in exempt:
                for key in keys:
                    coarse_key = _coarse_key(key)
                    sums = numbers.setdefault(coarse_key, [])
                    for number in numbers.pop(key):
                        add(sums, number)
                    created = total.created.get(kind, {}).pop(key, math.inf)
                    total.begin(kind, coarse_key, created)


def _coarse_key(key: str) -> str:
    family, name, labels, documentation = json.loads(key)
    return json.dumps([family, name, _coarse(labels), documentation])


def _coarse(labels: dict[str, str]) -> dict[str, str]:
    return {name: value if name == "le" else coarse(name, value) for name, value in labels.items()}


def _is_coarse(labels: dict[str, str]) -> bool:
    """Whether these labels have been folded already, maybe under a rule of the application."""
    result = _coarse(labels)
    return all(labels[name] == result[name] for name in ("method", "status") if name in labels) and (
        "method" in labels or labels == result
    )
