"""No client makes the number of series grow without bound, and no rule of the application is ever lost."""

from __future__ import annotations

import random
import string
from collections import Counter
from typing import Any

import pytest
from flask import Flask, abort, request
from prometheus_client import CollectorRegistry
from werkzeug.exceptions import BadRequest, HTTPException
from werkzeug.routing import RequestRedirect

from exporter import FlaskExporter, forks
from exporter.labels import METHODS, SeriesCap, error_type_of, is_redirect
from tests.rig.wsgi import call, counted

LABELS = ("method", "url_rule", "status")

# The cap


def test_below_the_limit_every_label_set_is_its_own() -> None:
    cap = SeriesCap(3, LABELS, "url_rule")

    for number in range(3):
        labels = ("GET", f"/{number}", "200")
        assert cap.admit(labels, own=False) == labels
        assert cap.admit(labels, own=False) == labels


@pytest.mark.parametrize(
    ("labels", "own", "folded"),
    [
        (("PUT", "/orders", "404"), True, ("_OTHER", "/orders", "4xx")),
        (("PUT", "/made-up", "404"), False, ("_OTHER", "_other", "4xx")),
        (("GET", "/orders", "200"), True, ("_OTHER", "/orders", "2xx")),
    ],
)
def test_above_the_limit_a_known_rule_stays_and_the_rest_is_folded(
    labels: tuple[str, ...], own: bool, folded: tuple[str, ...]
) -> None:
    cap = SeriesCap(1, LABELS, "url_rule")
    cap.admit(("GET", "/first", "200"), own=True)

    assert cap.admit(labels, own) == folded
    assert cap.admit(("GET", "/first", "200"), own=True) == ("GET", "/first", "200")


def test_further_labels_are_folded_and_a_family_without_groups_has_none() -> None:
    errors = SeriesCap(0, (*LABELS, "error_type", "region"), "url_rule")
    totals = SeriesCap(0, ("method", "status", "region"))

    assert errors.admit(("GET", "/orders", "500", "KeyError", "north"), own=True) == (
        "_OTHER", "/orders", "5xx", "_other", "_other"
    )  # fmt: skip
    assert totals.admit(("GET", "500", "north"), own=True) == ("_OTHER", "5xx", "_other")


def test_every_status_has_an_error_type() -> None:
    assert {status: error_type_of(status) for status in (400, 404, 418, 451, 500, 503)} == {
        400: "BadRequest",
        404: "NotFound",
        418: "ImATeapot",
        451: "UnavailableForLegalReasons",
        500: "InternalServerError",
        503: "ServiceUnavailable",
    }
    assert error_type_of(499) == error_type_of(0) == "HTTPException"


@pytest.mark.parametrize(
    ("error", "redirects"),
    [(RequestRedirect("/new"), True), (HTTPException(), True), (BadRequest(), False), (ValueError(), False)],
)
def test_a_redirect_is_no_error(error: Exception, redirects: bool) -> None:
    assert is_redirect(error) is redirects


def test_the_nine_methods() -> None:
    assert len(METHODS) == 9


# Attacks

RULES = 30


def host(**options: Any) -> tuple[Flask, FlaskExporter]:
    """Thirty rules that take any registered method and answer with the status they are asked for."""
    app = Flask("host", static_folder=None)
    exporter = FlaskExporter(app, registry=CollectorRegistry(), **options)

    def answer(status: int) -> Any:
        if status >= 400:
            abort(status)
        return "ok", status

    for number in range(RULES):
        app.add_url_rule(f"/rule{number}/<int:status>", f"rule{number}", answer, methods=[*METHODS])
    return app, exporter


def series(exporter: FlaskExporter) -> Counter[str]:
    """How many label sets each of the request families has."""
    sets = {
        (family.name, tuple(value for name, value in sample.labels.items() if name != "le"))
        for family in exporter.registry.collect()
        for sample in family.samples
        if family.name.startswith("flask_http_")
    }
    return Counter(name for name, _ in sets)


def attack(app: Flask, requests: int, seed: int) -> Counter[str]:
    """Requests whose every part is a client's invention, every third for a rule; how often each path came."""
    chance = random.Random(seed)
    statuses = (200, 201, 204, 302, 400, 403, 404, 409, 410, 418, 422, 429, 500, 501, 502, 503)

    def word() -> str:
        return "".join(chance.choices(string.printable, k=chance.randrange(1, 30)))

    rules: Counter[str] = Counter()
    for number in range(requests):
        path = "/" + word()
        if number % 3 == 0:
            path = f"/rule{chance.randrange(RULES - 1)}/{chance.choice(statuses)}"
            rules[path.split("/")[1]] += 1
        method = chance.choice([*METHODS, word(), word()])
        variables = {
            "PATH_INFO": path,
            "QUERY_STRING": word(),
            "HTTP_HOST": word(),
            "REMOTE_ADDR": word(),
            "CONTENT_LENGTH": word(),
            **{f"HTTP_{name}": word() for name in ("X_REQUEST_ID", "X_REQUEST_START", "USER_AGENT")},
            "HTTP_TRACEPARENT": word(),
            "HTTP_UPGRADE": word(),
            "REQUEST_METHOD": method,
        }
        call(app, "/", "GET", variables=variables)
    return rules


def bounded(exporter: FlaskExporter, limit: int) -> None:
    """Every family is within the cap, and every cache of the exporter too."""
    most = limit + 6 * (RULES + 2)
    for name, number in series(exporter).items():
        assert number <= most, f"{name}: {number}"
    for owner in forks.owners():
        for name in ("recorders", "_folded", "_errors", "table"):
            assert len(getattr(owner, name, ())) <= 5 * most, name
    assert len(exporter.core.worker.slots._entries) <= most


@pytest.mark.parametrize("requests", [4_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_random_requests_stay_within_the_cap(requests: int) -> None:
    """The default one, of 1,000 label sets."""
    app, exporter = host(trusted_proxies="127.0.0.1")

    rules = attack(app, requests, seed=7)

    bounded(exporter, 1000)
    assert sum(counted(exporter, "flask_http_request_total").values()) == requests
    seen: Counter[str] = Counter()
    for labels, value in counted(exporter, "flask_http_request_duration_seconds_count").items():
        seen[labels[1].split("/")[1] if labels[1].startswith("/") else labels[1]] += int(value)
    assert seen.keys() <= {f"rule{number}" for number in range(RULES)} | {"_unmatched"}
    # A method that no rule takes is unmatched, so a rule's own count is at most what came for it.
    assert all(seen[rule] <= rules[rule] for rule in rules)
    assert {labels[0] for labels in counted(exporter, "flask_http_request_total")} <= METHODS | {"_OTHER"}
    dropped = counted(exporter, "flask_exporter_series_dropped_total")
    assert dropped[()] > 0
    assert counted(exporter, "flask_exporter_failures_total") == {}
    assert counted(exporter, "flask_http_requests_in_progress") == {}


@pytest.mark.parametrize("group_by", ["path", "endpoint", "url_rule", "full_path", "remote_addr"])
def test_whatever_requests_are_grouped_by_the_cap_holds(group_by: str) -> None:
    app, exporter = host(group_by=group_by, max_series=50)

    attack(app, 1000, seed=11)

    bounded(exporter, 50)
    assert sum(counted(exporter, "flask_http_request_total").values()) == 1000
    assert sum(counted(exporter, "flask_http_request_duration_seconds_count").values()) == 1000


def test_default_labels_that_a_client_chooses_are_folded_too() -> None:
    app, exporter = host(max_series=50, default_labels={"agent": lambda: request.headers.get("User-Agent")})

    attack(app, 1000, seed=13)

    bounded(exporter, 50)
    assert sum(counted(exporter, "flask_http_request_total").values()) == 1000


@pytest.mark.parametrize("max_series", [10, 200])
def test_a_rule_keeps_its_name_however_late_it_is_first_used(max_series: int) -> None:
    app, exporter = host(max_series=max_series)
    attack(app, 1500, seed=17)
    late = f"/rule{RULES - 1}/<int:status>"
    counts = "flask_http_request_duration_seconds_count"
    assert not any(labels[1] == late for labels in counted(exporter, counts))
    dropped = counted(exporter, "flask_exporter_series_dropped_total").get((), 0)

    for status in (200, 404, 500):
        call(app, f"/rule{RULES - 1}/{status}", "PATCH")

    assert {labels: n for labels, n in counted(exporter, counts).items() if labels[1] == late} == {
        ("_OTHER", late, "2xx"): 1,
        ("_OTHER", late, "4xx"): 1,
        ("_OTHER", late, "5xx"): 1,
    }
    errors = counted(exporter, "flask_http_request_errors_total")
    assert {labels: n for labels, n in errors.items() if labels[1] == late} == {
        ("_OTHER", late, "4xx", "_other"): 1,
        ("_OTHER", late, "5xx", "_other"): 1,
    }
    assert counted(exporter, "flask_exporter_series_dropped_total")[()] == dropped + 5


def test_custom_error_classes_are_bounded() -> None:
    """An application that makes a class for each error does not make a series for each."""
    app, exporter = host(max_series=50)

    @app.get("/boom/<name>")
    def boom(name: str) -> str:
        raise type(name, (Exception,), {})

    for number in range(200):
        call(app, f"/boom/Error{number}")

    bounded(exporter, 50)
    assert sum(counted(exporter, "flask_http_request_errors_total").values()) == 200
