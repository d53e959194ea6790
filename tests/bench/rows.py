"""A row of a benchmark: what was measured, and what it must reach."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = Path(".bench")


@dataclass(frozen=True, slots=True)
class Row:
    """`value` is in `unit`; `target` is the most it may be, None where nothing is asked of it."""

    name: str
    value: float
    unit: str
    target: float | None = None
    detail: str = ""

    def __str__(self) -> str:
        verdict = "" if self.target is None else f"≤ {self.target:g}  {'pass' if self.reached else 'MISSED'}"
        return f"{self.name:<62}{self.value:>10.4g} {self.unit:<14}{verdict:<16}{self.detail}".rstrip()

    @property
    def reached(self) -> bool:
        """Whether the target, if there is one, was reached."""
        return self.target is None or self.value <= self.target


def path(benchmark: str) -> Path:
    """The file with the rows of `tests.bench.<benchmark>`."""
    return RESULTS / f"{benchmark}.json"


def save(benchmark: str, rows: Sequence[Row]) -> None:
    """Print the rows, and write them for `python -m tests.bench`."""
    for row in rows:
        print(row)
    RESULTS.mkdir(exist_ok=True)
    path(benchmark).write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def load(benchmark: str) -> list[Row]:
    """The rows that were saved last; OSError where there are none."""
    return [Row(**row) for row in json.loads(path(benchmark).read_text())]
