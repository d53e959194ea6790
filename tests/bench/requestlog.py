"""What one line of the request log costs, beside what else could have written it.

    python -m tests.bench.requestlog

Everybody writes the same fields of the same request into a file of its own on the same disk, rotated at
10 MiB where it can be. Rounds are interleaved, so that a busy moment of the machine meets all; a row is the
median of its rounds in microseconds a request. Written to `.bench/requestlog.json`.
"""

from __future__ import annotations

import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from concurrent_log_handler import ConcurrentRotatingFileHandler
from pythonjsonlogger.json import JsonFormatter

from exporter.log.requestlog import RequestLog
from exporter.log.rotating import RotatingFile
from exporter.measure.exchange import Exchange
from exporter.settings import Settings
from tests.bench.rows import Row, save
from tests.rig.exchanges import exchange

OURS = "request log: JSON, several processes, rotated"
TARGETS = {OURS: 15.0}
LIMIT = 10 * 1024 * 1024
ROUNDS = 200
REQUESTS = 100  # few, so that most rounds fit into one turn on a busy processor

Write = Callable[[Exchange], object]


def main() -> None:
    """Measure, print a table, write the file."""
    one = exchange(trace_id="ab" * 16)
    with tempfile.TemporaryDirectory() as directory:
        writers = _writers(Path(directory))
        rounds: dict[str, list[float]] = {name: [] for name in writers}
        for _ in range(ROUNDS):
            for name, write in writers.items():
                started = time.perf_counter()
                for _ in range(REQUESTS):
                    write(one)
                rounds[name].append((time.perf_counter() - started) / REQUESTS * 1e6)
    save(
        "requestlog",
        [
            Row(name, round(statistics.median(times), 2), "µs a request", TARGETS.get(name))
            for name, times in rounds.items()
        ],
    )


def _writers(directory: Path) -> dict[str, Write]:
    log = RequestLog(Settings(request_log=str(directory / "ours"), log_max_bytes=LIMIT))
    line = json.dumps(_fields(exchange(trace_id="ab" * 16))).encode() + b"\n"
    bare = os.open(directory / "bare", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    rotating = RotatingFile(str(directory / "rotating"), LIMIT, 5)
    return {
        OURS: log.write,
        "of which: the write and the question of rotation": lambda _: rotating.write(line, 6),
        "one appending write of a ready line": lambda _: os.write(bare, line),
        "FileHandler with JsonFormatter": _logger(logging.FileHandler(directory / "file")),
        "concurrent-log-handler with JsonFormatter": _logger(
            ConcurrentRotatingFileHandler(str(directory / "concurrent"), maxBytes=LIMIT, backupCount=5)
        ),
    }


def _logger(handler: logging.Handler) -> Write:
    """As python-json-logger's documentation has it: the fields are the record's extra."""
    logger = logging.Logger("requests", logging.INFO)
    handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger.addHandler(handler)
    return lambda one: logger.info("GET /orders/<int:id> 200", extra=_fields(one))


def _fields(one: Exchange) -> dict[str, object]:
    return {
        "request_id": one.request_id,
        "trace_id": one.trace_id,
        "method": one.method,
        "path": one.path,
        "url_rule": one.rule,
        "endpoint": one.endpoint,
        "status": one.status,
        "duration_seconds": one.duration,
        "request_bytes": one.request_size,
        "response_bytes": one.response_size,
        "remote_addr": one.environ["REMOTE_ADDR"],
        "error_type": one.error_type,
    }


if __name__ == "__main__":
    main()
