"""Cells: prometheus_client's own objects and a recorder share their values, in memory and in worker files."""

from __future__ import annotations

import errno
import gc
import weakref
from collections.abc import Iterator
from inspect import getclosurevars
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary, values
from prometheus_client.multiprocess import MultiProcessCollector

from exporter.measure.cells import Cells
from exporter.store.workerfile import WorkerFile
from tests.rig.wsgi import Raises


class Process:
    """One process, and later its child, with their metrics."""

    directory: Path | None = None
    """That of the worker files; None where values are in memory."""

    def __init__(self) -> None:
        self.pid = 5_000_000
        self.registry = CollectorRegistry()
        self.cells = Cells()

    def add(self, *families: Any) -> None:
        """Add one request as a recorder does: half a second, 300 bytes."""
        counter, histogram, summary = families
        hits = self.cells.single(counter)
        hits.doubles[hits.index] += 1.0
        for family, amount in (histogram, 0.5), (summary, 300.0):
            found = self.cells.distribution(family)
            found.doubles[found.sum_at] += amount
            found.doubles[found.buckets_at[0]] += 1.0


@pytest.fixture(params=["memory", "files"])
def process(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Process]:
    process = Process()
    if request.param == "memory":
        yield process
        return
    process.directory = tmp_path
    monkeypatch.setattr(values, "MmapedDict", WorkerFile)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    value_class: Any = values.MultiProcessValue(lambda: process.pid)  # type: ignore[no-untyped-call]
    monkeypatch.setattr(values, "ValueClass", value_class)
    yield process
    for file in getclosurevars(value_class._MmapedValue__check_for_pid_change).nonlocals["files"].values():
        file.close()


def samples(collector: Any) -> dict[str, float]:
    """The samples by name, and those of buckets by their bound."""
    return {
        sample.name + "".join(sample.labels.values()): sample.value
        for family in collector.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def requests(count: float) -> dict[str, float]:
    """The samples of so many requests."""
    names = "hits_total", "seconds_bucket1.0", "seconds_bucket+Inf", "seconds_count", "bytes_count"
    return {**dict.fromkeys(names, count), "seconds_sum": count * 0.5, "bytes_sum": count * 300.0}


def test_prometheus_client_writes_where_a_recorder_adds(process: Process) -> None:
    gauge = Gauge("level", "Level.", registry=process.registry)
    cell = process.cells.single(gauge)

    cell.doubles[cell.index] += 2.0
    gauge.inc(3.0)
    assert (samples(process.registry), cell.doubles[cell.index]) == ({"level": 5.0}, 5.0)
    gauge.set(7.0)
    assert (samples(process.registry), cell.doubles[cell.index]) == ({"level": 7.0}, 7.0)


def test_a_child_goes_on_in_memory_and_begins_anew_in_files(process: Process) -> None:
    """Where a scrape adds the files of its parent: each request is in one of them."""
    families = (
        Counter("hits", "Hits.", registry=process.registry),
        Histogram("seconds", "Seconds.", buckets=(1.0,), registry=process.registry),
        Summary("bytes", "Bytes.", registry=process.registry),
    )
    process.add(*families)
    process.cells.restore()
    process.add(*families)
    assert samples(process.registry) == requests(2.0)

    process.pid += 1
    process.cells.restore()
    process.add(*families)

    assert samples(process.registry) == requests(3.0 if process.directory is None else 1.0)
    if process.directory is not None:
        merged = MultiProcessCollector(CollectorRegistry(), str(process.directory))  # type: ignore[no-untyped-call]
        assert samples(merged) == requests(3.0)


@pytest.mark.parametrize("process", ["files"], indirect=True)
def test_a_value_without_a_place_is_told_until_there_is_one(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr("exporter.posix.reserve", Raises(OSError(errno.ENOSPC, "No space left on device")))
        counter = Counter("hits", "Hits.", registry=process.registry)
        with pytest.raises(OSError, match="No space left on device"):
            process.cells.single(counter)

    cell = process.cells.single(counter)
    cell.doubles[cell.index] += 1.0
    assert samples(process.registry) == {"hits_total": 1.0}


def test_values_that_were_given_back_are_forgotten() -> None:
    """Their series may have been removed meanwhile."""
    family, cells = Counter("hits", "Hits.", ["path"], registry=None), Cells()
    cells.single(family.labels("/"))
    child = weakref.ref(family.labels("/"))

    family.remove("/")
    cells.restore()
    gc.collect()

    assert child() is None


def test_a_metric_that_a_test_suite_resets_stays_as_it_is() -> None:
    """As suites do that give a metric its first values back by hand."""
    registry, cells = CollectorRegistry(), Cells()
    counter = Counter("hits", "Hits.", registry=registry)
    cells.single(counter)

    counter._metric_init()
    cells.restore()
    counter.inc()

    assert samples(registry) == {"hits_total": 1.0}
