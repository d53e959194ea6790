"""Many threads lose no count, and a million requests no memory."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator

import pytest
from flask import Flask

from tests.rig.wsgi import application, call, counted, environ

THREADS = 8


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads take turns a hundred times as often, so that a missing lock shows."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(usual / 100)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("restless")
@pytest.mark.parametrize("each", [1_500, pytest.param(50_000, marks=pytest.mark.soak)])
def test_eight_threads_lose_no_request(each: int) -> None:
    """What 8 threads send is exactly what is in every family."""
    app, exporter = application()
    start = threading.Barrier(THREADS)

    def work() -> None:
        usual, wrong = environ("/orders/7"), environ("/nowhere")
        start.wait()
        for number in range(each):
            body = app.wsgi_app((wrong if number % 10 == 9 else usual).copy(), lambda *_: lambda _: None)
            for _ in body:
                pass
            body.close()  # type: ignore[attr-defined]

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    right, wrong = 9 * THREADS * each // 10, THREADS * each // 10
    rule = "/orders/<int:number>"
    assert counted(exporter, "flask_http_request_total") == {("GET", "200"): right, ("GET", "404"): wrong}
    assert counted(exporter, "flask_http_request_duration_seconds_count") == {
        ("GET", rule, "200"): right,
        ("GET", "_unmatched", "404"): wrong,
    }
    for name in ("request", "response"):
        assert counted(exporter, f"flask_http_{name}_size_bytes_count") == {
            ("GET", rule): right,
            ("GET", "_unmatched"): wrong,
        }
    assert counted(exporter, "flask_http_response_size_bytes_sum")["GET", rule] == 7 * right
    assert counted(exporter, "flask_http_request_errors_total") == {
        ("GET", "_unmatched", "404", "NotFound"): wrong
    }
    assert counted(exporter, "flask_http_requests_in_progress") == {}
    assert counted(exporter, "flask_worker_threads_busy") == {}
    assert counted(exporter, "flask_http_client_disconnects_total") == {}
    assert counted(exporter, "flask_exporter_failures_total") == {}


@pytest.mark.usefixtures("restless")
def test_threads_that_meet_new_label_sets_at_once_lose_no_request() -> None:
    """Every family, slot and file grows while other threads write into it."""
    app, exporter = application(group_by="path")
    start = threading.Barrier(THREADS)

    def work() -> None:
        for number in range(1, 200):
            if number % 20 == 1:
                start.wait()
            call(app, f"/orders/{number}")

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counted(exporter, "flask_http_request_duration_seconds_count") == {
        ("GET", f"/orders/{number}", "200"): THREADS for number in range(1, 200)
    }
    assert exporter.core.window() == (199 * THREADS, 0)
    assert counted(exporter, "flask_http_requests_in_progress") == {}


# The clock is the test's: on a busy machine durations spread, and each native bucket takes memory once.
GROWTH = """
import sys, time

DURATIONS = [0.001 * 1.1**number for number in range(10)]
now = time.perf_counter()
time.perf_counter = lambda: now

from tests.rig.memory import label_sets, resident
from tests.rig.wsgi import environ

app, paths = label_sets()
environs = [environ(path) for path in paths]

def ask(requests):
    global now
    for number in range(requests):
        body = app(environs[number % len(environs)].copy(), lambda *_: None)
        now += DURATIONS[number // len(environs) % len(DURATIONS)]
        for _ in body:
            pass
        body.close()

ask(10_000)
before = resident()
ask(int(sys.argv[1]) - 10_000)
print(resident() - before)
"""


@pytest.mark.parametrize("requests", [20_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_memory_stays_where_it_was_after_the_first_ten_thousand_requests(requests: int) -> None:
    """Over 1,000 label sets with ten durations each it grows by less than 5 MB."""
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, str(requests)], capture_output=True, text=True, check=True, timeout=900
    )

    assert int(done.stdout) < 5_000_000


def garbage(app: Flask) -> int:
    """Objects that a hundred requests leave to the collector."""
    call(app, "/orders/7")
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(100):
            call(app, "/orders/7")
        return len(gc.get_objects()) - before
    finally:
        gc.enable()


def test_a_request_leaves_nothing_more_to_the_garbage_collector_than_without_the_exporter() -> None:
    """A cycle for each request would be a pause every few hundred of them."""
    bare = Flask("bare")
    bare.add_url_rule("/orders/<int:number>", "show", lambda number: "x" * number)

    # Native buckets come with the first request that falls into each, not with every request.
    assert garbage(application(native_histograms=False)[0]) <= garbage(bare) + 10


def test_an_application_that_is_dropped_leaves_nothing_behind() -> None:
    """As in a test suite that makes an application for each test."""
    callbacks = len(gc.callbacks)
    dropped: list[weakref.ref[object]] = []
    for _ in range(10):
        app, exporter = application()
        call(app, "/orders/7")
        call(app, "/metrics")
        dropped += [weakref.ref(app), weakref.ref(exporter), weakref.ref(exporter.registry)]
        del app, exporter
    gc.collect()

    assert [one() for one in dropped] == [None] * 30
    assert len(gc.callbacks) == callbacks
