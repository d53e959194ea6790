"""`make dashboards-drill`: plant half an hour of incidents, and tell after how long a page shows each.

    python -m tests.incidents [--keep DIRECTORY]

Two services with two instances each run for real, under `make run`'s Prometheus and alerts. Then every panel
that is to show an incident is asked as Grafana asks it, for one moment after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from prometheus.run.preparation import INTERVAL
from tests.bench.dashboards import running
from tests.incidents.halfhour import SECONDS, play
from tests.incidents.sights import Incident, Sight, incidents
from tests.rig.pages import BOARDS, Pages, Row
from tests.rig.queries import queries_of

FIRST_VIEW = 800
"""Pixels that a person sees of a page before scrolling; a row of the grid has 38."""
ROWS = 5
"""Rows of a table that a person reads."""


def main() -> int:
    """Play the half hour, unless DIRECTORY has it, and print the table; 1 if something is not seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.incidents", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--keep", type=Path, help="use this directory and the half hour in it, and leave Prometheus up"
    )
    directory = parser.parse_args().keep
    with contextlib.ExitStack() as stack:
        keep = directory is not None
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="incidents-")))
        record = directory / "halfhour.json"
        if not record.exists():
            directory.mkdir(parents=True, exist_ok=True)
            print(f"Half an hour of incidents, in {directory} …", file=sys.stderr)
            record.write_text(json.dumps(play(directory)))
        half_hour = json.loads(record.read_text())
        begin = float(half_hour["begin"])
        address = stack.enter_context(running(directory / "data/prometheus"))
        missing = tell(address, begin, incidents(half_hour["addresses"]))
        if keep:
            print(f"\n{address} has it, from {begin:.0f} to {begin + SECONDS:.0f}; Ctrl-C ends it.")
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
    return int(missing > 0)


def tell(address: str, begin: float, planned: tuple[Incident, ...]) -> int:
    """Print when a person sees what of each incident, and return how much is not seen."""
    missing = 0
    for incident in planned:
        print(f"\n**{incident.name}** ({incident.begin // 60}:{incident.begin % 60:02})\n")
        print("| seconds | page | panel | place | what it says |\n| ---: | --- | --- | --- | --- |")
        rows = [(after(address, begin, incident, sight), sight) for sight in incident.sights]
        missing += sum(seconds is None for (seconds, _), _ in rows)
        for (seconds, text), sight in sorted(rows, key=lambda row: (row[0][0] is None, row[0][0])):
            page = BOARDS[sight.page]["title"]
            moment = "not seen" if seconds is None else seconds
            print(f"| {moment} | {page} | {sight.panel} | {place(sight)} | {text} |")
    return missing


def after(address: str, begin: float, incident: Incident, sight: Sight) -> tuple[int | None, str]:
    """The seconds after which a sight is there, and what it says."""
    for seconds in range(0, incident.limit + 1, INTERVAL):
        text = look(Pages(address, begin + incident.begin + seconds, SECONDS, INTERVAL), sight)
        if text:
            return seconds, text
    return None, ""


def look(pages: Pages, sight: Sight) -> str:
    """What the panel says at this moment, or nothing."""
    if sight.column:
        rows = pages.cells(sight.page, sight.panel, service=sight.service)
        for number, cells in enumerate(rows[:ROWS], 1):
            if sight.where.items() <= cells.items() and sight.sees(cells.get(sight.column, 0)):
                return f"row {number}: {', '.join(sight.where.values())}"
        return ""
    queries = (query for query in queries_of(BOARDS[sight.page]) if query.title == sight.panel)
    answers: list[Row] = [row for query in queries for row in pages.now(query, service=sight.service)]
    for row in answers:
        if sight.where.items() <= row.labels.items() and sight.sees(row.values[-1]):
            return f"{' '.join(sight.where.values())} {row.values[-1]:.3g}".strip()
    return ""


def place(sight: Sight) -> str:
    """Whether a person has to scroll to the panel, or to open its row."""
    if sight.panel.startswith("annotation"):
        return "a mark on every graph"
    for panel in BOARDS[sight.page]["panels"]:
        if any(inner["title"] == sight.panel for inner in panel.get("panels", ())):
            return f"row “{panel['title']}”"
        if panel["title"] == sight.panel:
            return "first view" if _bottom(panel) <= FIRST_VIEW else "below"
    raise LookupError(f"{sight.page} has no panel {sight.panel!r}")


def _bottom(panel: dict[str, Any]) -> int:
    return 38 * int(panel["gridPos"]["y"] + panel["gridPos"]["h"])


if __name__ == "__main__":
    sys.exit(main())
