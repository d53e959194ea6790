"""What the request log takes from the throughput of a service, and whether it loses lines at 5,000 a second.

    python -m tests.bench.logging_throughput

Throughput is compared twice: under a real gunicorn with wrk, and of the application alone, called by four
processes as a server would, which leaves nothing for a slow log to hide behind. A figure is the median over
rounds of the ratio in that round. Two cores do not get 5,000 requests a second through gunicorn and wrk, so
the pace is held by the four processes too: a minute long, into one file that is rotated.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from werkzeug.test import create_environ

from exporter import FlaskExporter
from tests.bench.rows import Row, save
from tests.bench.service import PATH, create
from tests.bench.throughput import WORKERS, requests_per_second, serving
from tests.rig.network import free_ports

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

PROCESSES = 4
ROUNDS = 10
REQUESTS = 2_000
"""Of each process in each round."""

RATE = 5_000
SECONDS = 60
LIMIT = 1.25
"""With the log, at least 0.8 of the throughput without it."""

_forks = multiprocessing.get_context("fork")


def main() -> None:
    """Measure, print a table, write the file."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory, "requests.jsonl")
        os.environ["BENCH_REQUEST_LOG"] = str(log)
        save("logging_throughput", [*_under_gunicorn(), _alone(), *_paced(Path(directory, "paced.jsonl"))])


def _under_gunicorn() -> Iterator[Row]:
    if shutil.which("wrk") is None:
        print("SKIPPED: wrk is not installed (Debian: apt install wrk)", file=sys.stderr)
        return
    with contextlib.ExitStack() as stack:
        ports = dict(zip(("everything", "logged"), free_ports(2), strict=True))
        for kind, port in ports.items():
            stack.enter_context(serving(kind, port))
        rounds = [
            {kind: requests_per_second(ports[kind]) for kind in random.sample(list(ports), len(ports))}
            for _ in range(ROUNDS)
        ]
    yield _row(f"gunicorn with {WORKERS} workers", rounds)


def _alone() -> Row:
    rounds = [
        {kind: _requests_per_second(kind) for kind in random.sample(("everything", "logged"), 2)}
        for _ in range(ROUNDS)
    ]
    return _row(f"the application alone in {PROCESSES} processes", rounds)


def _row(where: str, rounds: list[dict[str, float]]) -> Row:
    without, logged = (statistics.median(one[kind] for one in rounds) for kind in ("everything", "logged"))
    return Row(
        f"throughput without the log to that with it, {where}",
        round(statistics.median(one["everything"] / one["logged"] for one in rounds), 3),
        "times",
        LIMIT,
        f"{without:.0f} and {logged:.0f} requests/s",
    )


def _requests_per_second(kind: str) -> float:
    app = create(kind, CollectorRegistry())
    started = time.perf_counter()
    _in_processes([(app.wsgi_app, range(REQUESTS))] * PROCESSES)
    return PROCESSES * REQUESTS / (time.perf_counter() - started)


def _paced(log: Path) -> Iterator[Row]:
    """Each request's id says which it is; all of them must be in the file and its predecessors."""
    app = create("bare")
    FlaskExporter(app, registry=CollectorRegistry(), request_log=str(log), log_backups=100)
    share = RATE * SECONDS // PROCESSES
    started = time.perf_counter()
    _in_processes(
        (app.wsgi_app, _at_pace(range(number * share, (number + 1) * share))) for number in range(PROCESSES)
    )
    seconds = time.perf_counter() - started
    files = list(log.parent.glob(f"{log.name}*"))
    found = [int(json.loads(line)["request_id"]) for file in files for line in file.read_bytes().splitlines()]
    total = PROCESSES * share
    yield Row(f"lines lost of {total} at {RATE} requests/s", total - len(set(found)), "lines", 0)
    yield Row("lines written twice", len(found) - len(set(found)), "lines", 0, f"in {len(files)} files")
    yield Row(f"time for {SECONDS} s of them", round(seconds, 1), "s", SECONDS * 1.05)


def _at_pace(numbers: Iterable[int]) -> Iterator[int]:
    """The numbers, each no sooner than its turn."""
    began = time.perf_counter()
    for count, number in enumerate(numbers):
        early = began + count * PROCESSES / RATE - time.perf_counter()
        if early > 0:
            time.sleep(early)
        yield number


def _call(app: WSGIApplication, numbers: Iterable[int]) -> None:
    """One request for each number, which is its id."""
    environ = create_environ(PATH)

    def start_response(*_: object) -> Any:
        """A server's, that sends nothing."""

    for number in numbers:
        body: Any = app({**environ, "HTTP_X_REQUEST_ID": str(number)}, start_response)
        for _ in body:
            pass
        body.close()


def _in_processes(tasks: Iterable[tuple[WSGIApplication, Iterable[int]]]) -> None:
    processes = [_forks.Process(target=_call, args=task) for task in tasks]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode != 0:
            raise SystemExit(f"a process that sends requests ended with {process.exitcode}")


if __name__ == "__main__":
    main()
