"""Percentiles and first errors are true: a real Prometheus with the shipped rules reads real workers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from prometheus.run import dialect, scale
from prometheus.tools.toolbox import executable
from tests.rig.deadline import eventually
from tests.rig.network import free_ports, get_json
from tests.rig.places import ROOT
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

@app.get("/broken")
def broken():
    return "no", 503
"""
METRIC = "flask_http_request_duration_seconds"


@contextmanager
def prometheus(directory: Path, server: Server, factor: int = 1) -> Iterator[str]:
    """The address of the API of a Prometheus with the shipped configuration that scrapes the server."""
    (port,) = free_ports(1)
    shipped = ROOT / "prometheus"
    shutil.copytree(shipped / "rules", directory / "rules")
    configuration = dialect.translate(
        yaml.safe_load((shipped / "prometheus.yml").read_text(encoding="utf-8"))
    )
    configuration["global"] |= dict.fromkeys(
        ("scrape_interval", "scrape_timeout", "evaluation_interval"), f"{max(1, factor // 5)}s"
    )
    (directory / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    if factor != 1:
        scale.directory(directory, factor)
    (directory / "targets").mkdir()
    target = {"targets": [f"127.0.0.1:{server.port}"], "labels": {"service": "timed"}}
    (directory / "targets/app.yml").write_text(yaml.safe_dump([target]))
    command = [
        str(executable("prometheus")),
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--enable-feature={dialect.features()}",
        *scale.flags(factor),
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


def exact(server: Server, path: str) -> list[float]:
    """Every duration of a path in seconds that the service itself has measured."""
    requests = json.loads(server.get("/monitoring/requests?limit=10000").body)
    return [request["duration_ms"] / 1000 for request in requests if request["path"] == path]


def ask(server: Server, path: str, requests: int, threads: int) -> None:
    with ThreadPoolExecutor(threads) as clients:
        for answer in clients.map(lambda _: server.get(path), range(requests)):
            assert answer.status == 200


def recorded(api: str, path: str, requests: int) -> Iterator[tuple[int, float, float]]:
    """Percent, recorded value and value of the classic buckets, as soon as they are of so many requests."""
    series = f'{METRIC}{{url_rule="{path}",status="200"}}'
    eventually(lambda: value(api, f"histogram_count({series})") == requests, "all requests", 60)
    complete = value(api, "vector(time())")
    assert complete is not None
    # Three groups of rules, each a second after the other.
    last = f'timestamp(url_rule:{METRIC}:p99_5m{{url_rule="{path}"}})'
    eventually(lambda: (value(api, last) or 0) > complete + 4, "a record", 60)
    for percent in (50, 95, 99):
        native = value(api, f'url_rule:{METRIC}:p{percent}_5m{{url_rule="{path}"}}')
        buckets = f'url_rule:{METRIC}_bucket:rate_5m{{url_rule="{path}"}}'
        classic = value(api, f"histogram_quantile({percent / 100}, {buckets})")
        yield percent, native or 0.0, classic or 0.0


@pytest.mark.soak
def test_recorded_percentiles_are_those_of_the_requests(tmp_path: Path) -> None:
    """To within 2 % in the median and one bucket at worst, over four workers of which three are killed."""
    paths = {"/fast": 2, "/peaks": 8, "/even": 256}
    options = ("--worker-class", "gthread", "--threads", "64")
    rows = []
    with (
        serving(tmp_path, *options, source=SOURCE, workers=4, EXPORTER_RECENT="10000") as server,
        prometheus(tmp_path, server) as api,
    ):
        assert eventually(lambda: value(api, "up") == 1.0, "a scrape", 60)
        for path, threads in paths.items():
            ask(server, path, 1500, threads)
            os.kill(int(server.get("/fast").body), signal.SIGKILL)
            eventually(lambda: server.get("/health/live").status == 200, "an answer", 60)
            ask(server, path, 1500, threads)
            durations = exact(server, path)
            cuts = statistics.quantiles(durations, n=1000, method="inclusive")
            for percent, native, classic in recorded(api, path, len(durations)):
                rows.append((path, percent, native, classic, cuts[percent * 10 - 1]))
    for path, percent, native, classic, true in rows:
        print(f"{path} p{percent}: native {native:.6f}, classic {classic:.6f}, exact {true:.6f}")
    errors = [abs(native / true - 1) for _, _, native, _, true in rows]

    assert statistics.median(errors) <= 0.02
    # Within a bucket all values look alike: that is how far the edge of a narrow peak can be off.
    assert max(errors) <= 2 ** (1 / 8) - 1


@pytest.mark.parametrize("told", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_burst_of_errors_between_two_scrapes_is_a_burst(tmp_path: Path, told: bool) -> None:
    """The first scrape of a new process finds 60 answers of 503 and 20 of 200, and all of them count.

    Ten times as fast as in life; faster, a late scrape would be longer than the windows. The budget and the
    alert take minutes of that.
    """
    ratio = f"job:{METRIC}:error_ratio_5m"
    budget = 'min(slo:flask_http_requests:budget_left_30d{slo="errors"})'
    firing = 'ALERTS{alertname="FlaskErrorRatioCritical",alertstate="firing",service="timed"}'
    with serving(tmp_path, source=SOURCE, workers=2) as server:
        ask(server, "/fast", 20, 2)
        for _ in range(60):
            assert server.get("/broken").status == 503
        with prometheus(tmp_path, server, factor=10) as api:
            eventually(lambda: value(api, ratio) is not None, "a ratio", 60)
            burst = value(api, ratio)
            if told:
                eventually(lambda: (value(api, budget) or 1.0) < 0.0, "a budget that is spent", 60)
                eventually(lambda: value(api, firing) == 1.0, "an alert", 60)

    assert burst == pytest.approx(0.75, abs=0.05)
