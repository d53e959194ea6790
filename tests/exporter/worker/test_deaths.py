"""The file of deaths: whoever reads a dead worker's ring keeps what was in it, and it is counted once."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from exporter import guard
from exporter.labels import UNMATCHED
from exporter.worker import deaths
from exporter.worker.deaths import Death
from exporter.worker.inflight import Tally, tallies
from exporter.worker.losses import Losses
from tests.rig.descriptors import open_below
from tests.rig.exchanges import exchange, keep, opened
from tests.rig.users import as_child
from tests.rig.wsgi import Raises

_processes = multiprocessing.get_context("fork")


def die(directory: Path, running: int = 1, sending: int = 0, how: int = signal.SIGKILL) -> int:
    """Let a worker die that is answering so many requests; its process id."""

    def work() -> None:
        recorder = opened(10, str(directory))
        keep(recorder, path="/done")
        requests = [exchange(path=f"/orders/{number}") for number in range(running + sending)]
        for request in requests:
            recorder.enter(request)
        for request in requests[:sending]:
            recorder.record(request)
        os.kill(os.getpid(), how)

    process = _processes.Process(target=work)
    process.start()
    process.join(60)
    assert (process.pid, process.exitcode) == (process.pid, -how)
    assert process.pid is not None
    return process.pid


def rule(method: str, path: str) -> str:
    return f"{method} {path[:8]}<id>"


def test_what_a_worker_was_answering_is_told_once(tmp_path: Path) -> None:
    pid = die(tmp_path, running=2, sending=1)
    assert deaths.dead(str(tmp_path)) == {pid}
    death = deaths.bury(str(tmp_path), pid, "SIGKILL")

    assert death is not None
    assert (death.pid, death.cause, death.stack) == (pid, "SIGKILL", ())
    assert [(one.path, one.state, one.answered) for one in death.requests] == [
        ("/orders/0", "sending", True),
        ("/orders/1", "running", False),
        ("/orders/2", "running", False),
    ]
    assert deaths.latest(str(tmp_path)) == [death]
    assert deaths.dead(str(tmp_path)) == set()
    again = deaths.bury(str(tmp_path), pid, "exit 0")
    assert again is None
    assert open_below(tmp_path) == []


@pytest.mark.parametrize(
    ("exitcode", "cause"), [(0, "exit 0"), (1, "exit 1"), (-1, "SIGHUP"), (-9, "SIGKILL"), (-40, "signal 40")]
)
def test_a_cause_is_named_by_the_code_or_the_signal(exitcode: int, cause: str) -> None:
    assert deaths.cause_of(exitcode) == cause


@pytest.mark.parametrize(("now", "age"), [(1.2500004, 0.25), (1.0, 0.0), (0.5, 0.0)])
def test_a_request_has_the_age_that_it_had_when_the_ring_was_read(
    now: float, age: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In microseconds; its start was at 1.0."""
    pid = die(tmp_path)
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    death = deaths.bury(str(tmp_path), pid, "SIGKILL")

    assert death is not None
    assert [request.age_seconds for request in death.requests] == [age]


@pytest.mark.parametrize("cause", ["exit 0", "SIGTERM", "SIGINT", "SIGQUIT"])
def test_a_worker_that_is_told_to_end_and_had_nothing_to_do_is_no_death(cause: str, tmp_path: Path) -> None:
    pid = die(tmp_path, running=0)

    assert deaths.bury(str(tmp_path), pid, cause) is None
    assert deaths.latest(str(tmp_path)) == []


def test_its_last_requests_stay_for_the_next_worker(tmp_path: Path) -> None:
    pid = die(tmp_path)
    deaths.bury(str(tmp_path), pid, "SIGKILL")
    recorder = opened(10, str(tmp_path))

    assert [path.name for path in tmp_path.glob("requests_*")] == ["requests_0.ring"]
    assert [request.path for request in recorder.read()] == ["/done"]


def test_what_it_was_answering_is_not_in_progress_in_the_next_worker(tmp_path: Path) -> None:
    """Also what had no place in its ring."""
    pid = die(tmp_path, running=70)
    deaths.bury(str(tmp_path), pid, "SIGKILL")
    recorder = opened(10, str(tmp_path))

    assert recorder.in_flight() == []
    assert tallies(str(tmp_path)) == [Tally(0, "flask_", 0)]


def test_a_living_worker_is_not_buried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it waited for, unless somebody knows that it has ended."""
    recorder = opened(10, str(tmp_path))
    request = exchange()
    recorder.enter(request)
    monkeypatch.setattr(time, "sleep", Raises())

    assert deaths.dead(str(tmp_path)) == set()
    death = deaths.bury(str(tmp_path), os.getpid(), "SIGKILL")
    assert death is not None
    assert death.requests == ()
    assert [entry.request.request_id for entry in recorder.in_flight()] == [request.request_id]


def test_a_worker_that_takes_the_ring_meanwhile_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was answering is told of it, though it dies before anybody looks."""
    first = die(tmp_path, running=0)
    lock, others = guard.lock, list[int]()

    def late(descriptor: int, operation: int, seconds: float = 0.0) -> bool:
        if os.path.samestat(os.fstat(descriptor), os.stat(tmp_path / "requests_0.ring")):
            monkeypatch.undo()
            others.append(die(tmp_path, running=2))
        return lock(descriptor, operation, seconds)

    monkeypatch.setattr(guard, "lock", late)
    death = deaths.bury(str(tmp_path), first, "SIGKILL")

    assert death is not None
    assert death.requests == ()
    assert deaths.dead(str(tmp_path)) == {*others} != set()


def test_deaths_are_counted_once_with_the_rules_of_their_requests(tmp_path: Path) -> None:
    """In whichever worker comes first; what was answered is not lost."""
    registries = [CollectorRegistry(), CollectorRegistry()]
    workers = [Losses(registry, str(tmp_path)) for registry in registries]
    for worker, registry in zip(workers, registries, strict=True):
        worker.declare(registry)
    routes = Routing()
    for worker in workers:
        worker.routes.add(routes)
    for cause in ("SIGKILL", "exit 3"):
        deaths.bury(str(tmp_path), die(tmp_path, running=2, sending=1), cause)
        for worker in workers * 2:
            worker.refresh()

    def value(name: str, **labels: str) -> list[float]:
        return [registry.get_sample_value(name, labels) or 0.0 for registry in registries]

    assert value("flask_worker_deaths_total", cause="SIGKILL") == [1.0, 0.0]
    assert value("flask_worker_deaths_total", cause="exit 3") == [1.0, 0.0]
    assert value("flask_http_requests_lost_total", url_rule="GET /orders/<id>", cause="SIGKILL") == [2.0, 0.0]
    assert [one.url_rule for one in deaths.latest(str(tmp_path))[0].requests] == ["GET /orders/<id>"] * 3


class Routing:
    def rule(self, method: str, path: str) -> str:
        return rule(method, path)


def test_where_nobody_knows_the_cause_the_others_tell_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """After a while in which somebody may know it; without the rules it is unmatched."""
    pid = die(tmp_path)
    registry = CollectorRegistry()
    worker = Losses(registry, str(tmp_path))
    worker.declare(registry)
    worker.refresh()
    assert deaths.latest(str(tmp_path)) == []
    assert not (tmp_path / deaths.FILE).exists()

    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 6.0)
    worker.refresh()
    (death,) = deaths.latest(str(tmp_path))

    assert (death.pid, death.cause, [one.path for one in death.requests]) == (pid, "unknown", ["/orders/0"])
    assert registry.get_sample_value("flask_worker_deaths_total", {"cause": "unknown"}) == 1.0
    labels = {"url_rule": UNMATCHED, "cause": "unknown"}
    assert registry.get_sample_value("flask_http_requests_lost_total", labels) == 1.0
    assert [record.getMessage() for record in caplog.records] == [str(death)]


@pytest.mark.parametrize(("number", "others"), [(9, ""), (10, ""), (11, " and 1 more"), (12, " and 2 more")])
def test_the_line_of_the_log_has_ten_requests_and_cannot_be_forged(number: int, others: str) -> None:
    lost = deaths.LostRequest("5f2b", "GET", '/a"\n2026 ERROR \x1b[31m', "", 1.25, "running", answered=False)
    death = Death(1.7e9, 7, "SIGKILL", (lost,) * number)

    assert str(death) == (
        "worker 7 died: SIGKILL, perhaps for want of memory; it was answering "
        + ", ".join(['GET "/a\\"\\n2026 ERROR \\u001b[31m" (5f2b, 1.2 s, running)'] * min(number, 10))
        + others
    )


def line(**changes: object) -> bytes:
    death = {"timestamp": 1.7e9, "pid": 7, "cause": "SIGKILL", "requests": [], "stack": [], "counted": True}
    return json.dumps({**death, **changes}).encode() + b"\n"


LOST = {
    "request_id": "a",
    "method": "GET",
    "path": "/",
    "script_name": "",
    "age_seconds": 0.0,
    "state": "running",
    "answered": False,
    "url_rule": None,
}


@pytest.mark.parametrize(
    "bad",
    [
        b"garbage\n",
        b"[]\n",
        b"{}\n",
        b"\xff\n",
        line()[:40] + b"\n",
        line(timestamp="now"),
        line(timestamp=1e11),
        line(timestamp=1e300),
        line(timestamp=float("nan")),
        line(cause=None),
        line(requests=None),
        line(requests=[LOST | {"path": 7}]),
        line(requests=[LOST | {"age_seconds": -1}]),
        line(stack="x"),
        line(more=1),
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_line_that_is_none_of_ours_costs_itself(bad: bytes, tmp_path: Path) -> None:
    (tmp_path / deaths.FILE).write_bytes(line(pid=1) + bad + line(pid=2, requests=[LOST]))

    assert [death.pid for death in deaths.latest(str(tmp_path))] == [2, 1]


def test_the_file_keeps_a_hundred_and_those_that_nobody_has_counted(tmp_path: Path) -> None:
    (tmp_path / deaths.FILE).write_bytes(
        b"".join(line(pid=pid) for pid in range(150))
        + b"".join(line(pid=pid, counted=False) for pid in (1, 2))
    )
    deaths.bury(str(tmp_path), 999, "SIGKILL")

    assert [death.pid for death in deaths.latest(str(tmp_path))] == [999, 2, 1, *range(149, 49, -1)]
    for number in (3, 0):
        with deaths.new_deaths(str(tmp_path), rule) as (new, mark):
            assert len(new) == number
            mark()
    deaths.bury(str(tmp_path), 1000, "SIGKILL")
    assert [death.pid for death in deaths.latest(str(tmp_path))] == [1000, 999, 2, 1, *range(149, 52, -1)]


def test_what_a_worker_did_not_come_to_count_is_counted_by_the_next(tmp_path: Path) -> None:
    """Only the mark takes a death from the others; what stands in its paths does not."""
    path = '"counted": false'
    (tmp_path / deaths.FILE).write_bytes(line(pid=1, counted=False, requests=[LOST | {"path": path}]))
    for _ in range(2):
        with pytest.raises(MemoryError), deaths.new_deaths(str(tmp_path), rule):
            raise MemoryError
    with deaths.new_deaths(str(tmp_path), rule) as (new, mark):
        mark()

    assert [death.pid for death in new] == [1]
    with deaths.new_deaths(str(tmp_path), rule) as (new, _):
        assert new == []
    (death,) = deaths.latest(str(tmp_path))
    assert (death.counted, death.requests[0].path, death.requests[0].url_rule) == (
        True,
        path,
        rule("GET", path),
    )


def test_the_file_keeps_what_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest ones."""
    monkeypatch.setattr(deaths, "_BYTES", 2000)
    for pid in range(1, 101):
        deaths.bury(str(tmp_path), pid, "SIGKILL")

    kept = [death.pid for death in deaths.latest(str(tmp_path))]
    assert 1800 < (tmp_path / deaths.FILE).stat().st_size <= 2000
    assert kept == list(range(100, 100 - len(kept), -1))


@pytest.mark.parametrize(("url_rule", "kept"), [("/a", [7]), ("/ab", [])], ids=["fits", "too long"])
def test_a_death_may_fill_the_file(
    url_rule: str, kept: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the rule of its request it is as long as before, or too long to be kept; it is counted once."""
    monkeypatch.setattr(deaths, "_BYTES", 2000)
    size = len(line(counted=False, cause="", requests=[LOST]))
    death = line(counted=False, cause="x" * (2000 - size), requests=[LOST])
    (tmp_path / deaths.FILE).write_bytes(death)
    for number in (1, 0):
        with deaths.new_deaths(str(tmp_path), lambda *_: url_rule) as (new, mark):
            assert len(new) == number
            mark()

    assert [death.pid for death in deaths.latest(str(tmp_path))] == kept


def test_a_file_that_is_too_large_is_begun_anew(tmp_path: Path) -> None:
    with (tmp_path / deaths.FILE).open("wb") as file:
        file.truncate(1 << 40)
    deaths.bury(str(tmp_path), 999, "SIGKILL")

    assert [death.pid for death in deaths.latest(str(tmp_path))] == [999]


def test_a_death_that_cannot_be_kept_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody holds the file for longer than anybody needs it."""
    pid = die(tmp_path)
    monkeypatch.setattr(deaths, "_PATIENCE", 0.01)
    with (tmp_path / deaths.FILE).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match="another process has locked the deaths"):
            deaths.bury(str(tmp_path), pid, "SIGKILL")
    death = deaths.bury(str(tmp_path), pid, "SIGKILL")

    assert death is not None
    assert len(death.requests) == 1


def test_a_death_for_which_the_disk_is_too_full_is_read_again(tmp_path: Path) -> None:
    """A limit on file sizes stands in for the full disk."""
    pid = die(tmp_path)

    def bury() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        with pytest.raises(OSError, match="No space left on device"):
            deaths.bury(str(tmp_path), pid, "SIGKILL")

    as_child(bury)
    death = deaths.bury(str(tmp_path), pid, "SIGKILL")

    assert death is not None
    assert [request.path for request in death.requests] == ["/orders/0"]


@pytest.mark.parametrize(
    ("content", "stack"),
    [
        (b"", ()),
        (b"x" * 70_000, ("x" * 200,)),
        (b"\xff\xfe\n" * 200, ("\ufffd\ufffd",) * 100),
    ],
)
def test_whatever_stands_in_the_file_of_a_crash_is_shown_within_bounds(
    content: bytes, stack: tuple[str, ...], tmp_path: Path
) -> None:
    """And once: the next worker of this ring has not written it."""
    pid = die(tmp_path)
    (tmp_path / "stack_0.ring").write_bytes(content)
    death = deaths.bury(str(tmp_path), pid, "SIGSEGV")

    assert death is not None
    assert death.stack == stack
    again = deaths.bury(str(tmp_path), die(tmp_path), "SIGKILL")
    assert again is not None
    assert again.stack == ()
