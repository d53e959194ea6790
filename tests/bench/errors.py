"""What it takes to tell the group of an exception and to count it.

    python -m tests.bench.errors

A row is the least processor time of its rounds. The first error of a group is one with its traceback as text
and a slot of its own. Written to `.bench/errors.json`.
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
import time
from collections.abc import Callable

from flask import Flask, render_template_string

from exporter.measure.fingerprints import Fingerprints
from exporter.places import Places
from exporter.worker.errorgroups import ErrorGroups
from tests.bench.rows import Row, save
from tests.rig.exchanges import exchange

ROUNDS = 30
ERRORS = 200
TARGET = 6.0


def view() -> None:
    json.loads("{")


def wrapped() -> None:
    try:
        sqlite3.connect(":memory:").execute("select * from nowhere")
    except sqlite3.Error as error:
        raise RuntimeError("no orders") from error


def template() -> str:
    return render_template_string("{{ missing.name }}")


def layers(depth: int = 25) -> None:
    json.loads("{") if depth == 0 else layers(depth - 1)


def endless() -> None:
    endless()


# View, and whether the target holds for it.
VIEWS: tuple[tuple[Callable[[], object], bool], ...] = (
    (view, True),
    (wrapped, True),
    (template, True),
    (layers, True),
    (endless, False),
)


def main() -> None:
    """Measure, print a table, write the file."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for function, bound in VIEWS:
            error = _error(function)
            groups = ErrorGroups(directory)
            fingerprints = Fingerprints(Places(), groups)
            request = exchange()

            def known() -> None:
                fingerprints.note(request, error)  # noqa: B023  called in this turn
                if request.fingerprint:  # noqa: B023
                    groups.count(request, request.fingerprint)  # noqa: B023

            def first() -> None:
                groups.move()  # noqa: B023  what is known of a group is forgotten
                known()

            frames = _frames(error)
            rows.append(
                Row(
                    f"error of {frames} frames, known group",
                    _microseconds(known, ERRORS),
                    "µs",
                    TARGET if bound else None,
                )
            )
            rows.append(Row(f"error of {frames} frames, first of a process", _microseconds(first, 5), "µs"))
    save("errors", rows)


def _error(function: Callable[[], object]) -> BaseException:
    """What Flask passes to the exporter."""
    app = Flask("shop")
    app.add_url_rule("/", "view", lambda: str(function()))
    errors: list[Exception] = []

    def handle(error: Exception) -> str:
        errors.append(error)
        return ""

    app.handle_user_exception = handle  # type: ignore[method-assign, assignment]
    app.test_client().get("/")
    return errors[0]


def _frames(error: BaseException | None) -> int:
    count = 0
    while error is not None:
        frame = error.__traceback__
        while frame is not None:
            count, frame = count + 1, frame.tb_next
        error = error.__cause__
    return count


def _microseconds(work: Callable[[], object], times: int) -> float:
    def seconds() -> float:
        before = time.process_time()
        for _ in range(times):
            work()
        return time.process_time() - before

    return round(min(seconds() for _ in range(ROUNDS)) / times * 1e6, 2)


if __name__ == "__main__":
    main()
