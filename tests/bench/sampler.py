"""What the sampler takes of a busy worker's processor time, and what it does to quick requests.

    python -m tests.bench.sampler

Threads answer requests one after the other, as those of a worker at its limit; some of them wait in requests
that are slow, so there are stacks to walk. A row is the processor time of the sampler's thread as a share of
that of the process, or the 99th percentile of the quick requests against that without the sampler
(`EXPORTER_SLOW=0`). Each is the median over processes that run with and without it in turn. Written to
`.bench/sampler.json`.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
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

PROCESSES = 5
SECONDS = 5.0
TARGET = 0.3
LOADS = {
    "8 threads, quick requests": (8, 0, 0),
    "32 threads, requests of 0.4 ms": (32, 0, 10_000),
    "8 threads, quick requests, 8 more that wait": (8, 8, 0),
}


def main() -> None:
    """Measure, print a table, write the file."""
    rows = []
    for name in LOADS:
        measured: dict[str, list[tuple[float, float]]] = {"on": [], "off": []}
        for _ in range(PROCESSES):
            for state in random.sample(list(measured), 2):
                command = [sys.executable, "-m", "tests.rig.command", __spec__.name, name, state]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
                measured[state].append(tuple(json.loads(done.stdout)))
        share = statistics.median(share for share, _ in measured["on"])
        on, off = (statistics.median(p99 for _, p99 in measured[state]) for state in ("on", "off"))
        rows.append(Row(name, round(share, 3), "% of the process", TARGET))
        rows.append(Row(f"{name}: p99", round(on / off, 3), "of that without", detail=f"{on:.2f} ms"))
    save("sampler", rows)


def measure(name: str, state: str) -> tuple[float, float]:
    """The sampler's share of the process's time (%), and the 99th percentile of quick requests (ms)."""
    quick, waiting, work = LOADS[name]
    app = Flask("busy")
    FlaskExporter(app, registry=CollectorRegistry(), slow=0.5 if state == "on" else 0)
    over = threading.Event()
    app.add_url_rule("/quick", "quick", lambda: str(sum(range(work))))
    app.add_url_rule("/slow", "slow", lambda: str(over.wait(1.0)))
    times: list[float] = []

    def ask(path: str) -> None:
        while not over.is_set():
            begin = time.perf_counter()
            call(app, path)
            if path == "/quick":
                times.append(time.perf_counter() - begin)

    call(app, "/quick")
    clock = (
        time.pthread_getcpuclockid(eventually(_sampling_thread, "the sampler runs"))
        if state == "on"
        else None
    )
    threads = [threading.Thread(target=ask, args=("/quick",)) for _ in range(quick)]
    threads += [threading.Thread(target=ask, args=("/slow",)) for _ in range(waiting)]
    for thread in threads:
        thread.start()
    before, all_before = _seconds(clock), time.process_time()
    over.wait(SECONDS)
    used, all_used = _seconds(clock) - before, time.process_time() - all_before
    over.set()
    for thread in threads:
        thread.join()
    return 100 * used / all_used, 1000 * statistics.quantiles(times, n=100)[98]


def _seconds(clock: int | None) -> float:
    return 0.0 if clock is None else time.clock_gettime(clock)


def _sampling_thread() -> int | None:
    idents = (
        ident
        for ident, frame in sys._current_frames().items()
        if frame.f_code.co_filename == sampler.__file__
    )
    return next(idents, None)


if __name__ == "__main__":
    if sys.argv[1:]:
        json.dump(measure(*sys.argv[1:]), sys.stdout)
    else:
        main()
