"""The load generator against the service as gunicorn serves it."""

from __future__ import annotations

import os
import socket
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.rig.deadline import eventually
from tests.rig.program import Program, module


def program(log: Path, *arguments: str, **variables: str) -> Program:
    """`python -m …` from the top of the repository."""
    return Program(module(*arguments), log, {**os.environ, **variables})


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    """The address of the service under two workers."""
    with program(
        tmp_path / "service.log",
        "gunicorn",
        "--config=app/gunicorn.conf.py",
        APP_BIND="127.0.0.1:0",
        APP_DATABASE=str(tmp_path / "orders.db"),
        PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "workers"),
        WEB_CONCURRENCY="2",
        EXPORTER_DRAIN="0",
    ) as gunicorn:
        yield gunicorn.await_text(r"Listening at: (http://127\.0\.0\.1:\d+)")[1]
        assert gunicorn.end(seconds=10) == 0


@contextmanager
def traffic(tmp_path: Path, target: str, users: int, error_ratio: float) -> Iterator[Program]:
    """Send traffic to the target; it must end well when it is asked to."""
    with program(
        tmp_path / "traffic.log",
        "app.traffic",
        TARGET=target,
        TRAFFIC_USERS=str(users),
        TRAFFIC_ERROR_RATIO=str(error_ratio),
        TRAFFIC_HEARTBEAT=str(tmp_path / "heartbeat"),
    ) as locust:
        yield locust
        assert locust.end(seconds=10) == 0, locust.text()


def samples(address: str, name: str, *labels: str) -> Counter[tuple[str, ...]]:
    """The values of a metric, summed by these labels."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: Counter[tuple[str, ...]] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.value:
                found[tuple(sample.labels[label] for label in labels)] += int(sample.value)
    return found


def test_every_kind_of_request_is_sent(service: str, tmp_path: Path) -> None:
    """Every route is visited, every kind of answer provoked, and clients hang up: each panel has its data."""
    expected = {
        ("GET", "/", "200"),
        ("GET", "/orders", "200"),
        ("POST", "/orders", "201"),
        ("POST", "/orders", "400"),
        ("GET", "/orders/<int:order_id>", "200"),
        ("GET", "/orders/<int:order_id>", "404"),
        ("GET", "/test/normal", "200"),
        ("GET", "/test/slow", "200"),
        ("GET", "/test/stream", "200"),
        ("GET", "/test/notfound", "404"),
        ("GET", "/test/error", "500"),
        ("GET", "/test/server-error", "500"),
        ("GET", "_unmatched", "404"),
        ("DELETE", "_unmatched", "405"),
    }

    def requests() -> set[tuple[str, ...]]:
        name = "flask_http_request_duration_seconds_count"
        return set(samples(service, name, "method", "url_rule", "status"))

    def disconnects() -> set[tuple[str, ...]]:
        return set(samples(service, "flask_http_client_disconnects_total", "url_rule"))

    with traffic(tmp_path, service, users=60, error_ratio=0.05):
        eventually(lambda: expected <= requests() and disconnects(), "every kind of request", 120)

    assert requests() == expected
    assert disconnects() == {("/test/stream",)}


def test_normal_traffic_meets_the_objectives(service: str, tmp_path: Path) -> None:
    """No error but those that are asked for, and 95 % of the answers within half a second."""
    name = "flask_http_request_duration_seconds"

    with traffic(tmp_path, service, users=20, error_ratio=0):
        eventually(lambda: samples(service, f"{name}_count").total() >= 250, "250 requests", 120)

    by_status = samples(service, f"{name}_count", "status")
    fast = samples(service, f"{name}_bucket", "le")["0.5",]
    # Whether a few hundred requests have a rare 4xx among them is chance; that none is a 5xx is not.
    assert set(by_status) - {("400",), ("404",), ("405",)} == {("200",), ("201",)}
    assert fast / by_status.total() > 0.95


def test_no_users_send_nothing(tmp_path: Path) -> None:
    """With TRAFFIC_USERS=0 it keeps up its heartbeat, asks for nothing, and ends when it is told to."""
    heartbeat = tmp_path / "heartbeat"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with traffic(tmp_path, address, users=0, error_ratio=0.0002):
            eventually(heartbeat.exists, "a heartbeat")
            first = heartbeat.stat().st_mtime_ns
            eventually(lambda: heartbeat.stat().st_mtime_ns > first, "another heartbeat")
        with pytest.raises(BlockingIOError):  # nobody has called
            listener.accept()


def test_absent_service_is_told(tmp_path: Path) -> None:
    """It says that nobody answers, goes on, and still ends when it is told to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"

    with traffic(tmp_path, address, users=2, error_ratio=0) as locust:
        unanswered = locust.await_text(rf"WARNING (\d+) requests got no answer from {address}")[1]

    assert int(unanswered) > 0
    assert "Traceback" not in locust.text()


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("TARGET", "app:8000", "give an address such as http://127.0.0.1:8000"),
        ("TRAFFIC_USERS", "-1", "give a whole number from 0 to 1000"),
        ("TRAFFIC_USERS", "1.5", "give a whole number from 0 to 1000"),
        ("TRAFFIC_USERS", "many", "give a whole number from 0 to 1000"),
        ("TRAFFIC_ERROR_RATIO", "5%", "give a number from 0 to 1.0"),
        ("TRAFFIC_ERROR_RATIO", "nan", "give a number from 0 to 1.0"),
    ],
)
def test_unusable_setting_ends_it(tmp_path: Path, name: str, value: str, remedy: str) -> None:
    """A setting that cannot be used ends it at once with one line that names it."""
    with program(tmp_path / "traffic.log", "app.traffic", **{name: value}) as locust:
        assert locust.process.wait(20) == 1

    assert locust.text() == f"{name} is {value!r}: {remedy}\n"
