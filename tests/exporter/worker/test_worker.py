"""What a worker process keeps beside its requests; and minimum and maximum over several real workers."""

from __future__ import annotations

import gc
import logging
import os
import resource
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from exporter.store.directory import shared_path
from exporter.worker import process
from exporter.worker import worker as worker_module
from exporter.worker.flightrecorder import FlightRecorder
from exporter.worker.worker import Worker
from tests.rig.clients import drive
from tests.rig.descriptors import open_below
from tests.rig.exchanges import exchange
from tests.rig.server import Server, threaded
from tests.rig.users import as_child
from tests.rig.wsgi import Clock, Raises, application, call, counted


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def value(registry: CollectorRegistry, name: str) -> float | None:
    return registry.get_sample_value(f"flask_worker_{name}")


def test_a_registry_has_one_worker(registry: CollectorRegistry) -> None:
    assert Worker.of(registry, None) is Worker.of(registry, None)


def test_a_start_is_counted_once(registry: CollectorRegistry) -> None:
    worker = Worker.of(registry, None)
    assert value(registry, "starts_total") == 0

    worker.start()
    worker.start()

    assert value(registry, "starts_total") == 1


def test_threads_are_what_the_server_says_and_else_nobody_knows(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of granian and mod_wsgi are not Python's; of waitress' and cheroot's, some serve nobody."""
    worker = Worker.of(registry, None)
    worker.start()
    assert value(registry, "threads") is None

    for second, threads in enumerate((16, 8)):
        monkeypatch.setattr(worker_module, "_threads", threads)
        worker.tick(second)
        assert value(registry, "threads") == threads


def test_a_registry_that_nobody_holds_goes_though_it_had_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_threads", 16)
    registry = CollectorRegistry()
    Worker.of(registry, None).start()
    gone = weakref.ref(registry)
    del registry
    gc.collect()

    assert gone() is None


def test_memory_and_cpu_time_are_the_processs_own(registry: CollectorRegistry) -> None:
    worker = Worker.of(registry, None)
    worker.tick(1)
    before = value(registry, "cpu_seconds_total")
    assert before == pytest.approx(time.process_time(), abs=0.5)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert value(registry, "resident_memory_bytes") == pytest.approx(resident, rel=0.05)

    deadline = time.process_time() + 0.05
    while time.process_time() < deadline:
        pass
    worker.tick(2)

    after = value(registry, "cpu_seconds_total")
    assert before is not None
    assert after is not None
    assert after - before >= 0.05


def test_a_refresh_adds_what_was_used_since_the_one_before(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one that of the process but for earlier collections; a clock that goes back takes nothing."""
    collections = SimpleNamespace(seconds=3.0)
    monkeypatch.setattr(process, "collections", collections)
    worker = Worker.of(registry, None)
    found = []
    for second, cpu, collections.seconds in ((1, 5.0, 3.5), (2, 5.25, 3.75), (3, 5.0, 3.75), (4, 5.5, 4.0)):
        monkeypatch.setattr(time, "process_time", lambda cpu=cpu: cpu)
        worker.tick(second)
        found.append((value(registry, "cpu_seconds_total"), value(registry, "gc_seconds_total")))

    assert found == [(5.0, 0.5), (5.25, 0.75), (5.25, 0.75), (5.75, 1.0)]


@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_without_proc_memory_is_the_peak(
    system: str, unit: int, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker.of(registry, None)
    with monkeypatch.context() as other:
        other.setattr("builtins.open", Raises(FileNotFoundError()))
        other.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=5000))
        other.setattr(sys, "platform", system)
        worker.tick(1)

    assert value(registry, "resident_memory_bytes") == 5000 * unit


def test_a_collection_is_under_way_from_its_begin_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    collections = type(process.collections)()
    ages = [collections.under_way()]
    with monkeypatch.context() as clock:
        clock.setattr(time, "perf_counter", iter([1000.0, 1000.25, 1000.5]).__next__)
        collections("start", {})
        ages.append(collections.under_way())
        collections("stop", {})
        ages.append(collections.under_way())

    assert ages == [0.0, 0.25, 0.0]
    assert collections.seconds == 0.5


def test_time_in_the_garbage_collector_is_counted(registry: CollectorRegistry) -> None:
    worker = Worker.of(registry, None)
    started = time.perf_counter()
    worker.tick(1)
    before = value(registry, "gc_seconds_total")
    assert before is not None

    gc.collect()
    worker.tick(2)

    after = value(registry, "gc_seconds_total")
    assert after is not None
    assert 0 < after - before <= time.perf_counter() - started


def test_a_second_is_refreshed_once(registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker.of(registry, None)
    worker.tick(1)
    monkeypatch.setattr(worker_module, "_threads", 16)

    worker.tick(1)
    assert value(registry, "threads") != 16
    worker.tick(2)
    assert value(registry, "threads") == 16


def test_the_first_request_of_each_second_refreshes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    app, exporter = application()
    call(app, "/orders/7")
    monkeypatch.setattr(worker_module, "_threads", 16)

    clock.advance(0.5)
    call(app, "/orders/7")
    assert value(exporter.registry, "threads") != 16
    clock.advance(0.5)
    call(app, "/orders/7")
    assert value(exporter.registry, "threads") == 16


def test_a_refresh_that_fails_is_counted_and_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    app, exporter = application()
    monkeypatch.setattr(process, "_resident_bytes", Raises())

    assert call(app, "/orders/7").body == b"xxxxxxx"
    assert counted(exporter, "flask_exporter_failures_total") == {("instruments",): 1}


def test_a_server_that_tells_its_threads_begins_to_serve(registry: CollectorRegistry) -> None:
    Worker.of(registry, None)

    def serve() -> None:
        worker_module.serve(16)
        assert (worker_module.capacity(), value(registry, "threads")) == (16, 16)
        assert value(registry, "starts_total") == 1

    as_child(serve)


def test_threads_are_busy_in_this_worker_and_in_others(registry: CollectorRegistry, tmp_path: Path) -> None:
    worker = Worker.of(registry, str(tmp_path))
    mine, other = FlightRecorder(10), FlightRecorder(10, str(tmp_path))
    worker.flight_recorders.add(mine)
    requests = [exchange() for _ in range(3)]
    for flight, request in zip((mine, mine, other), requests, strict=True):
        flight.open()
        flight.enter(request)

    assert value(registry, "threads_busy") == 3


def failures(registry: CollectorRegistry) -> dict[str, float]:
    """The failures that were counted, by stage."""
    return {
        sample.labels["stage"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "flask_exporter_failures_total" and sample.value
    }


def test_a_directory_that_is_gone_costs_what_other_workers_see(
    registry: CollectorRegistry, tmp_path: Path
) -> None:
    worker = Worker.of(registry, str(tmp_path / "gone"))
    worker.tick(1)

    assert failures(registry) == {"deaths": 1}
    assert worker.slots.totals(0.0) == (0, 0)
    assert failures(registry) == {"deaths": 1, "slots": 1}


class Files:
    """The worker files of a process: some of them have been removed, and some writes had no place."""

    def __init__(self, removals: int = 0, refused: int = 0) -> None:
        self.removals = removals
        self.refused = refused
        self.reason: OSError | None = None

    def refusals(self) -> int:
        return self.refused

    def error(self) -> OSError | None:
        return self.reason

    def renew(self) -> bool:
        self.removals -= 1
        return self.removals >= 0


def test_files_that_have_been_removed_are_replaced_in_the_next_second(
    registry: CollectorRegistry, tmp_path: Path
) -> None:
    worker = Worker.of(registry, str(tmp_path), Files(removals=2))
    moves: list[int] = []
    worker.moves.append(lambda: moves.append(second))
    flight = FlightRecorder(10, str(tmp_path))
    worker.flight_recorders.add(flight)
    flight.open()
    rings = ["requests_0.ring", "slots_0.ring"]
    assert worker.slots.is_shared

    found = []
    for second in (1, 1, 2, 3):
        for path in tmp_path.iterdir():
            path.unlink()
        worker.tick(second)
        found.append(sorted(os.listdir(tmp_path)))

    assert moves == [1, 2]
    assert found == [rings, [], rings, []]


def test_writes_without_a_place_are_failures_with_their_reason(
    registry: CollectorRegistry, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """From the worker's first second on; a child leaves those of its parent to it."""
    files = Files(refused=2)
    worker = Worker.of(registry, str(tmp_path), files)
    worker.tick(1)
    assert failures(registry) == {}

    files.refused, files.reason = 5, OSError("No space left on device")

    def child() -> None:
        worker.tick(2)
        assert failures(registry) == {}

    as_child(child)
    for second, files.refused in ((2, 5), (3, 5), (4, 6), (5, 6)):
        worker.tick(second)
        assert failures(registry) == {"worker_file": files.refused - 2}
    assert [record.exc_info and record.exc_info[1] for record in caplog.records] == [files.reason]


def test_a_child_leaves_the_notes_and_slots_of_its_parent_to_it(
    registry: CollectorRegistry, tmp_path: Path
) -> None:
    worker = Worker.of(registry, str(tmp_path))
    worker.slots.entry("/orders")
    worker.count_log("ERROR")
    worker.note("slow", OSError())

    def count() -> tuple[float | None, dict[str, float]]:
        worker.count_notes()
        return registry.get_sample_value("flask_log_messages_total", {"level": "ERROR"}), failures(registry)

    def child() -> None:
        assert open_below(tmp_path) == []
        assert not worker.lock.locked()
        assert count() == (0, {})

    with worker.lock:  # by a thread that the child does not have
        as_child(child)
    assert count() == (1, {"slow": 1})


def test_slots_and_requests_move_into_the_directory_as_soon_as_there_is_one(
    registry: CollectorRegistry, tmp_path: Path
) -> None:
    directory = tmp_path / "workers"
    worker = Worker.of(registry, str(directory), Files(removals=0))
    flight = FlightRecorder(10, str(directory))
    worker.flight_recorders.add(flight)
    with pytest.raises(OSError, match="workers"):
        flight.open()
    assert not worker.slots.is_shared

    directory.mkdir()
    worker.tick(1)

    assert worker.slots.is_shared
    assert flight.is_shared


def test_log_records_are_counted_by_level(registry: CollectorRegistry) -> None:
    worker = Worker.of(registry, None)
    logger = logging.getLogger("tests.workers")
    logger.setLevel(logging.DEBUG)

    for level in (logging.DEBUG, logging.WARNING, logging.WARNING, logging.CRITICAL, 25):
        logger.log(level, "message")
    worker.count_notes()

    levels = {
        level: registry.get_sample_value("flask_log_messages_total", {"level": level})
        for level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
    }
    assert levels == {"DEBUG": 1, "INFO": 1, "WARNING": 2, "ERROR": 0, "CRITICAL": 1}


def test_a_directory_that_comes_too_late_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """prometheus_client decided at its import."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))

    with pytest.warns(UserWarning, match="has no effect, because prometheus_client was imported before"):
        assert shared_path() is None


def test_a_forked_child_begins_anew() -> None:
    """Its counts begin where the parent's were in one process; its gauges are its own."""
    app, exporter = application()
    for _ in range(3):
        call(app, "/orders/7")
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        call(app, "/orders/7")
        found = (
            counted(exporter, "flask_http_request_total")[("GET", "200")],
            counted(exporter, "flask_worker_starts_total")[()],
            exporter.core.window(),
            len(exporter.core.flight_recorder.read()),
            counted(exporter, "flask_http_requests_in_progress"),
        )
        os.write(writing, repr(found).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writing)

    assert os.read(reading, 1000).decode() == repr((4.0, 2.0, (1, 0), 1, {}))
    assert counted(exporter, "flask_http_request_total") == {("GET", "200"): 3}
    os.close(reading)


def test_a_child_of_the_same_second_has_gauges_of_its_own(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for a second request, which may never come."""
    Clock(monkeypatch)
    monkeypatch.setattr(time, "process_time", lambda: 5.0)
    worker = Worker.of(registry, None)
    worker.start()

    def child() -> None:
        worker.start()
        assert value(registry, "cpu_seconds_total") == 5.0 + 5.0

    as_child(child)


# Several workers

SLOW = """
import time
from flask import Flask
from exporter import FlaskExporter

app = Flask("slow")
exporter = FlaskExporter(app)

@app.get("/wait/<int:milliseconds>")
def wait(milliseconds):
    time.sleep(milliseconds / 1000)
    return "done"

@app.get("/quick/<name>")
def quick(name):
    return name

@app.get("/never")
def never():
    return "never"
"""


def requests(client: int) -> Iterator[tuple[str, str, dict[str, str]]]:
    for number in range(100):
        yield "GET", f"/quick/{client}-{number}", {}
        if number % 10 == 0:
            yield "GET", f"/wait/{1 + (number + client) % 30}", {}


def extremes(service: Server) -> dict[str, tuple[float, float]]:
    """Minimum and maximum of each rule, as a scrape has them, in seconds."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(service.get("/metrics").text):
        if family.name in (
            "flask_http_request_duration_min_seconds",
            "flask_http_request_duration_max_seconds",
        ):
            for sample in family.samples:
                found.setdefault(sample.labels["url_rule"], {})[family.name] = sample.value
    return {
        rule: (
            values["flask_http_request_duration_min_seconds"],
            values["flask_http_request_duration_max_seconds"],
        )
        for rule, values in found.items()
    }


def test_minimum_and_maximum_are_exact_over_four_workers(tmp_path: Path) -> None:
    """To the last digit those of the requests that the workers' flight recorders have, whoever is asked."""
    with threaded(tmp_path, SLOW, workers=4, EXPORTER_RECENT="5000") as service:
        started = time.monotonic()
        sent = drive(service.port, 8, requests)
        recorded = service.get("/monitoring/requests?limit=5000").json
        answers = [extremes(service) for _ in range(12)]
        assert time.monotonic() - started < 55, "the first requests are no longer of the last minute"

    assert sent.total() == len(recorded) == 8 * 110
    rules = {"quick": "/quick/<name>", "wait": "/wait/<int:milliseconds>"}
    durations: dict[str, list[float]] = {}
    for request in recorded:
        durations.setdefault(rules[request["endpoint"]], []).append(request["duration_ms"])
    assert durations.keys() == set(rules.values())
    expected = [edge for rule in sorted(durations) for edge in (min(durations[rule]), max(durations[rule]))]
    for found in answers:
        edges = [edge * 1e3 for rule in sorted(found) for edge in found[rule]]
        assert edges == pytest.approx(expected, abs=2e-6)
    assert answers[0]["/wait/<int:milliseconds>"][0] >= 0.001
    assert answers[0]["/wait/<int:milliseconds>"][1] >= 0.028
