"""What the sampler takes of a busy worker's processor time.

    python -m tests.bench.sampler

Threads answer requests one after the other, as those of a worker at its limit; some of them wait in requests
that are slow, so there are stacks to walk. A row is the processor time of the sampler's thread as a share of
that of the process. Written to `.bench/sampler.json`.
"""

from __future__ import annotations

import gc
import sys
import threading
import time

from flask import Flask
from prometheus_client import CollectorRegistry

from exporter import FlaskExporter
from exporter.worker import sampler
from tests.bench.rows import Row, save
from tests.rig.deadline import eventually
from tests.rig.wsgi import call

SECONDS = 20.0
TARGET = 0.3
LOADS = {
    "8 threads, quick requests": (8, 0, 0),
    "32 threads, requests of 0.4 ms": (32, 0, 10_000),
    "8 threads, quick requests, 8 more that wait": (8, 8, 0),
}


def main() -> None:
    """Measure, print a table, write the file."""
    save(
        "sampler",
        [Row(name, round(share(*load), 3), "% of the process", TARGET) for name, load in LOADS.items()],
    )


def share(quick: int, waiting: int, work: int) -> float:
    """Per cent of the process's processor time; each of the `quick` requests counts to `work`."""
    gc.collect()  # the application of the load before, which would be looked at, too
    app = Flask("busy")
    FlaskExporter(app, registry=CollectorRegistry())
    over = threading.Event()
    app.add_url_rule("/quick", "quick", lambda: str(sum(range(work))))
    app.add_url_rule("/slow", "slow", lambda: str(over.wait(1.0)))

    def ask(path: str) -> None:
        while not over.is_set():
            call(app, path)

    call(app, "/quick")
    clock = time.pthread_getcpuclockid(eventually(_sampling_thread, "the sampler runs"))
    threads = [threading.Thread(target=ask, args=("/quick",)) for _ in range(quick)]
    threads += [threading.Thread(target=ask, args=("/slow",)) for _ in range(waiting)]
    for thread in threads:
        thread.start()
    before, all_before = time.clock_gettime(clock), time.process_time()
    over.wait(SECONDS)
    used, all_used = time.clock_gettime(clock) - before, time.process_time() - all_before
    over.set()
    for thread in threads:
        thread.join()
    return 100 * used / all_used


def _sampling_thread() -> int | None:
    idents = (
        ident
        for ident, frame in sys._current_frames().items()
        if frame.f_code.co_filename == sampler.__file__
    )
    return next(idents, None)


if __name__ == "__main__":
    main()
