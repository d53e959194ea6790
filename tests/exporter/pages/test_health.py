"""Health: what a check does wrong makes it down, and hurts nobody else."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from flask import Flask, current_app
from prometheus_client import CollectorRegistry

from exporter import FlaskExporter, Settings
from exporter.pages import checks as checks_module
from exporter.pages.access import Access
from exporter.pages.answers import Answer
from exporter.pages.checks import CheckResult, Checks
from exporter.pages.health import Health, Vitals
from tests.rig.deadline import eventually


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What hanging checks wait for; set at the end, so that no thread outlives the test by much."""
    event = threading.Event()
    yield event
    event.set()


INSIDER = {"REMOTE_ADDR": "127.0.0.1"}
OUTSIDER = {"REMOTE_ADDR": "203.0.113.7"}


def _health(
    checks: Checks | None = None,
    window: tuple[int, int] = (0, 0),
    draining: Callable[[], bool] = lambda: False,
    **settings: Any,
) -> Health:
    vitals = Vitals(window=lambda: window, draining=draining, uptime=lambda: 12.3456)
    loaded = Settings.load({}, **settings)
    return Health(checks or Checks(), vitals, Access(loaded), loaded)


def _read(answer: Answer) -> tuple[Any, int]:
    """The document and the status of a page."""
    return json.loads(answer.body), answer.status


class TestReport:
    def test_a_service_without_checks_and_traffic_is_healthy(self) -> None:
        expected = {"status": "healthy", "uptime_seconds": 12.346, "error_rate": 0.0, "checks": {}}

        assert _read(_health().report(INSIDER)) == (expected, 200)

    @pytest.mark.parametrize(
        ("requests", "errors", "status"),
        [
            (100, 5, "healthy"),
            (100, 6, "warning"),
            (100, 10, "warning"),
            (100, 11, "degraded"),
            (100, 100, "degraded"),
            (20, 20, "degraded"),
            (19, 19, "healthy"),  # too few to speak of a ratio
        ],
    )
    def test_the_error_rate_of_the_last_minute_grades_it(
        self, requests: int, errors: int, status: str
    ) -> None:
        body, code = _read(_health(window=(requests, errors)).report(INSIDER))

        assert (body["status"], body["error_rate"], code) == (status, errors / requests, 200)

    def test_thresholds_and_least_traffic_can_be_set(self) -> None:
        service = _health(window=(5, 1), health_warning=0.1, health_degraded=0.5, health_min_requests=5)

        assert _read(service.report(OUTSIDER)) == ({"status": "warning"}, 200)

    def test_a_check_that_fails_makes_it_unhealthy_and_says_why_to_insiders_only(self) -> None:
        checks = Checks()

        @checks.health_check("database")
        def database() -> None:
            raise ConnectionError("refused")

        service = _health(checks)
        body, code = _read(service.report(INSIDER))

        assert (body["status"], code) == ("unhealthy", 503)
        assert body["checks"]["database"]["error"] == "ConnectionError: refused"
        assert body["checks"]["database"]["up"] is False
        assert _read(service.report(OUTSIDER)) == ({"status": "unhealthy"}, 503)
        assert _read(service.ready(OUTSIDER)) == ({"status": "not ready"}, 503)

    def test_draining_is_not_ready_and_alive(self) -> None:
        draining = threading.Event()
        service = _health(draining=draining.is_set)

        assert _read(service.ready(INSIDER)) == ({"status": "ready", "checks": {}}, 200)
        draining.set()
        assert _read(service.ready(INSIDER)) == ({"status": "draining"}, 503)
        assert _read(service.live(OUTSIDER)) == ({"status": "alive"}, 200)
        assert _read(service.report(OUTSIDER)) == ({"status": "healthy"}, 200)


class TestStrangers:
    def test_a_slow_check_does_not_let_them_hold_the_threads(self, release: threading.Event) -> None:
        """They get what was said last; who asks next hears how the slow one ended."""
        checks = Checks()
        slow = [False]

        @checks.health_check("database", timeout=60)
        def database() -> bool:
            return not slow[0] or release.wait(60)

        service = _health(checks)
        assert _read(service.report(OUTSIDER)) == ({"status": "healthy"}, 200)
        slow[0] = True
        checks._last_run = float("-inf")
        start = time.monotonic()
        for _ in range(12):
            assert _read(service.report(OUTSIDER)) == ({"status": "healthy"}, 200)
            assert _read(service.ready(OUTSIDER)) == ({"status": "ready"}, 200)
        assert time.monotonic() - start < 10

    def test_the_first_run_of_a_slow_check_holds_one_thread(self, release: threading.Event) -> None:
        """Who comes first waits for it; for all others the check is down until it ends."""
        checks = Checks()
        began = threading.Event()

        @checks.health_check("database", timeout=60)
        def database() -> bool:
            began.set()
            return release.wait(60)

        service = _health(checks)
        answers: list[int] = []
        first = threading.Thread(target=lambda: answers.append(_read(service.report(OUTSIDER))[1]))
        first.start()
        assert began.wait(10)
        for _ in range(3):
            checks._last_run = float("-inf")
            assert _read(service.report(OUTSIDER)) == ({"status": "unhealthy"}, 503)
            assert _read(service.ready(OUTSIDER)) == ({"status": "not ready"}, 503)
        assert answers == []
        release.set()
        first.join(10)

        assert answers == [200]
        assert _read(service.ready(OUTSIDER)) == ({"status": "ready"}, 200)

    def test_a_quick_check_is_asked_for_them_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checks_module, "_OUTSIDER_SECONDS", 30.0)
        checks = Checks()
        up = [True]
        checks.health_check("database")(lambda: up[0])
        service = _health(checks)
        assert _read(service.report(OUTSIDER))[1] == 200
        up[0] = False
        checks._last_run = float("-inf")

        assert _read(service.report(OUTSIDER)) == ({"status": "unhealthy"}, 503)

    def test_a_check_that_hangs_is_down_for_them_when_its_time_is_over(
        self, release: threading.Event
    ) -> None:
        checks = Checks()
        slow = [False]

        @checks.health_check("database", timeout=0.2)
        def database() -> None:
            if slow[0]:
                release.wait(60)

        service = _health(checks)

        def status() -> int:
            checks._last_run = float("-inf")
            return _read(service.report(OUTSIDER))[1]

        eventually(lambda: status() == 200, "the check to be up")
        slow[0] = True
        eventually(lambda: status() == 503, "the check to be down")

    def test_they_hear_of_a_new_check_at_once(self) -> None:
        checks = Checks()
        service = _health(checks)
        for name in ("first", "second"):
            checks.health_check(name, timeout=60)(lambda: None)

            assert _read(service.report(OUTSIDER)) == ({"status": "healthy"}, 200)

    def test_a_result_is_theirs_for_a_second(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checks_module, "_OUTSIDER_SECONDS", 30.0)
        clock = [100.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        checks = Checks()
        runs: list[float] = []
        checks.health_check("counted", timeout=60)(lambda: runs.append(clock[0]))
        for clock[0] in (100.0, 100.5, 101.0, 101.1):
            assert checks.latest()["counted"].up

        assert runs == [100.0, 101.1]

    def test_how_long_they_wait_for_one_that_hangs(
        self, release: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For its first run until it is overdue, for others a moment; insiders all the time that is left."""
        clock, waits = [100.0], list[float]()
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        monkeypatch.setattr(threading.Event, "wait", _noting(waits, threading.Event.wait))
        checks = Checks()
        checks.health_check("database", timeout=8.0)(lambda: release.wait() and None)
        errors = []
        for clock[0], ask in (
            (100.0, checks.latest),
            (102.0, checks.latest),
            (104.0, checks.results),
            (107.96875, checks.latest),
            (109.0, checks.results),
        ):
            errors.append(ask()["database"].error)

        assert waits == [8.0, pytest.approx(0.05), 4.0, pytest.approx(0.03125), 0.0]
        assert errors == ["it has not ended yet"] * 2 + ["no answer within 8 s"] * 3
        checks.after_fork()
        assert checks.latest()["database"].error == "it has not ended yet"
        assert waits[5:] == [8.0]
        clock[0] = 117.0
        assert checks.latest()["database"].error == "no answer within 8 s"


def _noting(waits: list[float], wait: Callable[..., bool]) -> Callable[..., bool]:
    """In the place of `wait` of events: notes how long it would take, and takes no time."""

    def noted(event: threading.Event, timeout: float | None = None) -> bool:
        if timeout is None:
            return wait(event)
        waits.append(timeout)
        return event.is_set()

    return noted


class TestChecks:
    @pytest.mark.parametrize(
        ("answer", "error"),
        [
            (lambda: None, None),
            (lambda: True, None),
            (lambda: 0, None),
            (lambda: False, "the check returned False"),
            (lambda: 1 / 0, "ZeroDivisionError: division by zero"),
            (lambda: (_ for _ in ()).throw(TimeoutError("its own")), "TimeoutError: its own"),
            (lambda: (_ for _ in ()).throw(SystemExit("leave")), "SystemExit: leave"),
        ],
    )
    def test_it_is_down_if_it_raises_or_returns_false(
        self, answer: Callable[[], object], error: str | None
    ) -> None:
        checks = Checks()
        checks.health_check("one")(answer)
        result = checks.results()["one"]

        assert (result.up, result.error) == (error is None, error)

    def test_an_async_check_is_awaited(self) -> None:
        async def down() -> None:
            await asyncio.sleep(0)
            raise ConnectionError("gone")

        async def refuses() -> bool:
            return False

        async def up() -> None:
            assert current_app.name == "orders"

        class Ping:
            async def __call__(self) -> None:
                raise ConnectionError("no pong")

        checks = Checks(Flask("orders").app_context)
        for name, check in (("a", down), ("b", refuses), ("c", up), ("d", Ping()), ("e", partial(down))):
            checks.health_check(name)(check)
        checks.health_check("f")(lambda: down())

        assert {name: result.error for name, result in checks.results().items()} == {
            "a": "ConnectionError: gone",
            "b": "the check returned False",
            "c": None,
            "d": "ConnectionError: no pong",
            "e": "ConnectionError: gone",
            "f": "ConnectionError: gone",
        }

    def test_an_async_check_that_hangs_is_down(self, release: threading.Event) -> None:
        async def hangs() -> None:
            await asyncio.to_thread(release.wait, 60)

        checks = Checks()
        checks.health_check("hangs", timeout=0.02)(hangs)

        assert checks.results()["hangs"].error == "no answer within 0.02 s"

    def test_a_generator_which_nobody_runs_is_down(self) -> None:
        def check() -> Iterator[bool]:
            yield True

        async def later() -> AsyncIterator[bool]:
            yield True

        checks = Checks()
        checks.health_check("a")(check)
        checks.health_check("b")(later)

        assert {str(result.error)[:34] for result in checks.results().values()} == {
            "TypeError: the check is a generato"
        }

    def test_it_runs_in_the_application_context_of_who_is_asked(self) -> None:
        checks = Checks(lambda: current_app._get_current_object().app_context())  # type: ignore[attr-defined]
        seen: list[str] = []
        checks.health_check("app")(lambda: seen.append(current_app.name))
        with Flask("orders").app_context():
            assert checks.results()["app"].up

        assert seen == ["orders"]

    def test_all_run_side_by_side(self) -> None:
        """Three that wait for each other pass only if they run at the same time."""
        checks = Checks()
        barrier = threading.Barrier(3)
        for name in ("a", "b", "c"):
            checks.health_check(name, timeout=10)(lambda: barrier.wait(10) < 0 or None)

        assert [result.up for result in checks.results().values()] == [True, True, True]

    def test_one_that_hangs_is_down_after_its_deadline_and_the_others_are_not(
        self, release: threading.Event
    ) -> None:
        checks = Checks()
        checks.health_check("hangs", timeout=0.05)(lambda: release.wait(60) and None)
        checks.health_check("works")(lambda: None)
        started = time.monotonic()
        results = checks.results()

        assert time.monotonic() - started < 30
        assert (results["hangs"].up, results["hangs"].error) == (False, "no answer within 0.05 s")
        assert 0.05 <= results["hangs"].duration_seconds < 30
        assert results["works"].up

    def test_one_that_hangs_does_not_pile_up_threads(
        self, release: threading.Event, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checks_module, "_CACHE_SECONDS", -1.0)
        checks = Checks()
        runs: list[int] = []

        def hangs() -> None:
            runs.append(1)
            release.wait(60)

        checks.health_check("piles", timeout=0.02)(hangs)
        for _ in range(20):
            assert not checks.results()["piles"].up

        assert len(runs) == 1
        assert [thread.name for thread in threading.enumerate()].count("health-piles") == 1
        release.set()
        eventually(lambda: checks.results()["piles"].up, "an answer")

    @pytest.mark.parametrize(
        ("seconds", "duration", "error"),
        [
            (0.1234567, 0.123457, None),
            (1.0, 1.0, None),
            (1.25, 1.25, "no answer within 1 s"),
            (3.1234567, 3.123457, "no answer within 1 s"),
        ],
    )
    def test_one_that_takes_too_long_stays_down_when_it_has_ended(
        self, seconds: float, duration: float, error: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here = threading.current_thread()
        later = 100.0 + seconds
        monkeypatch.setattr(time, "monotonic", lambda: 100.0 if threading.current_thread() is here else later)
        checks = Checks()
        checks.health_check("slow")(lambda: None)

        assert checks.results()["slow"] == CheckResult(error is None, duration, error)

    def test_results_are_kept_for_a_second_and_shared(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = [100.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        checks = Checks()
        runs: list[float] = []
        checks.health_check("counted")(lambda: runs.append(clock[0]))
        for clock[0] in (100.0, 100.5, 101.0, 101.1, 102.0, 102.2):
            checks.results()

        assert runs == [100.0, 101.1, 102.2]

    def test_callers_at_the_same_time_share_one_run(self) -> None:
        checks = Checks()
        entered, proceed = threading.Event(), threading.Event()
        runs: list[str] = []

        def check() -> None:
            runs.append("shared")
            entered.set()
            proceed.wait(10)

        checks.health_check("quick")(lambda: runs.append("quick"))
        checks.health_check("shared", timeout=10)(check)
        found: list[bool] = []
        callers = [
            threading.Thread(target=lambda: found.append(checks.results()["shared"].up)) for _ in range(10)
        ]
        for caller in callers:
            caller.start()
        entered.wait(10)
        proceed.set()
        for caller in callers:
            caller.join()

        assert (sorted(runs), found) == (["quick", "shared"], [True] * 10)

    def test_a_check_that_is_added_later_is_asked_at_once(self) -> None:
        checks = Checks()
        checks.health_check("first")(lambda: None)
        checks.results()
        checks.health_check("second")(lambda: False)

        assert [result.up for result in checks.results().values()] == [True, False]

    @pytest.mark.parametrize(("name", "timeout"), [("", 1.0), ("taken", 1.0), ("new", 0), ("new", -1.0)])
    def test_a_bad_registration_is_an_error_that_names_it(self, name: str, timeout: float) -> None:
        checks = Checks()
        checks.health_check("taken")(lambda: None)

        with pytest.raises(ValueError, match=f"health check {name!r}"):
            checks.health_check(name, timeout=timeout)

    @pytest.mark.parametrize("before", [True, False])
    def test_a_factory_declares_it_for_each_application(self, before: bool) -> None:
        exporter = FlaskExporter.for_app_factory(registry=CollectorRegistry())

        def create_app(name: str) -> Flask:
            app = Flask(name)
            if not before:
                exporter.init_app(app)

            @exporter.health_check("database")
            def database() -> None:
                raise ConnectionError(name)

            if before:
                exporter.init_app(app)
            return app

        for name in ("first", "second", "third"):
            checks = create_app(name).test_client().get("/health").get_json()["checks"]

            assert checks["database"]["error"] == f"ConnectionError: {name}"

    def test_a_check_of_a_module_belongs_to_every_application(self) -> None:
        exporter = FlaskExporter.for_app_factory(registry=CollectorRegistry())
        exporter.health_check("database")(lambda: None)
        for name in ("first", "second"):
            app = Flask(name)
            exporter.init_app(app)

            assert list(app.test_client().get("/health").get_json()["checks"]) == ["database"]

    def test_a_name_is_taken_once_for_each_application(self) -> None:
        exporter = FlaskExporter.for_app_factory(registry=CollectorRegistry())
        for name in ("first", "second"):
            exporter.init_app(Flask(name))
            exporter.health_check("database")(lambda: None)
            with pytest.raises(ValueError, match="a name of its own"):
                exporter.health_check("database")

    def test_the_decorated_function_stays_what_it_was(self) -> None:
        def check() -> None:
            """Asks the database."""

        assert Checks().health_check("one")(check) is check

    def test_a_forked_worker_asks_anew(self, release: threading.Event) -> None:
        """It has neither the thread of the master's run nor anybody who would give the lock back."""
        checks = Checks()
        parent = os.getpid()
        checks.health_check("hangs", timeout=1.0)(
            lambda: os.getpid() != parent or (release.wait(60) and None)
        )
        assert not checks.results()["hangs"].up
        with checks._lock:
            child = os.fork()
            if not child:
                os._exit(0 if checks.results()["hangs"].up else 1)

        assert os.waitpid(child, 0)[1] == 0

    def test_where_no_thread_can_be_had_it_is_down(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        clock = [100.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        checks = Checks()
        checks.health_check("one", timeout=60)(lambda: None)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            assert checks.results() == {"one": CheckResult(False, 0.0, "can't start new thread")}
        clock[0] += 2.0

        assert checks.results()["one"].up

    def test_one_that_hangs_keeps_no_process_from_its_end(self) -> None:
        checks = Checks()
        checks.health_check("one", timeout=60)(lambda: threading.current_thread().daemon)

        assert checks.results()["one"].up

    def test_a_check_may_log(self, caplog: pytest.LogCaptureFixture) -> None:
        checks = Checks()
        checks.health_check("logs")(lambda: logging.getLogger("orders").warning("slow disk"))

        assert checks.results()["logs"].up
        assert caplog.messages == ["slow disk"]


class TestGauge:
    def test_a_scrape_says_what_the_checks_say_now(self) -> None:
        checks = Checks()
        checks.health_check("up")(lambda: None)
        checks.health_check("down")(lambda: False)
        registry = CollectorRegistry()
        registry.register(checks)

        assert registry.get_sample_value("flask_health_check_up", {"check": "up"}) == 1.0
        assert registry.get_sample_value("flask_health_check_up", {"check": "down"}) == 0.0

    def test_registering_it_runs_nothing(self) -> None:
        checks = Checks()
        runs: list[int] = []
        checks.health_check("counted")(lambda: runs.append(1))
        CollectorRegistry(auto_describe=True).register(checks)

        assert runs == []


class TestPages:
    @pytest.fixture
    def service(self) -> Flask:
        app = Flask("orders")
        exporter = FlaskExporter(app, registry=CollectorRegistry())
        app.extensions["down"] = threading.Event()

        @exporter.health_check("database")
        def database() -> bool:
            return not current_app.extensions["down"].is_set()

        return app

    def test_insiders_see_details_and_outsiders_the_status(self, service: Flask) -> None:
        client = service.test_client()
        inside = client.get("/health")
        outside = client.get("/health", environ_base={"REMOTE_ADDR": "203.0.113.9"})

        assert (inside.status_code, outside.status_code) == (200, 200)
        assert set(inside.get_json()) == {"status", "uptime_seconds", "error_rate", "checks"}
        assert inside.get_json()["checks"]["database"]["up"] is True
        assert outside.get_json() == {"status": "healthy"}
        assert client.get("/health/live").get_json() == {"status": "alive"}
        assert inside.headers["Cache-Control"] == "no-store"

    def test_a_failing_check_is_503_for_everybody_and_a_zero_for_prometheus(self, service: Flask) -> None:
        service.extensions["down"].set()
        client = service.test_client()
        outside = client.get("/health/ready", environ_base={"REMOTE_ADDR": "203.0.113.9"})

        assert (outside.status_code, outside.get_json()) == (503, {"status": "not ready"})
        assert client.get("/health").status_code == 503
        assert client.get("/health/live").status_code == 200
        assert 'flask_health_check_up{check="database"} 0.0' in client.get("/metrics").text

    def test_the_error_rate_is_that_of_the_last_minute(self, service: Flask) -> None:
        @service.get("/boom")
        def boom() -> str:
            raise ValueError("bad")

        client = service.test_client()
        for _ in range(3):
            client.get("/boom")
        for _ in range(17):
            client.get("/none")
        report = client.get("/health").get_json()

        assert (report["status"], report["error_rate"]) == ("degraded", 0.15)
        assert client.get("/health").status_code == 200
