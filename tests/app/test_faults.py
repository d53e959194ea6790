"""Latency and errors on demand."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry

from app import create_app, faults


class Clock:
    """Stands in for the module `time`: notes how long it was to sleep, and does not."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(faults, "time", clock)
    monkeypatch.setattr(faults, "WAITS", dict.fromkeys(faults.WAITS, clock.sleep))
    return clock


@pytest.fixture
def client(tmp_path: Path) -> Iterator[FlaskClient]:
    with create_app({"DATABASE": tmp_path / "orders.db"}, CollectorRegistry()).test_client() as client:
        yield client


def test_normal(client: FlaskClient) -> None:
    """The normal one answers 200."""
    answer = client.get("/test/normal")

    assert (answer.status_code, answer.get_json()) == (200, {"status": "ok"})


def test_slow_takes_one_to_three_seconds(client: FlaskClient, clock: Clock) -> None:
    """Without a wish, it takes between 1 and 3 s, differently each time, and says how long."""
    answers = [client.get("/test/slow").get_json()["seconds"] for _ in range(100)]

    assert clock.slept == answers
    assert len(set(answers)) == 100
    assert 1 <= min(answers) < 1.5
    assert 2.5 < max(answers) <= 3


@pytest.mark.parametrize(("wish", "seconds"), [("0", 0), ("0.25", 0.25), ("10", 10), ("1e-2", 0.01)])
def test_slow_takes_what_is_asked(client: FlaskClient, clock: Clock, wish: str, seconds: float) -> None:
    """?seconds= decides how long it takes."""
    answer = client.get(f"/test/slow?seconds={wish}")

    assert (answer.status_code, answer.get_json()["seconds"], clock.slept) == (200, seconds, [seconds])


@pytest.mark.parametrize("wish", ["-1", "10.01", "nan", "inf", "soon", ""])
def test_slow_refuses_other_values(client: FlaskClient, clock: Clock, wish: str) -> None:
    """Anything that is no number from 0 to 10 is a 400 that names it, at once."""
    answer = client.get(f"/test/slow?seconds={wish}")

    assert answer.status_code == 400
    assert answer.get_json()["field"] == "seconds"
    assert answer.get_json()["message"] == f"seconds must be a number from 0 to 10, not {wish!r}"
    assert clock.slept == []


@pytest.mark.parametrize(("query", "seconds"), [("", 120), ("?seconds=0.5", 0.5), ("?seconds=3600", 3600)])
def test_stuck_gives_no_answer_for_a_while(
    client: FlaskClient, clock: Clock, query: str, seconds: float
) -> None:
    """Two minutes unless the query says otherwise, an hour at most."""
    answer = client.get(f"/test/stuck{query}")

    assert (answer.status_code, answer.get_json(), clock.slept) == (200, {"seconds": seconds}, [seconds])
    refused = client.get("/test/stuck?seconds=3601")
    assert refused.get_json()["message"] == "seconds must be a number from 0 to 3600, not '3601'"


def test_crash_ends_its_process(client: FlaskClient) -> None:
    """With a segmentation fault, and without an answer."""
    child = os.fork()
    if child == 0:
        faulthandler.disable()  # pytest's would print the stack
        client.get("/test/crash")
        os._exit(0)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGSEGV


def test_slow_waits_for_this_and_that(client: FlaskClient, clock: Clock) -> None:  # noqa: ARG001  nothing waits
    """A query, a lock or a call, by chance."""
    causes = {client.get("/test/slow").get_json()["on"] for _ in range(100)}

    assert causes == {"query", "lock", "call"}


@pytest.mark.parametrize("cause", ["query", "lock", "call"])
@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_slow_really_waits(client: FlaskClient, cause: str, seconds: float) -> None:
    """?on= decides for what."""
    started = time.monotonic()
    answer = client.get(f"/test/slow?seconds={seconds}&on={cause}")

    assert answer.get_json() == {"seconds": seconds, "on": cause}
    assert time.monotonic() - started >= seconds


@pytest.mark.parametrize("cause", ["sleep", "", "Query"])
def test_slow_refuses_other_causes(client: FlaskClient, clock: Clock, cause: str) -> None:
    """Anything else is a 400 that names it, at once."""
    answer = client.get(f"/test/slow?on={cause}")

    assert (answer.status_code, answer.get_json()["field"], clock.slept) == (400, "on", [])
    assert answer.get_json()["message"] == f"on must be one of query, lock, call, not {cause!r}"


def test_error_raises(client: FlaskClient) -> None:
    """The error is a ValueError that nobody handles."""
    client.application.testing = True  # hands the exception on

    with pytest.raises(ValueError, match="raised on demand by /test/error"):
        client.get("/test/error")


@pytest.mark.parametrize(("path", "status"), [("error", 500), ("notfound", 404), ("server-error", 500)])
def test_status(client: FlaskClient, path: str, status: int) -> None:
    """Each fault answers with its status."""
    assert client.get(f"/test/{path}").status_code == status


def test_stream_takes_a_second(client: FlaskClient, clock: Clock) -> None:
    """Ten chunks, a tenth of a second before each."""
    answer = client.get("/test/stream", buffered=False)
    chunks = list(answer.iter_encoded())

    assert chunks == [f"chunk {number} of 10\n".encode() for number in range(1, 11)]
    assert clock.slept == [0.1] * 10
    assert "Content-Length" not in answer.headers
