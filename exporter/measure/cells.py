"""Values of prometheus_client as doubles in a list or in the mapped worker file.

Through its own objects each addition takes a lock, checks the process id and packs bytes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Doubles = Any  # list[float] | memoryview: what `doubles[index] += amount` works on


class Cell:
    """Stands in for a value of prometheus_client, which then reads what a recorder adds."""

    __slots__ = ("doubles", "index", "origin")

    _multiprocess = False

    def __init__(self, origin: Any, doubles: Doubles, index: int) -> None:
        self.origin = origin
        self.doubles = doubles
        self.index = index

    def get(self) -> float:
        return float(self.doubles[self.index])

    def inc(self, amount: float) -> None:
        self.doubles[self.index] += amount

    def set(self, value: float, timestamp: float | None = None) -> None:  # noqa: ARG002  prometheus_client's signature
        self.doubles[self.index] = value

    def get_exemplar(self) -> None:
        """Exemplars come from the flight recorder, for all workers alike."""


class Distribution(NamedTuple):
    """Where a histogram's or summary's child keeps its sum and its buckets."""

    doubles: Doubles
    sum_at: int
    buckets_at: tuple[int, ...]
    bounds: tuple[float, ...]


def restore(child: Any) -> None:
    """Give a child prometheus_client's own values back."""
    for name in ("_value", "_sum", "_count"):
        if hasattr(child, name):
            setattr(child, name, _origin(getattr(child, name)))
    if hasattr(child, "_buckets"):
        child._buckets = [_origin(value) for value in child._buckets]


def _origin(value: Any) -> Any:
    if not isinstance(value, Cell):
        return value
    if not value.origin._multiprocess:
        value.origin.set(value.get())
    return value.origin
