"""The archive is bounded as a worker is: what exceeds the cap is folded, and no living counter falls."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from exporter.settings import Settings
from exporter.store import cap
from exporter.store.directory import WorkerDirectory
from tests.rig.workerfiles import NOBODY, dead, histogram, key, living, samples, total

TOTAL = "flask_http_request"


def requests(path: str, status: str = "200") -> dict[str, str]:
    return {"method": "GET", "path": path, "status": status}


def test_the_archive_keeps_the_cap(tmp_path: Path) -> None:
    """20 generations of workers with 10 paths of their own end in 50 label sets and what they fold into."""
    directory = WorkerDirectory(tmp_path, max_series=50)
    for generation in range(20):
        paths = [f"/{generation}/{number}" for number in range(10)]
        counts = {"0.5": 1.0, "+Inf": 2.0}
        dead(
            tmp_path,
            "histogram",
            NOBODY,
            {
                key: value
                for path in paths
                for key, value in histogram(
                    "flask_http_request_seconds", counts, 0.1, **requests(path)
                ).items()
            },
        )
        dead(tmp_path, "counter", NOBODY, {total("own", path=path): 1.0 for path in paths})
        seen = samples(directory)

    folded = '{method="_OTHER",path="_other",status="2xx"}'
    assert seen[f"flask_http_request_seconds_count{folded}"] == 450.0
    assert seen[f"flask_http_request_seconds_sum{folded}"] == 15.0
    assert sum(name.startswith("flask_http_request_seconds_count") for name in seen) == 51
    assert sum(value for name, value in seen.items() if "_count" in name) == 600.0
    assert sum(name.startswith("own_total") for name in seen) == 200


def test_the_cap_is_that_of_a_worker(tmp_path: Path) -> None:
    """1,000 label sets, and what the others fold into."""
    limit = Settings.load({}).max_series
    dead(tmp_path, "counter", NOBODY, {total(TOTAL, **requests(f"/{at}")): 1.0 for at in range(limit + 2)})
    directory = WorkerDirectory(tmp_path)
    directory.sweep()
    seen = samples(directory)

    assert len(seen) == limit + 1
    assert seen['flask_http_request_total{method="_OTHER",path="_other",status="2xx"}'] == 2.0


def test_a_living_counter_does_not_fall(tmp_path: Path) -> None:
    """A label set that a living worker has stays in the archive although it exceeds the cap."""
    directory = WorkerDirectory(tmp_path, max_series=1)
    first, second = (total(TOTAL, **requests(path)) for path in ("/first", "/second"))
    file = living(tmp_path, "counter", NOBODY, {second: 1.0})
    dead(
        tmp_path,
        "counter",
        NOBODY + 1,
        {first: 5.0, second: 7.0, total(TOTAL, **requests("/third", "404")): 2.0},
    )
    before = samples(directory)
    file.close()
    directory.sweep()

    assert before == {
        'flask_http_request_total{method="GET",path="/first",status="200"}': 5.0,
        'flask_http_request_total{method="GET",path="/second",status="200"}': 8.0,
        'flask_http_request_total{method="_OTHER",path="_other",status="4xx"}': 2.0,
    }
    assert samples(directory) == {
        'flask_http_request_total{method="GET",path="/first",status="200"}': 5.0,
        'flask_http_request_total{method="_OTHER",path="_other",status="2xx"}': 8.0,
        'flask_http_request_total{method="_OTHER",path="_other",status="4xx"}': 2.0,
    }


def test_a_known_rule_keeps_its_name(tmp_path: Path) -> None:
    """What a worker has folded already, a rule of the routing map among it, is not folded again."""
    directory = WorkerDirectory(tmp_path, max_series=1)
    coarse = {"method": "_OTHER", "url_rule": "/orders", "status": "4xx"}
    ordinary = {"method": "GET", "url_rule": "/", "status": "200"}
    dead(tmp_path, "counter", NOBODY, {total(TOTAL, **ordinary): 5.0, total(TOTAL, **coarse): 2.0})

    assert samples(directory) == {
        'flask_http_request_total{method="GET",status="200",url_rule="/"}': 5.0,
        'flask_http_request_total{method="_OTHER",status="4xx",url_rule="/orders"}': 2.0,
    }


def test_what_is_folded_began_with_the_first_of_it(tmp_path: Path) -> None:
    """Label sets of two workers, the later of which has the earlier name."""
    times = []
    for path in ("/c", "/b", "/a"):
        times.append(time.time())
        dead(tmp_path, "counter", NOBODY, {total(TOTAL, **requests(path)): 1.0})
        WorkerDirectory(tmp_path, max_series=1).sweep()
    times.append(time.time())
    ((family, values),) = WorkerDirectory(tmp_path, max_series=1).merge()
    began = {dict(group.labels)["path"]: group.created for group in family.groups}

    assert values == [1.0, 2.0]
    assert times[0] <= began["/c"] <= times[1] <= began["_other"] <= times[2]


def test_a_family_without_methods_keeps_what_it_has_folded(tmp_path: Path) -> None:
    """Its label sets are folded too, into one that is not folded again."""
    directory = WorkerDirectory(tmp_path, max_series=1)
    for _ in range(2):
        counts = {total("http_client_disconnects", url_rule=rule): 1.0 for rule in ("/", "/orders", "/users")}
        dead(tmp_path, "counter", NOBODY, counts)
        directory.sweep()

    assert samples(directory) == {
        'http_client_disconnects_total{url_rule="/"}': 2.0,
        'http_client_disconnects_total{url_rule="_other"}': 4.0,
    }


@pytest.mark.parametrize("stem", ["gauge_sum", "gauge_min", "gauge_mostrecent"])
def test_a_gauge_that_is_named_like_requests_has_no_cap(stem: str, tmp_path: Path) -> None:
    directory = WorkerDirectory(tmp_path, max_series=10)
    values = {key("http_request_load", "", path=f"/{number}"): float(number) for number in range(20)}
    dead(tmp_path, stem, NOBODY, values, timestamp=1.0)
    directory.sweep()

    assert samples(directory) == {f'http_request_load{{path="/{at}"}}': float(at) for at in range(20)}


@pytest.mark.parametrize(
    ("family", "capped"),
    [
        ("http_request", True),
        ("flask_http_request_total", True),
        ("a_b_http_client_disconnects", True),
        ("_http_request", False),
        ("http_requests", False),
        ("xhttp_request", False),
        ("http_request_", False),
        ("a_http_requests_" * 13_000, False),
        ("a_http_request_" * 13_000, True),
    ],
)
def test_the_families_of_requests_are_known_by_their_names(family: str, capped: bool) -> None:
    """In no time, also where the name is long: 26 s it once took."""
    assert bool(cap._REQUESTS.search(family)) is capped
