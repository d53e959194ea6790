"""`/monitoring/inflight`: what is being answered right now, with the rule, the age and the place."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response
from jsonschema import Draft202012Validator
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.routing import BaseConverter

from exporter.pages import figures
from exporter.pages.inflight import inflight
from exporter.routes.flask import rule_of
from exporter.routes.table import Routes
from exporter.worker.inflight import WorkerRequest
from exporter.worker.requests import InFlight
from exporter.worker.stackring import Sample
from tests.rig.deadline import eventually
from tests.rig.wsgi import application, call, counted

DESCRIPTION = json.loads((Path(figures.__file__).parent / "openapi.json").read_text())

OLDEST = "flask_http_request_oldest_seconds"


def listed(app: Callable[..., Any]) -> list[dict[str, Any]]:
    answer = call(app, "/monitoring/inflight")
    assert answer.status == "200 OK", answer.body
    page: list[dict[str, Any]] = json.loads(answer.body)
    schema = {"$ref": "#/components/schemas/InFlight", "components": DESCRIPTION["components"]}
    for request in page:
        Draft202012Validator(schema).validate(request)
    return page


def test_nothing_is_in_progress_where_nobody_asks() -> None:
    app, _ = application()
    call(app, "/orders/7")

    assert listed(app) == []


def test_requests_are_shown_with_everything_that_is_known() -> None:
    """The oldest first; from an age of 0.1 s on with the calls of its thread, and no value of a variable."""
    app, exporter = application()
    go = threading.Event()

    def helper(secret: str) -> str:
        assert go.wait(60)
        return secret

    @app.post("/wait/<int:number>")
    def wait(number: int) -> str:
        return helper(f"hunter2-{number}")

    @app.get("/stream")
    def stream() -> Response:
        def chunks() -> Iterator[str]:
            yield "a"
            assert go.wait(60)

        return Response(chunks())

    asked = [("/wait/1?password=hunter2", "POST"), ("/stream", "GET")]
    threads = []
    for count, (path, method) in enumerate(asked, 1):
        threads.append(threading.Thread(target=call, args=(app, path, method)))
        threads[-1].start()
        eventually(lambda count=count: len(listed(app)) == count, "a request")  # type: ignore[misc]
    eventually(lambda: all(one["stack"] for one in listed(app)), "stacks")
    first, second = listed(app)
    eventually(
        lambda: ("/wait/<int:number>", "0") in counted(exporter, OLDEST), "a request of a second's age"
    )
    oldest = counted(exporter, OLDEST)["/wait/<int:number>", "0"]
    go.set()
    for thread in threads:
        thread.join(60)

    assert (first["path"], first["method"], first["url_rule"]) == ("/wait/1", "POST", "/wait/<int:number>")
    assert (second["path"], second["method"], second["url_rule"]) == ("/stream", "GET", "/stream")
    assert (first["state"], second["state"]) == ("running", "sending")
    assert {(one["worker"], one["pid"]) for one in (first, second)} == {(0, os.getpid())}
    assert [one["thread"] for one in (first, second)] == [thread.ident for thread in threads]
    assert re.fullmatch("[0-9a-f]{24}", first["request_id"])
    assert 0.1 < second["age_seconds"] < first["age_seconds"] <= oldest
    assert oldest >= 1.0
    assert any(re.fullmatch(rf"{__name__}:.*helper:\d+", line) for line in first["stack"])
    assert first["stack"][0].startswith("flask.")
    assert first["stack"][-1].startswith("threading:")
    assert "hunter2" not in json.dumps([first, second])
    assert counted(exporter, OLDEST) == {}


def test_the_oldest_request_is_as_old_as_it_is() -> None:
    app, exporter = application()
    start = time.perf_counter()

    @app.get("/young")
    def young() -> str:
        ages = counted(exporter, OLDEST).values()
        return str(0 < sum(ages) < time.perf_counter() - start)

    assert call(app, "/young").body == b"True"


@pytest.mark.parametrize(
    ("now", "age", "sampled", "stack_age"),
    [
        (0.0, 0.0, 0.0, None),
        (-0.5, 0.0, 0.0, None),  # it has begun since
        (0.1, 0.1, 0.0, None),
        (0.2, 0.2, 0.15, 0.05),
        (0.2, 0.2, 0.3, 0.0),  # the sample is newer than the question
        (1.2345678, 1.234568, 0.0, 1.234568),
    ],
)
def test_from_a_tenth_of_a_second_on_it_has_the_last_sample_of_its_stack(
    now: float, age: float, sampled: float, stack_age: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.pages.inflight.perf_counter", lambda: now)
    request = InFlight(0, 0.0, 1_767_225_600.25, "id-1", "GET", "", "/", 0, False, False)
    elsewhere = WorkerRequest(0, 7, request)
    stacks = {(7, 0.0): Sample(sampled, ["shop:view:1"])}

    (shown,) = inflight([elsewhere], stacks)
    assert shown["age_seconds"] == age
    assert shown["datetime"] == "2026-01-01T00:00:00.250000+00:00"
    assert shown["stack_age_seconds"] == (None if stack_age is None else pytest.approx(stack_age, abs=1e-9))
    assert shown["stack"] == (None if stack_age is None else ["shop:view:1"])
    (here,) = inflight([elsewhere._replace(thread=threading.get_ident())], stacks)
    assert here["stack_age_seconds"] == (None if stack_age is None else 0.0)


class Asking(BaseConverter):
    """A converter that fails."""

    def to_python(self, value: str) -> str:  # noqa: ARG002
        raise RuntimeError("no database")


def routed(**options: Any) -> Flask:
    app = Flask("routed", **options)
    app.url_map.converters["asking"] = Asking
    for rule, settings in {
        "/orders/<int:id>": {},
        "/only": {"methods": ["POST"]},
        "/slash/": {},
        "/socket": {"websocket": True},
        "/ask/<asking:what>": {},
    }.items():
        app.add_url_rule(rule, rule, lambda **_: "x", **settings)  # type: ignore[arg-type]
    return app


@pytest.mark.parametrize(
    ("method", "path", "rule"),
    [
        ("GET", "/orders/7", "/orders/<int:id>"),
        ("HEAD", "/orders/7", "/orders/<int:id>"),
        ("POST", "/orders/7", "_unmatched"),
        ("POST", "/only", "/only"),
        ("_OTHER", "/only", "_unmatched"),
        ("GET", "/slash", "_unmatched"),
        ("GET", "/slash/", "/slash/"),
        ("GET", "/socket", "/socket"),
        ("GET", "/ask/me", "_unmatched"),
        ("GET", "", "_unmatched"),
        ("GET", "/caf\ufffd\n", "_unmatched"),
    ],
)
def test_a_path_has_the_rule_that_would_answer_it(method: str, path: str, rule: str) -> None:
    routes = Routes()
    assert routes.rule(method, path) == "_unmatched"
    routes.add(partial(rule_of, Flask("other").url_map))
    routes.add(partial(rule_of, routed().url_map))

    assert routes.rule(method, path) == rule


def test_rules_are_looked_for_on_every_host_and_subdomain() -> None:
    hosts, subdomains = Flask("hosts", host_matching=True, static_host="static"), Flask("subdomains")
    hosts.add_url_rule("/a", "a", lambda: "x", host="a.example")
    hosts.add_url_rule("/any", "any", lambda **_: "x", host="<name>.example")
    subdomains.add_url_rule("/b", "b", lambda: "x", subdomain="api")
    tenants = Flask("tenants")
    tenants.add_url_rule("/c", "c", lambda **_: "x", subdomain="<tenant>")
    routes = Routes()
    routes.add(partial(rule_of, hosts.url_map))
    routes.add(partial(rule_of, subdomains.url_map))
    routes.add(partial(rule_of, tenants.url_map))

    paths = ["/a", "/b", "/any", "/c"]
    assert [routes.rule("GET", path) for path in paths] == paths


def test_the_rule_of_a_mounted_application_has_no_script_name() -> None:
    inner, _ = application()
    seen: list[dict[str, Any]] = []

    @inner.get("/seen/<int:number>")
    def view(**_: int) -> str:
        seen.extend(listed(inner))
        return "x"

    outer = DispatcherMiddleware(Flask("outer"), {"/mounted": inner})
    call(outer, "/mounted/seen/1")

    assert [(one["path"], one["url_rule"]) for one in seen] == [("/mounted/seen/1", "/seen/<int:number>")]
