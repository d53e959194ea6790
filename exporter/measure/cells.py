"""Values of prometheus_client as doubles in a list or in the mapped worker file.

Through its own objects each addition takes a lock, checks the process id and packs bytes. This is the only
module that writes into private attributes of prometheus_client (`_value`, `_sum`, `_count`, `_buckets`).
"""

from __future__ import annotations

import errno
import os
from typing import Any, NamedTuple

from prometheus_client import Histogram

from exporter.store.workerfile import place

Doubles = Any  # list[float] | memoryview, for `doubles[index] += amount`


class Cell:
    """Stands in for a value of prometheus_client, which then reads what a recorder adds."""

    __slots__ = ("doubles", "index", "origin")

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
    """The place of the sum and the buckets of a histogram's or summary's child."""

    doubles: Doubles
    sum_at: int
    buckets_at: tuple[int, ...]
    bounds: tuple[float, ...]


class Cells:
    """The cells of this process in the place of prometheus_client's own values."""

    def __init__(self) -> None:
        self._children: list[Any] = []

    def single(self, child: Any) -> Cell:
        """The cell of a counter's or gauge's child; raises OSError if the worker file has no place."""
        (child._value,) = cells = self._cells(child, [child._value])
        return cells[0]

    def distribution(self, child: Any) -> Distribution:
        """The cells of a histogram's or summary's child; raises OSError as `single`."""
        if isinstance(child, Histogram):
            child._sum, *child._buckets = cells = self._cells(child, [child._sum, *child._buckets])
            bounds = tuple(child._upper_bounds[:-1])
        else:
            child._sum, child._count = cells = self._cells(child, [child._sum, child._count])
            bounds = ()
        total, *counts = cells
        return Distribution(total.doubles, total.index, tuple(cell.index for cell in counts), bounds)

    def restore(self) -> None:
        """Give all children prometheus_client's own values back."""
        for child in self._children:
            for name in ("_value", "_sum", "_count"):
                if hasattr(child, name):
                    setattr(child, name, _origin(getattr(child, name)))
            if hasattr(child, "_buckets"):
                child._buckets = [_origin(value) for value in child._buckets]
        self._children.clear()

    def _cells(self, child: Any, values: list[Any]) -> list[Cell]:
        if isinstance(values[0], Cell):
            return values
        if not _in_file(values[0]):
            doubles = [value.get() for value in values]
            cells = [Cell(value, doubles, index) for index, value in enumerate(values)]
        else:
            cells = self._cells_in_file(values)
        self._children.append(child)
        return cells

    def _cells_in_file(self, values: list[Any]) -> list[Cell]:
        """Cells in this process's worker file; raises OSError if it has no place for the values."""
        for value in values:
            value.get()  # the first call after a fork opens this process's own files
        file = values[0]._file  # the same for all of them; it may have grown for the last one
        for value in values:
            if value._key not in file._positions:  # it had no place; maybe there is one now
                file.write_value(value._key, value._value, value._timestamp)
        cells = [Cell(value, *found) for value in values if (found := place(file, value._key))]
        if len(cells) < len(values):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file._fname)
        return cells


def _in_file(value: Any) -> bool:
    return getattr(value, "_multiprocess", False)  # an application may have a class of its own


def _origin(value: Any) -> Any:
    if not isinstance(value, Cell):
        return value
    if not _in_file(value.origin):
        value.origin.set(value.get())
    return value.origin
