"""What the flight recorder takes to keep one request, from its beginning to its end.

    python -m tests.bench.flightrecorder

The rule and the outcome have been seen before, which the middleware remembers. A row is the least processor
time of its rounds. Written to `.bench/flightrecorder.json`.
"""

from __future__ import annotations

import tempfile
import time

from werkzeug.routing import Rule

from exporter.observation import Observation, Outcome
from tests.bench.rows import Row, save
from tests.rig.exchanges import exchange, opened

ROUNDS = 50
REQUESTS = 1000
TARGET = 2.0


def main() -> None:
    """Measure, print a table, write the file."""
    with tempfile.TemporaryDirectory() as directory:
        places = {"memory": None, "worker directory": directory}
        save(
            "flightrecorder",
            [
                Row(f"flight recorder, {place}", round(microseconds(path), 2), "µs a request", TARGET)
                for place, path in places.items()
            ],
        )


def microseconds(directory: str | None) -> float:
    """Processor time of one request in the best round."""
    recorder = opened(1000, directory)
    request = exchange(trace_id="ab" * 16)
    request.outcome = Outcome(_unmeasured, Rule("/orders/<int:id>"), "200", bodiless=False)

    def seconds() -> float:
        before = time.process_time()
        for _ in range(REQUESTS):
            recorder.enter(request)
            recorder.record(request)
            recorder.leave(request)
        return time.process_time() - before

    return min(seconds() for _ in range(ROUNDS)) / REQUESTS * 1e6


def _unmeasured(observation: Observation, now: float) -> None:
    """An outcome's recorder, which this benchmark leaves out."""


if __name__ == "__main__":
    main()
