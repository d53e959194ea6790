"""Series of worker files: a key gives name, labels and family of a sample, or proves that it is corrupt."""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from sys import intern
from typing import NamedTuple

from exporter.labels import clean
from exporter.merge.format import CorruptFileError

Labels = tuple[tuple[str, str], ...]

# The characters that an exposition in plain ASCII replaces in the name of a label.
_UNWRITABLE = re.compile(r"[^a-zA-Z0-9_]|^[0-9]")

_SUFFIXES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum"),
    "summary": ("_count", "_sum"),
}
NATIVE = "native"
"""The kind of the buckets of native histograms, each a series with its index behind a colon as suffix."""

_INDEX = re.compile(r":-?\d{1,4}").fullmatch


class Series(NamedTuple):
    """One time series; equal ones of several files are one series. The help text is kept beside it."""

    kind: str
    """`counter`, `gauge`, `histogram`, `summary` or `native`."""
    mode: str
    """A gauge's multiprocess mode, else ""."""
    family: str
    labels: Labels
    """Sorted by name; without a bucket's `le`."""
    suffix: str
    le: float | None


class Entry:
    """A series with an identity, which is cheaper to look up than its labels."""

    __slots__ = ("created", "documentation", "series")

    def __init__(self, series: Series, documentation: str) -> None:
        self.series = series
        self.documentation = documentation
        self.created = math.inf
        """When the first worker began it (seconds since the epoch); infinity if that is unknown."""


def parse(stem: str, key: bytes) -> tuple[Series, str]:
    """The series and help text of a key in a file `<stem>_<pid>.db`.

    Raises:
        CorruptFileError: no metric of prometheus_client has this key, or it cannot be exposed.
    """
    try:
        family, name, labels, documentation = json.loads(key.decode("utf-8"))
        labels = {intern(clean(label)): intern(clean(value)) for label, value in labels.items()}
        documentation = clean(documentation)
        f"{family}{name}".encode()
        kind, _, mode = stem.partition("_")
        suffix = name.removeprefix(family)
        fits = _INDEX(suffix) if kind == NATIVE else suffix in _SUFFIXES[kind]
        if not family or family + suffix != name or not fits:
            raise ValueError(f"{name!r} is no sample of the {kind} {family!r}")
        _check_names(tuple(labels))
        le = None
        if suffix == "_bucket":
            le = float(labels.pop("le"))
            if math.isnan(le):
                raise ValueError("a bucket's bound is not a number")
        # A few texts and labels make up the keys of thousands of series: one copy of each is kept.
        series = Series(kind, mode, intern(family), _one(tuple(sorted(labels.items()))), intern(suffix), le)
        return series, intern(documentation)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CorruptFileError(f"the key {key[:200]!r}: {error}") from None


@lru_cache(maxsize=1000)
def _one(labels: Labels) -> Labels:
    """The same object for equal labels; those of the buckets of a histogram follow each other."""
    return labels


@lru_cache(maxsize=1000)
def _check_names(labels: tuple[str, ...]) -> None:
    """Raises ValueError if these labels could not stand beside each other in an exposition."""
    if "" in labels or len({_UNWRITABLE.sub("_", label) for label in labels}) < len(labels):
        raise ValueError(f"labels {list(labels)} cannot be exposed")
