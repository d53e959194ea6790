"""Native buckets: where a process counts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from bisect import bisect_left
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.mmap_dict import MmapedDict

from exporter.buckets import BOUNDS
from exporter.measure.native import Natives
from exporter.worker.failures import Failures
from tests.rig.clientmodel import families, native_buckets
from tests.rig.users import as_child
from tests.rig.wsgi import Clock, Raises, application, call, counted

PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"


def test_a_forked_child_counts_in_a_file_of_its_own(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    natives = Natives(str(tmp_path), Failures(registry))
    family = Histogram("seconds", "Seconds.", ["path"], registry=registry)

    def count() -> float:
        doubles, at = natives.buckets(family, {"path": "/"})[7]
        doubles[at] += 1.0
        return float(doubles[at])

    def count_in_the_child() -> None:
        assert count() == 1.0
        assert len(list(tmp_path.glob(f"native_{os.getpid()}*"))) == 1

    assert count() == 1.0
    as_child(count_in_the_child)
    assert count() == 2.0
    assert len(list(tmp_path.glob("native_*"))) == 2


def test_a_bucket_has_its_index_in_memory_and_in_a_file(tmp_path: Path) -> None:
    """That of schema 3: 0.3 s lie between 2 ** (-14 / 8) and 2 ** (-13 / 8) s."""
    registry = CollectorRegistry()
    family = Histogram("seconds", "Seconds.", ["path"], registry=registry)
    failures = Failures(registry)
    memory, file = (Natives(directory, failures) for directory in (None, str(tmp_path)))
    for natives in memory, file:
        doubles, at = natives.buckets(family, {"path": "/"})[bisect_left(BOUNDS, 0.3)]
        doubles[at] += 1.0
    (path,) = tmp_path.glob("native_*")
    values = MmapedDict.read_all_values_from_file(str(path))  # type: ignore[no-untyped-call]

    assert memory.counts("seconds") == {(("path", "/"),): {-13: 1.0}}
    assert [(json.loads(key)[1], value) for key, value, *_ in values] == [("seconds:-13", 1.0)]


def test_a_file_that_cannot_be_made_is_tried_again_after_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then its buckets are counted nowhere, which a scrape can tell; and the failures are told."""
    clock, registry, faulty = Clock(monkeypatch), CollectorRegistry(), Raises()
    family = Histogram("seconds", "Seconds.", ["path"], registry=registry)
    natives = Natives(str(tmp_path), Failures(registry))

    def count(position: int) -> float:
        doubles, at = natives.buckets(family, {"path": "/"})[position]
        doubles[at] += 1.0
        return float(doubles[at])

    with monkeypatch.context() as broken:
        broken.setattr("exporter.measure.native.WorkerFile", faulty)
        for seconds, calls in (0.0, 1), (0.75, 1), (0.25, 2), (0.75, 2):
            clock.advance(seconds)
            assert (count(7), faulty.calls) == (1.0, calls)
    assert count(7) == 1.0
    clock.advance(0.25)

    assert [count(7), count(8), count(7), count(8)] == [1.0, 1.0, 2.0, 2.0]
    stage = {"stage": "worker_file"}
    assert registry.get_sample_value("flask_exporter_failures_total", stage) == 2.0


def exposed(app: Any, name: str) -> list[tuple[int, dict[int, int]]]:
    """The count and the native buckets of each series of this family that has a request."""
    body = call(app, "/metrics", variables={"HTTP_ACCEPT": PROTOBUF}).body
    (family,) = (family for family in families(body) if family.name == name)
    found = [metric.histogram for metric in family.metric if metric.histogram.sample_count]
    return [(one.sample_count, native_buckets(one)) for one in found]


def test_the_time_in_the_queue_has_native_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    app, _ = application(trusted_proxies="192.0.2.7")
    for start in ("1700000999.7", "1700000999.7", "1700000996"):
        call(app, "/orders/7", variables={"HTTP_X_REQUEST_START": start, "REMOTE_ADDR": "192.0.2.7"})

    assert exposed(app, "flask_http_request_queue_seconds") == [(3, {-13: 2, 16: 1})]


def test_without_native_buckets_the_time_in_the_queue_is_counted_too() -> None:
    app, exporter = application(trusted_proxies="192.0.2.7", native_histograms=False)
    call(app, "/orders/7", variables={"HTTP_X_REQUEST_START": "1700000999.7", "REMOTE_ADDR": "192.0.2.7"})

    assert exposed(app, "flask_http_request_queue_seconds") == [(1, {})]
    assert counted(exporter, "flask_exporter_failures_total") == {}


def test_a_child_without_files_goes_on_with_what_it_has_of_its_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In both forms of the histogram alike."""
    clock = Clock(monkeypatch)
    app, exporter = application()
    app.add_url_rule("/<float:seconds>", "wait", clock.advance)
    natives = exporter.core.worker.instruments["flask_"].natives
    name = "flask_http_request_duration_seconds"

    def in_the_child() -> None:
        call(app, "/4.0")
        assert [counts for counts in natives.counts(name).values() if counts] == [{16: 2.0}]
        assert counted(exporter, f"{name}_count") == {("GET", "/<float:seconds>", "200"): 2.0}

    call(app, "/4.0")
    as_child(in_the_child)


def test_after_a_clearing_native_buckets_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    app, exporter = application()
    app.add_url_rule("/<float:seconds>", "wait", clock.advance)
    for _ in range(2):
        call(app, "/4.0")
        assert exposed(app, "flask_http_request_duration_seconds") == [(1, {16: 1})]
        (instruments,) = exporter.core.worker.instruments.values()
        instruments.metrics.duration.clear()


REPLACED = """
import os
import subprocess
import sys
import pytest
from tests.exporter.measure.test_native import exposed
from tests.rig.wsgi import Clock, Counts, application, call

clock = Clock(pytest.MonkeyPatch())
app, exporter = application()
app.add_url_rule("/<float:seconds>", "wait", clock.advance)
call(app, "/4.0")
for entry in list(os.scandir(os.environ["PROMETHEUS_MULTIPROC_DIR"])):
    if entry.is_file():
        os.unlink(entry)
for _ in range(3):
    call(app, "/4.0")

assert Counts(exporter).failures == {}
assert exposed(app, "flask_http_request_duration_seconds") == [(4, {16: 4})]
"""


def test_a_process_whose_files_were_removed_counts_on_in_new_ones(tmp_path: Path) -> None:
    """From the second on in which it finds that out, with all that it had counted."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", REPLACED], env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
