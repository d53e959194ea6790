"""Percentiles are true: a real Prometheus reads native buckets from real workers, some of them killed."""

from __future__ import annotations

import json
import os
import signal
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from prometheus.tools.toolbox import executable
from tests.rig.deadline import eventually
from tests.rig.network import free_ports, get_json
from tests.rig.program import Program
from tests.rig.server import Server, serving

SOURCE = """
import os, random, time
from flask import Flask
from exporter import FlaskExporter

app = Flask("timed")
exporter = FlaskExporter(app)
chance = random.Random()

def spend(seconds):
    end = time.perf_counter() + seconds
    if seconds > 0.01:
        time.sleep(seconds - 0.002)
    while time.perf_counter() < end:
        pass
    return str(os.getpid())

@app.get("/fast")
def fast():
    return spend(chance.lognormvariate(-7.8, 0.5))

@app.get("/peaks")
def peaks():
    return spend(0.002 if chance.random() < 0.7 else 0.3)

@app.get("/even")
def even():
    return spend(chance.uniform(1, 3))
"""
METRIC = "flask_http_request_duration_seconds"


@contextmanager
def prometheus(directory: Path, server: Server) -> Iterator[str]:
    """A Prometheus that scrapes the server each second; the address of its API."""
    (port,) = free_ports(1)
    configuration = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [
            {
                "job_name": "app",
                "always_scrape_classic_histograms": True,
                "static_configs": [{"targets": [f"127.0.0.1:{server.port}"]}],
            }
        ],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    features = "native-histograms,created-timestamp-zero-ingestion"
    command = [
        str(executable("prometheus")),
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--enable-feature={features}",
    ]
    with Program(command, directory / "prometheus.log", dict(os.environ), directory):
        yield f"http://127.0.0.1:{port}/api/v1"


def value(api: str, query: str) -> float | None:
    """The value of the only series of an instant query; None where there is none yet."""
    try:
        result = get_json(f"{api}/query?query={quote(query)}")["data"]["result"]
    except OSError:
        return None
    return float(result[0]["value"][1]) if result else None


def exact(server: Server) -> dict[str, list[float]]:
    """Every duration in seconds that the service itself has measured, by path."""
    durations: dict[str, list[float]] = {}
    for request in json.loads(server.get("/monitoring/requests?limit=10000").body):
        durations.setdefault(request["path"], []).append(request["duration_ms"] / 1000)
    return durations


def ask(server: Server, path: str, requests: int, threads: int) -> None:
    with ThreadPoolExecutor(threads) as clients:
        for answer in clients.map(lambda _: server.get(path), range(requests)):
            assert answer.status == 200


@pytest.mark.soak
def test_recorded_percentiles_are_those_of_the_requests(tmp_path: Path) -> None:
    """To within one native bucket, over four workers of which three are killed and replaced."""
    requests = {"/fast": (3000, 2), "/peaks": (3000, 8), "/even": (3000, 256)}
    options = ("--worker-class", "gthread", "--threads", "64")
    with (
        serving(tmp_path, *options, source=SOURCE, workers=4, EXPORTER_RECENT="10000") as server,
        prometheus(tmp_path, server) as api,
    ):
        assert eventually(lambda: value(api, "up") == 1.0, "a scrape")
        for path, (count, threads) in requests.items():
            ask(server, path, count, threads)
            os.kill(int(server.get("/fast").body), signal.SIGKILL)
            eventually(lambda: server.get("/health/live").status == 200, "an answer")
        measured = exact(server)
        total = f'histogram_count({METRIC}{{url_rule="/even",status="200"}})'
        eventually(lambda: value(api, total) == len(measured["/even"]), "all requests in Prometheus")
        rows = []
        for path in requests:
            cuts = statistics.quantiles(measured[path], n=1000, method="inclusive")
            for percent in (50, 95, 99):
                series = f'{METRIC}{{url_rule="{path}",status="200"}}'
                native = value(api, f"histogram_quantile({percent / 100}, {series})")
                buckets = f'{METRIC}_bucket{{url_rule="{path}",status="200"}}'
                classic = value(api, f"histogram_quantile({percent / 100}, {buckets})")
                rows.append((path, percent, native, classic, cuts[percent * 10 - 1]))
    for path, percent, native, classic, true in rows:
        print(f"{path} p{percent}: native {native:.6f}, classic {classic or 0:.6f}, exact {true:.6f}")
    # Within a bucket all values look alike, and each is an eighth of a power of two wide.
    width = 2 ** (1 / 8) - 1
    assert [native for _, _, native, _, _ in rows] == pytest.approx([true for *_, true in rows], rel=width)


def test_a_burst_of_a_new_status_is_an_increase(tmp_path: Path) -> None:
    """The series says when it began, so the first 300 errors are not lost between two scrapes."""
    source = SOURCE + '@app.get("/broken")\ndef broken():\n    return "no", 503\n'
    with serving(tmp_path, source=source, workers=2) as server, prometheus(tmp_path, server) as api:
        assert eventually(lambda: value(api, "up") == 1.0, "a scrape")
        for _ in range(300):
            assert server.get("/broken").status == 503
        series = 'flask_http_request_total{status="503"}'
        eventually(lambda: value(api, series) == 300.0, "all requests in Prometheus")

        assert value(api, f"last_over_time({series}[1m]) - min_over_time({series}[1m])") == 300.0
        count = f'histogram_count({METRIC}{{status="503"}})'
        assert value(api, count) == 300.0
