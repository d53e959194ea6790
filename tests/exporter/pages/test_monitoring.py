"""`/monitoring`: its figures agree with the requests that were made, and its description with its answers."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from threading import Event, Timer
from typing import Any

import numpy
import pytest
import schemathesis
from flask import Flask, abort, request
from flask.testing import FlaskClient
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from prometheus_client import CollectorRegistry

from exporter import FlaskExporter
from exporter.pages import figures
from exporter.pages.filter import Filter
from exporter.worker.requests import Request
from exporter.worker.slowest import SlowRequest
from tests.rig.wsgi import Clock

DESCRIPTION = json.loads((Path(figures.__file__).parent / "openapi.json").read_text())
_TIMES = "give seconds since the epoch, or a UTC time such as 2026-01-31T12:00:00Z"
OTHER_ADDRESS = {"REMOTE_ADDR": "203.0.113.9"}


def _orders(**settings: Any) -> Flask:
    """A service with what each figure needs: slow and quick, right and wrong."""
    app = Flask("orders")
    FlaskExporter(app, registry=CollectorRegistry(), **settings)

    @app.get("/orders/<int:number>")
    def show(number: int) -> str:
        if number > 99:
            abort(404)
        return "x" * number

    @app.post("/orders")
    def create() -> tuple[str, int]:
        return str(len(request.get_data())), 201

    @app.get("/boom")
    def boom() -> str:
        raise ValueError("bad")

    return app


@pytest.fixture
def client() -> FlaskClient:
    return _orders().test_client()


@pytest.fixture
def busy(client: FlaskClient) -> FlaskClient:
    """After eight requests."""
    for number in (1, 2, 3, 100):
        client.get(f"/orders/{number}")
    client.post("/orders", data=b"12345")
    client.get("/boom", headers={"X-Request-ID": "known-1"})
    client.get("/wp-admin.php")
    client.get("/orders/1", headers={"traceparent": f"00-{'ab' * 16}-b7ad6b7169203331-01"})
    return client


def _json(client: FlaskClient, path: str) -> Any:
    answer = client.get(path)

    assert answer.status_code == 200
    return answer.json


def _valid(body: Any, page: str) -> Any:
    """The body, which the description of the page must allow."""
    content = DESCRIPTION["paths"][page]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    Draft202012Validator({**content, "components": DESCRIPTION["components"]}).validate(body)
    return body


def _durations(client: FlaskClient) -> list[float]:
    return [one["duration_ms"] for one in _json(client, "/monitoring/requests?limit=10000")]


class TestStats:
    def test_totals_and_times(self, busy: FlaskClient) -> None:
        stats = _valid(_json(busy, "/monitoring/stats"), "/stats")
        durations = _durations(busy)

        uptime = stats.pop("uptime_seconds")
        assert 0 < uptime < 60
        assert stats == {
            "total_requests": 8,
            "total_errors": 1,
            "requests_per_second": stats["requests_per_second"],
            "error_rate": 0.125,
            "average_response_time_ms": pytest.approx(numpy.mean(durations), abs=2e-6),
            "min_response_time_ms": min(durations),
            "max_response_time_ms": max(durations),
            "response_time_percentiles": {
                f"p{percent}": pytest.approx(numpy.percentile(durations, percent), abs=2e-6)
                for percent in (50, 95, 99)
            },
            "status_codes": {"200": 4, "201": 1, "404": 2, "500": 1},
            "top_paths": dict.fromkeys(["/wp-admin.php", "/boom", "/orders"], 1)
            | {"/orders/1": 2, "/orders/2": 1, "/orders/3": 1, "/orders/100": 1},
            "top_methods": {"GET": 7, "POST": 1},
            "top_endpoints": {"/orders/<int:number>": 5, "/orders": 1, "/boom": 1, "_unmatched": 1},
            "error_types": {"NotFound": 2, "ValueError": 1},
            "recent_request_count": 8,
        }
        assert stats["requests_per_second"] == pytest.approx(8 / max(uptime, 1), rel=0.01)

    @pytest.mark.parametrize(
        ("uptime", "last_minute", "rate"),
        [(0.5, 3, 3.0), (30.0, 60, 2.0), (30.0, 7, 0.233), (60.0, 120, 2.0), (3600.0, 120, 2.0)],
    )
    def test_the_rate_is_that_of_the_last_minute_or_since_the_start(
        self, uptime: float, last_minute: int, rate: float
    ) -> None:
        stats = figures.stats(figures.Totals(), [], uptime, last_minute)

        assert stats["requests_per_second"] == rate

    def test_what_is_shown_has_digits_enough_for_people(self) -> None:
        totals = figures.Totals()
        totals.statuses["200"] = 3
        totals.group_errors["/"] = 1
        stats = figures.stats(totals, [], 12.34567, 0)

        assert (stats["uptime_seconds"], stats["error_rate"]) == (12.346, 0.333333333)

    def test_a_service_without_traffic_has_no_times(self, client: FlaskClient) -> None:
        stats = _valid(_json(client, "/monitoring/stats"), "/stats")

        assert (stats["total_requests"], stats["error_rate"], stats["status_codes"]) == (0, 0.0, {})
        assert stats["response_time_percentiles"] == {"p50": None, "p95": None, "p99": None}
        assert stats["average_response_time_ms"] is None

    def test_looking_at_it_is_no_traffic(self, client: FlaskClient) -> None:
        for page in (
            "stats",
            "requests",
            "endpoints",
            "inflight",
            "deaths",
            "slow",
            "openapi.json",
            "requests?limit=0",
        ):
            client.get(f"/monitoring/{page}")
        client.get("/metrics")
        client.get("/health")

        assert _json(client, "/monitoring/stats")["total_requests"] == 0
        assert _json(client, "/monitoring/requests") == []

    def test_ten_of_each_at_most(self, client: FlaskClient) -> None:
        for number in range(15):
            client.get(f"/orders/{number}")
        client.get("/orders/7")
        top = _json(client, "/monitoring/stats")["top_paths"]

        assert len(top) == 10
        assert next(iter(top.items())) == ("/orders/7", 2)

    def test_totals_go_on_where_the_recorder_forgets(self) -> None:
        client = _orders(recent=3).test_client()
        for number in range(10):
            client.get(f"/orders/{number}")
        stats = _json(client, "/monitoring/stats")

        assert (stats["total_requests"], stats["recent_request_count"]) == (10, 3)

    def test_a_body_that_breaks_after_a_good_status_is_an_error(self) -> None:
        app = _orders()

        @app.get("/stream")
        def stream() -> Iterator[bytes]:
            yield b"first"
            raise RuntimeError("half-way")

        client = app.test_client()
        with pytest.raises(RuntimeError, match="half-way"):
            client.get("/stream", buffered=True)
        stats = _json(client, "/monitoring/stats")

        assert (stats["total_errors"], stats["status_codes"]) == (1, {"200": 1})
        assert _json(client, "/monitoring/endpoints")["/stream"]["error_count"] == 1

    @pytest.mark.parametrize(
        "settings", [{"defaults_prefix": "web"}, {"defaults_prefix": "", "group_by": "endpoint"}]
    )
    def test_other_names_and_groups(self, settings: dict[str, Any]) -> None:
        client = _orders(**settings).test_client()
        client.get("/orders/1")
        client.get("/boom")
        group = {"/orders/<int:number>", "/boom"} if "group_by" not in settings else {"show", "boom"}

        assert _json(client, "/monitoring/stats")["total_requests"] == 2
        assert set(_json(client, "/monitoring/endpoints")) == group

    def test_a_group_of_one_s_own_is_shown_by_rule(self) -> None:
        def customer(request: Any) -> str:
            return str(request.headers.get("X-Customer"))

        client = _orders(group_by=customer).test_client()
        client.get("/orders/1", headers={"X-Customer": "a"})
        client.get("/orders/2", headers={"X-Customer": "b"})
        endpoints = _valid(_json(client, "/monitoring/endpoints"), "/endpoints")

        assert {name: one["request_count"] for name, one in endpoints.items()} == {"/orders/<int:number>": 2}


class TestEndpoints:
    def test_each_has_its_figures_the_busiest_first(self, busy: FlaskClient) -> None:
        endpoints = _valid(_json(busy, "/monitoring/endpoints"), "/endpoints")
        durations = [
            one["duration_ms"]
            for one in _json(busy, "/monitoring/requests")
            if one["url_rule"] == "/orders/<int:number>"
        ]

        assert list(endpoints) == ["/orders/<int:number>", "/boom", "/orders", "_unmatched"]
        assert endpoints["/orders/<int:number>"] == {
            "request_count": 5,
            "average_response_time_ms": pytest.approx(numpy.mean(durations), abs=2e-6),
            "min_response_time_ms": min(durations),
            "max_response_time_ms": max(durations),
            "response_time_percentiles": {
                f"p{percent}": pytest.approx(numpy.percentile(durations, percent), abs=2e-6)
                for percent in (50, 95, 99)
            },
            "error_count": 0,
            "error_rate": 0.0,
            "status_codes": {"200": 4, "404": 1},
            "recent_request_count": 5,
        }
        assert (endpoints["/boom"]["error_count"], endpoints["/boom"]["error_rate"]) == (1, 1.0)

    def test_one_that_the_recorder_has_forgotten_keeps_its_counts(self) -> None:
        client = _orders(recent=1).test_client()
        client.get("/boom")
        client.get("/orders/1")
        endpoints = _valid(_json(client, "/monitoring/endpoints"), "/endpoints")

        assert (endpoints["/boom"]["request_count"], endpoints["/boom"]["error_count"]) == (1, 1)
        assert endpoints["/boom"]["max_response_time_ms"] is None


class TestRequests:
    def test_everything_about_one(self, busy: FlaskClient) -> None:
        (one,) = _valid(_json(busy, "/monitoring/requests?request_id=known-1"), "/requests")

        assert time.time() - 60 < one["timestamp"] < time.time()
        assert datetime.fromisoformat(one.pop("datetime")).timestamp() == pytest.approx(
            one.pop("timestamp"), abs=1e-6
        )
        assert one.pop("duration_ms") > 0
        assert one == {
            "path": "/boom",
            "method": "GET",
            "url_rule": "/boom",
            "endpoint": "boom",
            "status_code": 500,
            "error_occurred": True,
            "error_type": "ValueError",
            "request_bytes": 0,
            "response_bytes": 265,
            "request_id": "known-1",
            "trace_id": None,
            "disconnected": False,
            **dict.fromkeys(("where", "line", "library", "call")),
        }

    def test_the_newest_comes_first(self, busy: FlaskClient) -> None:
        found = _valid(_json(busy, "/monitoring/requests"), "/requests")
        times = [one["timestamp"] for one in found]

        assert times == sorted(times, reverse=True)
        assert found[0]["trace_id"] == "ab" * 16
        assert found[1]["endpoint"] is None

    @pytest.mark.parametrize(
        ("query", "paths"),
        [
            ("limit=1", ["/orders/1"]),
            ("limit=2", ["/orders/1", "/wp-admin.php"]),
            ("endpoint=boom", ["/boom"]),
            ("endpoint=/orders/<int:number>&limit=2", ["/orders/1", "/orders/100"]),
            ("endpoint=nobody", []),
            ("endpoint=", ["/wp-admin.php"]),
            ("status=404", ["/wp-admin.php", "/orders/100"]),
            ("status=5xx", ["/boom"]),
            ("status=4xx&endpoint=_unmatched", ["/wp-admin.php"]),
            ("since=9999999999", []),
            ("since=1000000000000000", []),
            ("since=2999-01-01T00:00:00Z", []),
            ("since=2999-01-01", []),
            ("since=0&status=201", ["/orders"]),
            ("since=2020-01-01T00:00:00%2B02:00&status=201", ["/orders"]),
        ],
    )
    def test_filters(self, busy: FlaskClient, query: str, paths: list[str]) -> None:
        assert [one["path"] for one in _json(busy, f"/monitoring/requests?{query}")] == paths

    @pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata", "UTC"])
    def test_a_time_without_a_zone_is_utc_wherever_the_service_runs(
        self, zone: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", zone)
            time.tzset()
            since = [
                Filter.of([("since", f"2026-01-31T12:00:00{suffix}")]).since for suffix in ("", "Z", "+02:00")
            ]
        time.tzset()

        assert since == [1_769_860_800.0, 1_769_860_800.0, 1_769_853_600.0]

    def test_since_is_inclusive(self, busy: FlaskClient) -> None:
        whole = _json(busy, "/monitoring/requests")
        since = whole[3]["timestamp"]

        assert _json(busy, f"/monitoring/requests?since={since!r}") == whole[:4]

    @pytest.mark.parametrize(
        ("query", "complaint"),
        [
            ("limit=0", "limit='0': give a whole number from 1 to 10000"),
            ("limit=10001", "limit='10001': give a whole number from 1 to 10000"),
            ("limit=-1", "limit='-1': give a whole number from 1 to 10000"),
            ("limit=٣", "limit='٣': give a whole number from 1 to 10000"),
            ("limit=1.5", "limit='1.5': give a whole number from 1 to 10000"),
            ("limit=", "limit='': give a whole number from 1 to 10000"),
            ("limit=1&limit=2", "limit='2': give limit once"),
            ("status=teapot", "status='teapot': give a status such as 404, or a class such as 5xx"),
            ("status=99", "status='99': give a status such as 404, or a class such as 5xx"),
            (
                "since=never",
                f"since='never': {_TIMES}",
            ),
            (
                "since=nan",
                f"since='nan': {_TIMES}",
            ),
            (
                "since=-5",
                f"since='-5': {_TIMES}",
            ),
            (
                "since=1000000000000001",
                f"since='1000000000000001': {_TIMES}",
            ),
            (
                "stauts=500",
                "'stauts' is no parameter; there are limit, endpoint, status, since, request_id, where",
            ),
        ],
    )
    def test_a_value_without_a_meaning_is_400_and_named(
        self, busy: FlaskClient, query: str, complaint: str
    ) -> None:
        answer = busy.get(f"/monitoring/requests?{query}")

        assert (answer.status_code, answer.json) == (400, {"error": complaint})


_SHARED: dict[str, Any] = {
    "start_time": 1_767_225_600.25,
    "duration": 0.25,
    "method": "GET",
    "url_rule": "/",
    "endpoint": "index",
    "path": "/",
    "status": 200,
    "request_id": "known-1",
    "trace_id": "ab" * 16,
    "where": "shop:index",
    "line": 7,
    "library": "json:loads",
    "call": "loads(text)",
}


def test_what_is_unknown_of_a_request_is_null() -> None:
    answered = Request(
        **_SHARED, failed=True, error_type="E", request_size=0, response_size=0, disconnected=False
    )
    slow = SlowRequest(**_SHARED, shares={"shop:index": 1.0})
    unknown: dict[str, Any] = {"endpoint": "", "trace_id": "", "line": 0, "library": "", "call": ""}
    known = {name: _SHARED[name] for name in unknown}

    assert figures.element(answered).items() >= {**known, "where": "shop:index", "error_type": "E"}.items()
    assert figures.slow_element(slow).items() >= known.items()
    bare = figures.element(replace(answered, **unknown, where="", error_type=""))
    assert bare.items() >= dict.fromkeys((*unknown, "where", "error_type")).items()
    assert figures.slow_element(replace(slow, **unknown)).items() >= dict.fromkeys(unknown).items()


def wait_for_stock(go_on: Event) -> None:
    assert go_on.wait(60)


def wait_for_nobody() -> str:
    return ""


class TestSlow:
    def test_ten_of_each_rule_the_slowest_first(self) -> None:
        client = _orders(slow=1e-9).test_client()
        for number in range(12):
            client.get(f"/orders/{number}")
        client.post("/orders", data=b"12345")
        client.get("/wp-admin.php")

        slow = _valid(_json(client, "/monitoring/slow"), "/slow")
        assert {rule: len(requests) for rule, requests in slow.items()} == {
            "/orders/<int:number>": 10,
            "/orders": 1,
            "_unmatched": 1,
        }
        durations = [request["duration_ms"] for request in slow["/orders/<int:number>"]]
        every = {request["request_id"]: request for request in _json(client, "/monitoring/requests")}
        quickest = sorted(
            request["duration_ms"]
            for request in every.values()
            if request["url_rule"] == "/orders/<int:number>"
        )
        assert durations == quickest[:1:-1]
        for shown in itertools.chain(*slow.values()):
            same = set(shown) & set(every[shown["request_id"]]) - {"timestamp", "datetime"}
            assert {name: shown[name] for name in same} == {
                name: every[shown["request_id"]][name] for name in same
            }

    def test_it_says_where_each_waited(self) -> None:
        client = _orders(slow=1e-9).test_client()
        client.get("/orders/7")

        (request,) = _json(client, "/monitoring/slow")["/orders/<int:number>"]
        assert request["where"] in (f"{__name__}:_orders.<locals>.show", f"{__name__}:show")
        assert request["shares"] == {request["where"]: 1}
        assert (request["line"], request["library"], request["call"]) == (None, None, None)

    def test_the_latest_requests_say_it_too_and_can_be_asked_by_it(self) -> None:
        app = _orders(slow=0.2)
        go_on = Event()

        @app.get("/stock")
        def stock() -> str:
            wait_for_stock(go_on)
            return ""

        client = app.test_client()
        client.get("/orders/7")
        Timer(0.6, go_on.set).start()
        client.get("/stock")

        where = f"{__name__}:wait_for_stock"
        (fast,) = _valid(_json(client, "/monitoring/requests?endpoint=show"), "/requests")
        (slow,) = _valid(_json(client, f"/monitoring/requests?where={where}"), "/requests")
        assert [fast[name] for name in ("where", "line", "library", "call")] == [None] * 4
        assert (slow["path"], slow["where"]) == ("/stock", where)
        assert slow["line"] == wait_for_stock.__code__.co_firstlineno + 1
        assert slow["library"] == "threading:Event.wait" or sys.version_info < (3, 11)
        assert _json(client, "/monitoring/requests?where=shop:other") == []

    def test_long_names_leave_no_room_for_parts_of_it(self) -> None:
        """Whole ones are shown, or none."""
        app = _orders(slow=1e-9)
        lengths = range(20, 200, 9)
        for length in lengths:
            app.add_url_rule(f"/{'r' * length}", "n", wait_for_nobody)
        client = app.test_client()
        for length in lengths:
            client.get(f"/{'r' * length}")

        shown = [request["where"] for request in _json(client, "/monitoring/requests")][::-1]
        where = f"{__name__}:wait_for_nobody"
        room = 200 - len("20000GET\0\0n\0/") - len(f"\0\0{where}")
        assert shown == [where if length <= room else None for length in lengths]

    @pytest.mark.parametrize("settings", [{"slow": 0}, {"slow": 5}, {"slow": 1e-9, "extended": False}])
    def test_otherwise_there_is_none(self, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Clock(monkeypatch)
        app = _orders(**settings)
        app.add_url_rule("/wait", "wait", lambda: clock.advance(4.0))
        client = app.test_client()
        client.get("/wait")

        assert _json(client, "/monitoring/slow") == {}


class TestWhere:
    def test_outsiders_are_refused_everywhere(self, busy: FlaskClient) -> None:
        for page in ("stats", "requests", "endpoints", "inflight", "deaths", "slow", "openapi.json"):
            answer = busy.get(f"/monitoring/{page}", environ_base=OTHER_ADDRESS)

            assert (answer.status_code, answer.json) == (
                403,
                {"error": "Your address may not read this page."},
            )

    def test_with_a_token_it_is_401_without_it(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("s3cret")
        client = _orders(token_file=str(tmp_path / "token")).test_client()
        refused = client.get("/monitoring/stats")

        assert (refused.status_code, refused.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert client.get("/monitoring/stats", headers={"Authorization": "Bearer s3cret"}).status_code == 200

    def test_it_can_be_moved_and_turned_off(self) -> None:
        moved = _orders(monitoring_path="/ops/figures").test_client()

        assert moved.get("/ops/figures/stats").status_code == 200
        assert _json(moved, "/ops/figures/openapi.json")["servers"] == [{"url": "/ops/figures"}]
        assert moved.get("/monitoring/stats").status_code == 404
        assert _orders(monitoring_path="off").test_client().get("/monitoring/stats").status_code == 404

    def test_it_is_not_kept_by_caches(self, client: FlaskClient) -> None:
        assert client.get("/monitoring/stats").headers["Cache-Control"] == "no-store"

    def test_paths_of_attackers_come_back_as_json_only(self, client: FlaskClient) -> None:
        client.get("/<script>%0d%0aalert(1)</script>")

        assert client.get("/monitoring/requests").mimetype == "application/json"
        assert _json(client, "/monitoring/requests")[0]["path"] == "/<script>\r\nalert(1)</script>"


_app = _orders()


def _from_loopback(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    return _app(environ | {"REMOTE_ADDR": "127.0.0.1"}, start_response)


_described = schemathesis.openapi.from_wsgi("/monitoring/openapi.json", _from_loopback)


@_described.parametrize()
def test_every_answer_is_as_described(case: schemathesis.Case[Any]) -> None:
    """Any query that the description allows is answered as it says, and any other is refused with a 400."""
    case.call_and_validate()


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=50),
    st.sampled_from([0, 1, 25, 50, 75, 90, 95, 99, 99.9, 100]),
)
@example([0.3, 0.9], 50)  # two whose last bit tells from which end it is counted
@example([0.3, 9.0], 75)
def test_percentiles_are_numpy_s(values: list[float], percent: float) -> None:
    ordered = sorted(values)

    assert figures.percentile(ordered, percent) == numpy.percentile(ordered, percent)
