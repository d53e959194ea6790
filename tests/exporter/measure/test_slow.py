"""Slow requests: the right function is blamed, and all of their time is somewhere."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest
from flask.views import MethodView

from exporter import FlaskExporter
from exporter.observation import Delay
from tests.rig.causes import CAUSES, HOLDERS, where
from tests.rig.exchanges import exchange
from tests.rig.places import ROOT
from tests.rig.server import WORKER_IDS, Server, threaded
from tests.rig.wsgi import RULE, Clock, Counts, Raises, application, call, counted

SOURCE = "from tests.rig.causes import app"
SLOW = "flask_http_request_slow_seconds_total"


@contextmanager
def causes(directory: Path, **variables: str) -> Iterator[Server]:
    variables = {
        "PYTHONPATH": str(ROOT),
        "EXPORTER_REQUEST_LOG": str(directory / "requests.log"),
        **variables,
    }
    with threaded(directory, SOURCE, workers=1, **variables) as server:
        yield server


def lines(directory: Path) -> list[dict[str, Any]]:
    """What the log says of each request."""
    records = map(json.loads, (directory / "requests.log").read_text().splitlines())
    return [record for record in records if record["logger"] == "exporter.request"]


def ask_each(server: Server, times: int) -> None:
    """Ask for every cause so often, four at once, in a random order; and meanwhile for what is fast.

    Those that keep the interpreter for themselves have it one after the other: they would hinder others.
    """
    waiting = [f"/{cause}" for cause in CAUSES if cause not in HOLDERS] * times
    random.Random(16).shuffle(waiting)
    for paths, count in (waiting, 4), ([f"/{cause}" for cause in HOLDERS] * times, 1):
        with ThreadPoolExecutor(count) as clients:
            slow = [clients.submit(server.get, path) for path in paths]
            while not all(request.done() for request in slow):
                assert server.get("/fast").status == 200
            assert {request.result().status for request in slow} == {200}


def blame_each(directory: Path, times: int, tolerance: float, unseen: Sequence[str] = ()) -> None:
    """Plant each cause so many times; a share of them may be blamed on something else.

    Those that are `unseen` may be blamed on nothing at all.
    """
    with causes(directory) as server:
        ask_each(server, times)
        samples = server.samples()
        slowest = server.get("/monitoring/slow").json

    requests = lines(directory)
    slow = [request for request in requests if request["duration_seconds"] >= 0.5]
    assert [request for request in requests if "where" in request] == slow

    # On a busy machine what is fast is slow too, now and then.
    places = [(request["url_rule"][1:], request["where"]) for request in slow]
    planted = [(cause, place) for cause, place in places if cause in CAUSES]
    assert Counter(cause for cause, _ in planted) == dict.fromkeys(CAUSES, times)
    blamed = [(cause, place) for cause, place in planted if place != "-" or cause not in unseen]
    wrong = [(cause, place) for cause, place in blamed if place != where(cause)]
    assert len(wrong) <= tolerance * len(planted), wrong

    assert sum(seconds for name, seconds in samples.items() if name.startswith(SLOW)) == pytest.approx(
        sum(request["duration_seconds"] for request in slow), abs=1e-6 * len(slow)
    )
    assert [len(slowest[f"/{cause}"]) for cause in CAUSES] == [min(times, 10)] * len(CAUSES)


def seconds_by_place(exporter: FlaskExporter) -> dict[tuple[str, ...], float]:
    return counted(exporter, SLOW)


def test_all_the_time_of_slow_requests_is_somewhere() -> None:
    app, exporter = application(slow=1e-9)
    for number in range(20):
        call(app, f"/orders/{number}")
    call(app, "/nowhere")

    seconds = seconds_by_place(exporter)
    assert {rule: where.rpartition(".")[2].rpartition(":")[2] for rule, where in seconds} == {
        RULE: "show",
        "_unmatched": "_unmatched",
    }
    assert sum(seconds.values()) == pytest.approx(sum(Counts(exporter).seconds.values()), rel=1e-12)
    recent = exporter.core.flight_recorder.read()
    assert {(request.url_rule, request.where) for request in recent} == set(seconds)


@pytest.mark.parametrize("settings", [{"slow": 0}, {"slow": 1e-9, "extended": False}, {}])
def test_what_is_fast_is_counted_nowhere(settings: dict[str, Any], tmp_path: Path) -> None:
    """And has its line in the log as ever."""
    app, exporter = application(**settings, request_log=str(tmp_path / "requests.log"))
    assert call(app, "/orders/7").body == b"xxxxxxx"
    exporter.core.request_log.close()

    assert seconds_by_place(exporter) == {}
    assert [line["status"] for line in lines(tmp_path)] == [200]


@pytest.mark.parametrize(
    ("settings", "threads"), [({"SLOW": "0"}, 1), ({"SLOW": "0.5"}, 2), ({"EXTENDED": "off"}, 1)]
)
def test_where_nothing_is_slow_no_thread_looks(settings: dict[str, str], threads: int) -> None:
    source = """
import os
from tests.rig.wsgi import application, call

app, _ = application()
call(app, "/orders/7")
print(len(os.listdir("/proc/self/task")))
"""
    environ = {**os.environ, **{f"EXPORTER_{name}": value for name, value in settings.items()}}
    done = subprocess.run([sys.executable, "-c", source], env=environ, capture_output=True, check=True)

    assert int(done.stdout) == threads


def test_a_request_is_slow_from_the_limit_on(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    app, exporter = application(slow=0.5)
    app.add_url_rule("/<float:seconds>", "wait", clock.advance)
    before = time.time()
    for seconds in ("0.25", "0.5", "1.0"):
        call(app, f"/{seconds}")
    after = time.time()

    assert sum(seconds_by_place(exporter).values()) == 1.5
    slowest = json.loads(call(app, "/monitoring/slow").body)["/<float:seconds>"]
    assert [request["duration_ms"] for request in slowest] == [1000.0, 500.0]
    for request in slowest:
        assert before <= request["timestamp"] + request["duration_ms"] / 1000 <= after


def test_a_slow_request_has_the_path_of_its_client_or_its_first_200_bytes() -> None:
    app, _ = application(slow=1e-9)
    for path in "/grün", "/" + "x" * 199, "/" + "y" * 200:
        call(app, path)

    (requests,) = json.loads(call(app, "/monitoring/slow").body).values()
    assert {request["path"] for request in requests} == {"/grün", "/" + "x" * 199, "/" + "y" * 199}


def test_a_request_is_slow_under_the_first_prefix_only() -> None:
    app, exporter = application(slow=1e-9)
    exporter.export_defaults(prefix="second", app=app)
    call(app, "/orders/7")

    assert len(seconds_by_place(exporter)) == 1
    assert counted(exporter, "second_http_request_slow_seconds_total") == {}


def test_a_request_that_is_not_to_be_measured_is_not_slow() -> None:
    app, exporter = application(slow=1e-9)
    app.add_url_rule("/secret", "secret", exporter.do_not_track()(lambda: ""))
    call(app, "/secret")

    assert seconds_by_place(exporter) == {}
    assert json.loads(call(app, "/monitoring/slow").body) == {}


def test_a_hundred_places_and_then_the_rest_of_each_rule() -> None:
    app, exporter = application(slow=1e-9)
    for number in range(150):
        app.add_url_rule(f"/{number}", f"view{number}", lambda: "")
    for number in range(150):
        call(app, f"/{number}")

    places = [where for _, where in seconds_by_place(exporter)]
    assert len(places) == 150
    assert places.count("_other") == 50
    assert counted(exporter, "flask_exporter_series_dropped_total") == {(): 50}


@pytest.mark.parametrize(
    ("shares", "parts"),
    [
        ({"a:f": 1.0}, {"a:f": 2.0}),
        ({"a:f": 0.7, "a:g": 0.3}, {"a:f": 2.0}),
        ({"a:f": 0.69, "a:g": 0.31}, {"a:f": 1.38, "_other": 0.62}),
        ({"a:f": 0.5, "a:g": 0.3, "a:h": 0.2}, {"a:f": 1.0, "_other": 1.0}),
    ],
)
def test_the_first_place_has_its_part(shares: dict[str, float], parts: dict[str, float]) -> None:
    app, exporter = application()
    call(app, "/orders/7")
    (instruments,) = exporter.core.worker.instruments.values()
    instruments.slow(exchange(duration=2.0), Delay("a:f", 1, "", "", shares))

    assert seconds_by_place(exporter) == {
        ("/orders/<int:id>", where): pytest.approx(seconds) for where, seconds in parts.items()
    }


class Orders(MethodView):
    def get(self) -> str:
        return ""


def logged(view: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(view)
    def wrapper(*args: Any) -> Any:
        return view(*args)

    return wrapper


@logged
def audited() -> str:
    return ""


async def later() -> str:
    return ""


@pytest.mark.parametrize(
    ("view", "name"),
    [
        (Orders.as_view("orders"), "Orders.get" if sys.version_info >= (3, 11) else "get"),
        (logged(Orders.as_view("orders")), "Orders.get" if sys.version_info >= (3, 11) else "get"),
        (audited, "audited"),
        (later, "later"),
        (partial(audited), ""),
        (dict, ""),
    ],
)
def test_without_a_place_of_its_own_a_request_is_its_view_s(view: Callable[..., Any], name: str) -> None:
    """Or its rule's, where the view is nothing that has a place."""
    app, exporter = application(slow=1e-9)
    app.add_url_rule("/view", "view", view)
    call(app, "/view")

    assert list(seconds_by_place(exporter)) == [("/view", f"{__name__}:{name}" if name else "/view")]


def test_a_failure_is_counted_and_the_answer_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    app, exporter = application(slow=1e-9)
    monkeypatch.setattr(exporter.core.slow.slowest, "keep", Raises())

    assert call(app, "/orders/7").body == b"xxxxxxx"
    assert Counts(exporter).failures == {("slow",): 1}
    assert len(seconds_by_place(exporter)) == 1


def test_every_worker_shows_the_same_also_of_one_that_was_killed(tmp_path: Path) -> None:
    with threaded(tmp_path, WORKER_IDS, workers=2, EXPORTER_SLOW="1e-9") as server:
        ids: set[tuple[int, str]] = set()
        while len({pid for pid, _ in ids}) < 2:
            answer = server.get("/orders/7")
            ids.add((int(answer.text), answer.headers["X-Request-ID"]))
        os.kill(min(ids)[0], signal.SIGKILL)
        shown = [server.get("/monitoring/slow").json for _ in range(6)]

    assert shown == shown[:1] * 6
    (requests,) = shown[0].values()
    assert len(requests) == min(len(ids), 10)
    assert {request["request_id"] for request in requests} <= {identity for _, identity in ids}


def test_the_right_function_is_blamed(tmp_path: Path) -> None:
    # On a loaded machine one call of C may last as long as its whole request, and nobody can look meanwhile.
    blame_each(tmp_path, 1, tolerance=0.1, unseen=HOLDERS)


@pytest.mark.soak
def test_the_right_function_is_blamed_for_long(tmp_path: Path) -> None:
    blame_each(tmp_path, 30, tolerance=0.05)
