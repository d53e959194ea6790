"""Measure how long each query of the dashboards takes on 24 hours of a service with 50 endpoints.

    python -m tests.bench.dashboards [--keep DIRECTORY]

Backfills scrapes and then recorded series with promtool (three minutes, 1 GB of disk), asks a Prometheus what
Grafana would ask at 1600 pixels, and saves the slowest query of each dashboard.
"""

import argparse
import contextlib
import json
import math
import re
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from grafana.build import documents
from prometheus.tools.toolbox import executable
from tests.bench import rows
from tests.rig.places import ROOT
from tests.rig.queries import SCRAPE_INTERVAL, Query, fill, queries_of, step

LIMIT = 200.0
"""Milliseconds that a query may take."""
DAY = 86_400
BLOCK = 7200
ENDPOINTS = 50
ROUNDS = 10
RULES = ROOT / "prometheus" / "rules"
TARGET = 'job="app",service="orders",instance="app:8000"'
CHOSEN = {"job": "app", "compare": "1h"}
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
SIZES = tuple(10.0**power for power in range(2, 9))
RECORDED = re.compile(r"[a-z_]+(?::\w+)+")

Series = tuple[str, Callable[[float], float]]
"""Name with labels, and its value after a number of seconds of average traffic."""


def service() -> Iterator[Series]:
    """The families of one instance, as the exporter exposes them."""
    for number in range(ENDPOINTS):
        rule = f'url_rule="/resources/{number}/<int:id>"'
        pace = 6.0 / (number + 1)
        typical = 0.01 * (1 + number % 7)
        for status, share, error in (
            ("200", 0.97, ""),
            ("404", 0.028, "NotFound"),
            ("500", 0.002, "ValueError"),
        ):
            labels = f'{TARGET},method="GET",{rule},status="{status}"'
            yield from _histogram(
                "flask_http_request_duration_seconds", labels, BOUNDS, pace * share, typical
            )
            if error:
                labels += f',error_type="{error}"'
                yield f"flask_http_request_errors_total{{{labels}}}", _counter(pace * share)
        labels = f'{TARGET},method="GET",{rule}'
        yield from _histogram("flask_http_request_size_bytes", labels, SIZES, pace, 300.0)
        yield from _histogram("flask_http_response_size_bytes", labels, SIZES, pace, 5000.0)
        yield f"flask_http_client_disconnects_total{{{TARGET},{rule}}}", _counter(pace / 1000)
        yield f"flask_http_request_duration_max_seconds{{{TARGET},{rule}}}", _gauge(0.4)
        yield f"flask_http_request_duration_min_seconds{{{TARGET},{rule}}}", _gauge(0.002)
    whole = sum(6.0 / (number + 1) for number in range(ENDPOINTS))
    yield from _histogram("flask_http_request_queue_seconds", TARGET, BOUNDS, whole, 0.003)
    yield from _histogram("flask_exporter_scrape_seconds", TARGET, BOUNDS, 1 / SCRAPE_INTERVAL, 0.01)
    for name, labels, pace in (
        ("flask_http_request_total", 'method="GET",status="200"', whole * 0.97),
        ("flask_http_request_total", 'method="GET",status="404"', whole * 0.028),
        ("flask_http_request_total", 'method="GET",status="500"', whole * 0.002),
        ("flask_http_request_exceptions_total", 'method="GET",status="500"', whole * 0.002),
        ("flask_log_messages_total", 'level="WARNING"', 0.1),
        ("flask_log_messages_total", 'level="ERROR"', 0.05),
        ("flask_exporter_failures_total", 'stage="scrape"', 0.001),
        ("flask_exporter_series_dropped_total", "", 0.001),
        ("flask_worker_cpu_seconds_total", "", 0.4),
        ("flask_worker_gc_seconds_total", "", 0.01),
        ("flask_worker_starts_total", "", 0.0005),
    ):
        yield f"{name}{{{TARGET},{labels}}}", _counter(pace)
    for name, labels, value in (
        ("up", "", 1),
        ("scrape_duration_seconds", "", 0.02),
        ("scrape_samples_post_metric_relabeling", "", 4000),
        ("flask_http_requests_in_progress", "", 3),
        ("flask_worker_threads", "", 32),
        ("flask_worker_threads_busy", "", 4),
        ("flask_worker_resident_memory_bytes", "", 2.4e8),
        ("flask_health_check_up", 'check="database"', 1),
        ("flask_app_info", 'version="1.0.0"', 1),
        ("flask_exporter_info", 'version="1.0.0"', 1),
        ("flask_exporter_worker_files", 'state="live"', 12),
        ("flask_exporter_worker_files", 'state="corrupt"', 0),
    ):
        yield f"{name}{{{TARGET},{labels}}}", _gauge(value)


def _histogram(
    name: str, labels: str, bounds: tuple[float, ...], pace: float, typical: float
) -> Iterator[Series]:
    for bound in (*bounds, math.inf):
        le = "+Inf" if bound == math.inf else bound
        yield f'{name}_bucket{{{labels},le="{le}"}}', _counter(pace * (1 - math.exp(-bound / typical)))
    yield f"{name}_count{{{labels}}}", _counter(pace)
    yield f"{name}_sum{{{labels}}}", lambda elapsed: pace * elapsed * typical


def _counter(pace: float) -> Callable[[float], float]:
    return lambda elapsed: int(pace * elapsed)


def _gauge(value: float) -> Callable[[float], float]:
    return lambda _: value


def backfill_scrapes(data: Path, start: int) -> None:
    """Write blocks with every scrape of the day that begins at `start`."""

    def block(begin: int) -> None:
        series = list(service())
        with tempfile.NamedTemporaryFile("w", dir=data.parent, suffix=".om") as file:
            first, last = max(begin, start), min(begin + BLOCK, start + DAY)
            for moment in range(first, last, int(SCRAPE_INTERVAL)):
                # More traffic by day than by night, and never less than nothing.
                elapsed = moment - start + 8000 * (1 - math.cos(2 * math.pi * (moment - start) / DAY))
                file.write("".join(f"{name} {value(elapsed)} {moment}\n" for name, value in series))
            file.write("# EOF\n")
            file.flush()
            _promtool("tsdb", "create-blocks-from", "openmetrics", "--quiet", file.name, str(data))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(block, range(start - start % BLOCK, start + DAY, BLOCK)))


def layers() -> Iterator[list[dict[str, Any]]]:
    """The shipped rule groups, cut so that each layer reads only what the layers before it record."""
    groups = [g for path in sorted(RULES.glob("*.yml")) for g in yaml.safe_load(path.read_text())["groups"]]
    waiting = [(group, rule) for group in groups for rule in group["rules"] if "record" in rule]
    while waiting:
        missing = {rule["record"] for _, rule in waiting}
        ready = [
            (group, rule)
            for group, rule in waiting
            if not missing & set(RECORDED.findall(rule["expr"])) - {rule["record"]}
        ]
        if not ready:
            raise SystemExit(f"these recording rules wait for each other: {sorted(missing)}")
        yield [
            {**group, "rules": [rule for other, rule in ready if other is group]}
            for group in groups
            if any(other is group for other, _ in ready)
        ]
        waiting = [pair for pair in waiting if pair not in ready]


def backfill_rules(data: Path, start: int, end: int) -> None:
    """Write blocks with the recorded series of this time, a layer at a time."""
    file = data.parent / "rules.yml"
    for groups in layers():
        file.write_text(yaml.safe_dump({"groups": groups}))
        with running(data) as address:
            _promtool(
                *("tsdb", "create-blocks-from", "rules", "--url", address, "--output-dir", str(data)),
                *("--start", str(start), "--end", str(end)),
                *("--eval-interval", f"{SCRAPE_INTERVAL:.0f}s", str(file)),
            )


def _promtool(*arguments: str) -> None:
    run = subprocess.run([executable("promtool"), *arguments], capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"promtool {' '.join(arguments)}: {run.stderr.strip() or run.stdout.strip()}")


@contextlib.contextmanager
def running(data: Path) -> Iterator[str]:
    """Run a Prometheus on these blocks that scrapes nothing, and yield its address."""
    configuration = data.parent / "prometheus.yml"
    configuration.write_text("global: {}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with (data.parent / "prometheus.log").open("a") as log:
        process = subprocess.Popen(
            [
                executable("prometheus"),
                f"--config.file={configuration}",
                f"--storage.tsdb.path={data}",
                "--storage.tsdb.retention.time=35d",
                f"--web.listen-address={address}",
            ],
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 60
        while not _ready(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"Prometheus does not start: see {log.name}")
            time.sleep(0.1)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready") as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def ask(address: str, query: Query, end: int) -> tuple[float, int]:
    """The seconds that a query takes over the day before `end`, and the number of its series.

    Of several rounds the quickest counts, because other work on the machine can only add time.
    """
    values = (
        dict.fromkeys(("service", "instance", "url_rule", "error_type", "slo", "host", "status_class"), ".*")
        | CHOSEN
    )
    parameters: dict[str, object] = {"query": fill(query, values, DAY)}
    if query.instant:
        path = "query"
        parameters["time"] = end
    else:
        path = "query_range"
        parameters |= {"start": end - DAY, "end": end, "step": step(query, DAY)}
    body = urllib.parse.urlencode(parameters).encode()
    durations = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        with urllib.request.urlopen(f"{address}/api/v1/{path}", body) as answer:
            text = answer.read()
        durations.append(time.perf_counter() - begin)
    return min(durations), len(json.loads(text)["data"]["result"])


def main() -> None:
    """Save each dashboard's slowest query."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keep", type=Path, help="use this directory, and the data that is in it already")
    directory = parser.parse_args().keep
    boards = [json.loads(text) for text in documents().values()]
    with contextlib.ExitStack() as stack:
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        data = directory / "data"
        if not data.is_dir():
            data.mkdir(parents=True)
            start = int(time.time()) // BLOCK * BLOCK - DAY
            backfill_scrapes(data, start)
            backfill_rules(data, start, start + DAY)
            (directory / "end").write_text(str(start + DAY - int(SCRAPE_INTERVAL)))
        end = int((directory / "end").read_text())
        with running(data) as address:
            rows.save("dashboards", [slowest(address, board, end) for board in boards])


def slowest(address: str, board: dict[str, Any], end: int) -> rows.Row:
    """The slowest query of a dashboard; queries without data, about other jobs, do not count."""
    timings = [(*ask(address, query, end), query) for query in queries_of(board)]
    with_data = [timing for timing in timings if timing[1]]
    seconds, series, query = max(with_data, key=lambda timing: timing[0])
    return rows.Row(
        f"{board['title']}: slowest of {len(with_data)} queries, 24 h, {ENDPOINTS} endpoints",
        seconds * 1000,
        "ms",
        LIMIT,
        f"{query.title} ({query.ref}), {series} series",
    )


if __name__ == "__main__":
    main()
