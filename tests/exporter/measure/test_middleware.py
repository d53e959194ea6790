"""Rules, requests in progress, sizes, the time in the queue, and request ids."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import flask
import pytest
from flask import Blueprint, Flask, Response, request, send_file
from prometheus_client import CollectorRegistry
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Request
from werkzeug.wrappers import Response as WerkzeugResponse

from exporter import FlaskExporter
from tests.rig.deadline import eventually
from tests.rig.switches import quick_switches
from tests.rig.users import as_child
from tests.rig.wsgi import RULE, Clock, Counts, application, call, counted, environ, forgotten

# Rules


@pytest.mark.parametrize(
    ("path", "method", "status", "error"),
    [
        ("/nowhere", "GET", "404", "NotFound"),
        ("/orders/7", "DELETE", "405", "MethodNotAllowed"),
        ("/slash", "GET", "308", ""),
    ],
)
def test_what_matches_no_rule_is_unmatched(path: str, method: str, status: str, error: str) -> None:
    app, exporter = application()
    app.add_url_rule("/slash/", "slash", lambda: "ok")

    assert call(app, path, method).status[:3] == status
    Counts(exporter).are(method, "_unmatched", status, error)


def test_a_method_that_no_rfc_knows_is_other() -> None:
    app, exporter = application()
    app.add_url_rule("/cache", "cache", lambda: "gone", methods=["PURGE"])

    assert call(app, "/cache", "PURGE").status == "200 OK"
    assert call(app, "/cache", "BREW").status == "405 METHOD NOT ALLOWED"
    counts = Counts(exporter)
    assert counts.total == {("_OTHER", "200"): 1, ("_OTHER", "405"): 1}
    assert counts.durations == {("_OTHER", "/cache", "200"): 1, ("_OTHER", "_unmatched", "405"): 1}


def test_the_rule_of_a_mounted_blueprint_has_its_prefixes() -> None:
    inner, outer = Blueprint("inner", __name__), Blueprint("outer", __name__, url_prefix="/api")
    inner.add_url_rule("/<name>", "show", lambda name: name)
    outer.register_blueprint(inner, url_prefix="/v<int:version>")
    inner.url_value_preprocessor(lambda _, values: values.pop("version") if values else None)
    app, exporter = application()
    app.register_blueprint(outer)

    assert call(app, "/api/v2/tea").body == b"tea"
    Counts(exporter).are("GET", "/api/v<int:version>/<name>", "200")


def test_the_rule_of_a_subdomain_is_without_its_host() -> None:
    app, exporter = application(flask={"subdomain_matching": True})
    app.config["SERVER_NAME"] = "example.test"
    app.add_url_rule("/users/<name>", "user", lambda name: name, subdomain="api")

    assert call(app, "/users/ada", variables={"HTTP_HOST": "api.example.test"}).body == b"ada"
    Counts(exporter).are("GET", "/users/<name>", "200")


def test_the_rule_under_a_script_name_is_without_it() -> None:
    app, exporter = application()
    service = DispatcherMiddleware(lambda *_: [], {"/shop": app})

    assert call(service, "/shop/orders/7").body == b"xxxxxxx"
    Counts(exporter).are("GET", RULE, "200")


def test_an_application_behind_proxyfix_is_measured_outside_of_it() -> None:
    app, exporter = application()
    app.wsgi_app = ProxyFix(app.wsgi_app, x_prefix=1)  # type: ignore[method-assign]

    assert call(app, "/orders/7", variables={"HTTP_X_FORWARDED_PREFIX": "/shop"}).status == "200 OK"
    Counts(exporter).are("GET", RULE, "200")


@pytest.mark.parametrize("inside", [True, False])
def test_a_middleware_that_answers_late_does_not_hide_the_rule(inside: bool) -> None:
    """One that calls `start_response` after the application is done, when Flask has dropped its request."""

    def buffering(wsgi_app: Any) -> Any:
        def whole(variables: Any, start_response: Any) -> list[bytes]:
            answer = call(lambda _, start: wsgi_app(variables, start))
            start_response(answer.status, answer.headers)
            return [answer.body]

        return whole

    app, exporter = application(wrap=buffering if inside else None)
    if not inside:
        app.wsgi_app = buffering(app.wsgi_app)  # type: ignore[method-assign]

    assert call(app, "/orders/7").body == b"xxxxxxx"
    Counts(exporter).are("GET", RULE, "200")


def test_a_middleware_that_answers_itself_is_counted_with_the_rule_it_stands_before() -> None:
    def closed(_: Any, start_response: Any) -> list[bytes]:
        start_response("403 Forbidden", [])
        return [b"closed"]

    app, exporter = application(wrap=lambda _: closed)

    assert call(app, "/orders/7").body == b"closed"
    Counts(exporter).are("GET", RULE, "403", "Forbidden")


@pytest.mark.parametrize(
    "variables",
    [{"PATH_INFO": "/€"}, {"PATH_INFO": "/\ud800"}, {"PATH_INFO": None}, {"REQUEST_METHOD": "\ud800"}],
)
def test_an_environ_against_the_rules_of_wsgi_changes_no_answer(variables: dict[str, Any]) -> None:
    """Some bridges decode the path, which is Latin-1 in WSGI."""

    def closed(_: Any, start_response: Any) -> list[bytes]:
        start_response("403 Forbidden", [])
        return [b"closed"]

    app, exporter = application(wrap=lambda _: closed, excluded_paths="/excluded")

    assert call(app, "/", variables=variables).body == b"closed"
    assert ("recent",) not in Counts(exporter).failures


def test_an_environ_that_cannot_be_measured_is_told_and_answered() -> None:
    def closed(_: Any, start_response: Any) -> list[bytes]:
        start_response("403 Forbidden", [])
        return [b"closed"]

    app, exporter = application(wrap=lambda _: closed, excluded_paths="/excluded")

    assert call(app, "/", variables={"PATH_INFO": None}).body == b"closed"
    assert Counts(exporter).failures == {("middleware",): 1}
    assert Counts(exporter).total == {}


@pytest.mark.parametrize("path", ["/internal", "/caf\u00e9"])
def test_an_excluded_path_is_not_measured_and_every_other_one_is(path: str) -> None:
    app, exporter = application(excluded_paths=["/internal", "/caf\u00e9"])
    app.add_url_rule(path, "excluded", lambda: "excluded")

    assert call(app, path).body == b"excluded"
    call(app, "/orders/7")
    Counts(exporter).are("GET", RULE, "200")


def answering(body: bytes) -> Any:
    """A middleware that looks at the request in Werkzeug's way, and answers some itself."""

    def wrap(wsgi_app: Any) -> Any:
        def gate(variables: Any, start_response: Any) -> Any:
            if Request(variables).path in ("/private", "/orders/8"):
                return WerkzeugResponse(body, 401)(variables, start_response)
            return wsgi_app(variables, start_response)

        return gate

    return wrap


@pytest.mark.parametrize(("path", "rule"), [("/private", "_unmatched"), ("/orders/8", RULE)])
def test_a_middleware_that_makes_a_request_of_werkzeugs_and_answers_is_counted_as_it_answers(
    path: str, rule: str
) -> None:
    app, exporter = application(wrap=answering(b"who are you?"))

    assert call(app, path).status == "401 UNAUTHORIZED"
    Counts(exporter).are("GET", rule, "401", "Unauthorized")


@pytest.mark.parametrize("kind", [Request, flask.Request])
def test_a_request_that_a_middleware_makes_when_flask_is_done_hides_neither_rule_nor_marks(kind: Any) -> None:
    """As one that logs each answer does, when it is told the status."""

    def logging(wsgi_app: Any) -> Any:
        def logged(variables: Any, start_response: Any) -> Any:
            def note(status: str, headers: Any) -> Any:
                assert kind(variables).path
                return start_response(status, headers)

            return wsgi_app(variables, note)

        return logged

    app, exporter = application(wrap=logging)
    app.add_url_rule("/quiet", "quiet", exporter.do_not_track()(lambda: "quiet"))

    assert call(app, "/orders/7").status == "200 OK"
    assert call(app, "/quiet").status == "200 OK"
    Counts(exporter).are("GET", RULE, "200")


def test_an_application_of_werkzeugs_that_is_mounted_is_unmatched() -> None:
    """Though the path that is left for it is a path of the application around it."""

    @Request.application
    def tools(_: Request) -> WerkzeugResponse:
        return WerkzeugResponse("tools")

    app, exporter = application(wrap=lambda wsgi_app: DispatcherMiddleware(wsgi_app, {"/tools": tools}))

    assert call(app, "/tools/orders/7").body == b"tools"
    Counts(exporter).are("GET", "_unmatched", "200")


def test_what_a_test_client_puts_into_the_environ_hides_no_answer() -> None:
    def silent(_: Any, start_response: Any) -> list[bytes]:
        start_response("204 No Content", [])
        return []

    app, exporter = application(wrap=lambda _: silent)

    assert app.test_client().get("/orders/7").status_code == 204
    Counts(exporter).are("GET", RULE, "204")


# Mounted applications


def copying(wsgi_app: Any) -> Any:
    """A middleware that hands on a copy of the environ."""
    return lambda variables, start_response: wsgi_app({**variables}, start_response)


@pytest.mark.parametrize("last", [False, True], ids=["outer first", "outer last"])
@pytest.mark.parametrize("between", [lambda mounted: mounted, copying], ids=["the environ", "a copy"])
def test_a_request_to_a_mounted_application_is_counted_once_with_its_rule(last: bool, between: Any) -> None:
    mounted, exporter = application()
    mounted.add_url_rule("/boom", "boom", lambda: str(1 / 0))
    site = Flask("site")
    if not last:
        FlaskExporter(site, registry=exporter.registry)
    site.wsgi_app = DispatcherMiddleware(site.wsgi_app, {"/api": between(mounted)})  # type: ignore[method-assign]
    if last:
        FlaskExporter(site, registry=exporter.registry)

    assert call(site, "/api/orders/7").body == b"xxxxxxx"
    Counts(exporter).are("GET", RULE, "200")
    call(site, "/api/boom")
    counts = Counts(exporter)
    assert counts.total == {("GET", "200"): 1, ("GET", "500"): 1}
    assert counts.exceptions == {("GET", "500"): 1}
    assert counts.errors == {("GET", "/boom", "500", "ZeroDivisionError"): 1}
    assert counts.in_progress == {}


def test_a_request_through_three_applications_is_counted_once() -> None:
    innermost, exporter = application()
    app = innermost
    for name in ("middle", "outer"):
        around = Flask(name)
        around.wsgi_app = DispatcherMiddleware(around.wsgi_app, {f"/{name}": app})  # type: ignore[method-assign]
        FlaskExporter(around, registry=exporter.registry)
        app = around

    assert call(app, "/outer/middle/orders/7").body == b"xxxxxxx"
    Counts(exporter).are("GET", RULE, "200")


def test_an_application_that_is_mounted_in_itself_counts_once() -> None:
    app, exporter = application(
        wrap=lambda wsgi_app: DispatcherMiddleware(wsgi_app, {"/v1": lambda *a: app(*a)})
    )

    assert call(app, "/v1/orders/7").body == b"xxxxxxx"
    Counts(exporter).are("GET", RULE, "200")


def test_a_view_that_hands_its_request_to_another_application_is_counted_once() -> None:
    legacy, exporter = application()
    site = Flask("site")
    site.add_url_rule("/<path:_>", "legacy", lambda _: Response.from_app(legacy, request.environ))
    FlaskExporter(site, registry=exporter.registry)

    assert call(site, "/orders/7").body == b"xxxxxxx"
    assert Counts(exporter).total == {("GET", "200"): 1}


def test_the_requests_that_a_view_makes_itself_are_requests() -> None:
    """A batch, with the environ of its own request for the rest."""
    app, exporter = application()

    @app.post("/batch")
    def batch() -> str:
        answers = [
            call(
                lambda _, start, n=n: app({**request.environ, "REQUEST_METHOD": "GET", "PATH_INFO": n}, start)
            )
            for n in ("/orders/1", "/orders/2")
        ]
        return " ".join(answer.status for answer in answers)

    assert call(app, "/batch", "POST").body == b"200 OK 200 OK"
    assert Counts(exporter).durations == {("POST", "/batch", "200"): 1, ("GET", RULE, "200"): 2}


def test_applications_on_registries_of_their_own_count_each_for_itself() -> None:
    mounted, inner = application()
    site = Flask("site")
    site.wsgi_app = DispatcherMiddleware(site.wsgi_app, {"/api": mounted})  # type: ignore[method-assign]
    outer = FlaskExporter(site, registry=CollectorRegistry())

    call(site, "/api/orders/7")

    Counts(inner).are("GET", RULE, "200")
    Counts(outer).are("GET", RULE, "200")


@pytest.mark.parametrize(
    ("path", "variables"),
    [
        ("/legacy/orders/7", {}),
        ("/legacy", {}),
        ("/legacy/orders/7", {"SCRIPT_NAME": "/shop"}),
        ("/rewritten/orders/7", {}),
    ],
)
def test_the_path_of_a_request_is_that_of_the_client(path: str, variables: dict[str, str]) -> None:
    legacy = Flask("legacy")
    legacy.add_url_rule("/orders/<number>", "show", lambda number: number)
    legacy.add_url_rule("/", "index", lambda: "index")

    def rewriting(variables: Any, start_response: Any) -> Any:
        variables["PATH_INFO"] = variables["PATH_INFO"].replace("/rewritten", "/legacy")
        return DispatcherMiddleware(app, {"/legacy": legacy})(variables, start_response)

    app, exporter = application(wrap=lambda _: rewriting)

    call(app, path, variables=variables)

    assert [recorded.path for recorded in exporter.core.flight_recorder.read()] == [
        variables.get("SCRIPT_NAME", "") + path
    ]


def test_the_request_log_has_the_path_of_the_client_too(tmp_path: Path) -> None:
    mounted = Flask("mounted")
    mounted.add_url_rule("/orders", "show", lambda: "orders")
    app, exporter = application(
        wrap=lambda wsgi_app: DispatcherMiddleware(wsgi_app, {"/shop": mounted}),
        request_log=str(tmp_path / "log"),
    )

    call(app, "/shop/orders")
    exporter.core.request_log.close()

    assert json.loads((tmp_path / "log").read_text())["path"] == "/shop/orders"


# In progress, sizes, queue


class Sendfile:
    """A server's own body for files."""

    def __init__(self, file: Any, size: int = 8192) -> None:
        self.file, self.size = file, size

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.read(self.size), b"")

    def close(self) -> None:
        self.file.close()


class FixedSendfile:
    """One that takes no attributes, and so tells nobody when it is closed."""

    __slots__ = ("file",)

    def __init__(self, file: Any, *_: int) -> None:
        self.file = file

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.file.read(8192), b"")


def ignore(*_: Any) -> Any:
    """A server's `start_response`."""


def views(app: Flask, during: Callable[[], None]) -> None:
    """Views that answer in every way; each calls `during` while it does."""

    @app.route("/plain")
    def plain() -> str:
        during()
        return "x"

    @app.route("/stream")
    def stream() -> Response:
        def chunks() -> Iterator[bytes]:
            during()
            yield b"x"
            yield b"y"

        return Response(chunks())

    @app.route("/empty")
    def empty() -> tuple[str, int]:
        during()
        return "", 204

    @app.route("/file")
    def file() -> Response:
        during()
        return send_file(BytesIO(b"xyz"), "text/plain")

    @app.route("/boom")
    def boom() -> str:
        during()
        raise ValueError("bad")

    @app.route("/break")
    def broken() -> Response:
        def chunks() -> Iterator[bytes]:
            during()
            yield b"x"
            raise ValueError("bad")

        return Response(chunks())

    @app.route("/untracked")
    def untracked() -> str:
        during()
        request.prom_do_not_track = True  # type: ignore[attr-defined]
        return "x"


@pytest.mark.parametrize("take", [None, 0, 1])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["plain", "stream", "empty", "file", "boom", "break", "untracked", "none"])
@pytest.mark.parametrize(
    ("propagate", "wrapper"), [(False, Sendfile), (True, Sendfile), (False, FixedSendfile)]
)
def test_a_request_is_in_progress_from_its_beginning_to_its_close(
    path: str, method: str, take: int | None, propagate: bool, wrapper: type
) -> None:
    """Whatever becomes of it, and however much of it is taken."""
    app, exporter = application()
    app.config["PROPAGATE_EXCEPTIONS"] = propagate
    seen: list[dict[tuple[str, ...], float]] = []
    views(app, lambda: seen.append(counted(exporter, "flask_http_requests_in_progress")))

    call(app, f"/{path}", method, take=take, variables={"wsgi.file_wrapper": wrapper})

    assert seen in ([{(): 1}], [])
    assert seen or path == "none" or take == 0 or method == "HEAD"
    for family in ("flask_http_requests_in_progress", "flask_worker_threads_busy"):
        assert counted(exporter, family) == {}
    assert counted(exporter, "flask_exporter_failures_total") == {}
    assert set(exporter.core.flight_recorder.live) == {None}


def test_a_sent_request_is_in_progress_until_the_server_closes_it() -> None:
    """All of the body is handed over, and a slow client has not got it yet."""
    app, exporter = application()
    body: Any = app(environ("/orders/7"), ignore)
    chunks = list(body)

    assert (chunks, len(exporter.core.flight_recorder.read())) == ([b"xxxxxxx"], 1)
    assert counted(exporter, "flask_http_requests_in_progress") == {(): 1}
    assert counted(exporter, "flask_worker_threads_busy") == {(): 1}
    body.close()
    assert counted(exporter, "flask_http_requests_in_progress") == {}


@pytest.mark.parametrize("path", ["/orders/7", "/boom", "/break", "/nowhere"])
def test_a_server_that_never_closes_leaves_nothing_behind(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as the bridges to AWS Lambda."""
    app, exporter = application()
    views(app, lambda: None)
    monkeypatch.setattr(app.logger, "disabled", True)  # pytest keeps the records
    for _ in range(3):
        with suppress(ValueError):
            assert list(app(environ(path), ignore))

    eventually(lambda: forgotten(exporter), "no request in progress")
    assert exporter.core.flight_recorder.in_flight() == []
    assert set(exporter.core.flight_recorder.live) == {None}


def test_an_answer_that_a_middleware_throws_away_is_counted_and_no_longer_in_progress() -> None:
    """It answers in the place of the application, and closes nothing."""
    app, exporter = application()
    for path in ("/orders/7", "/nowhere", "/nowhere"):
        app(environ(path), ignore)

    eventually(lambda: forgotten(exporter), "no request in progress")
    counts = Counts(exporter)
    assert counts.total == {("GET", "200"): 1, ("GET", "404"): 2}
    assert counts.disconnects == {(RULE,): 1, ("_unmatched",): 2}


def test_an_answer_that_nobody_has_read_yet_is_in_progress() -> None:
    app, exporter = application()
    body = app(environ("/orders/7"), ignore)

    assert counted(exporter, "flask_http_requests_in_progress") == {(): 1}
    assert list(body) == [b"xxxxxxx"]
    assert Counts(exporter).total == {("GET", "200"): 1}


def test_two_exporters_of_one_application_count_a_request_once() -> None:
    """Both families tell it; the thread is busy once."""
    app, exporter = application()
    exporter.export_defaults(prefix="other", app=app)
    seen: list[dict[tuple[str, ...], float]] = []

    @app.get("/seen")
    def view() -> str:
        names = (
            "flask_http_requests_in_progress",
            "other_http_requests_in_progress",
            "flask_worker_threads_busy",
        )
        seen.extend(counted(exporter, name) for name in names)
        return "x"

    call(app, "/seen")

    assert seen == [{(): 1}] * 3
    assert counted(exporter, "other_http_requests_in_progress") == {}


def test_a_mounted_application_has_one_place() -> None:
    """Both are measured by one exporter; a view that asks its own application has two."""
    inner, exporter = application()
    outer = Flask("outer")
    exporter.init_app(outer)
    outer.wsgi_app = DispatcherMiddleware(outer.wsgi_app, {"/inner": inner})  # type: ignore[method-assign]
    seen: list[dict[tuple[str, ...], float]] = []

    @inner.get("/seen")
    def view() -> str:
        seen.append(counted(exporter, "flask_http_requests_in_progress"))
        return "x"

    @outer.get("/asks")
    def asks() -> str:
        return call(inner, "/seen").body.decode()

    call(outer, "/inner/seen")
    call(outer, "/asks")

    assert seen == [{(): 1}, {(): 2}]
    assert counted(exporter, "flask_http_requests_in_progress") == {}


@pytest.mark.parametrize("announced", [None, 0, 100, 101, 1_000_000])
def test_sizes_are_counted_in_powers_of_ten(announced: int | None) -> None:
    app, exporter = application()

    @app.post("/upload")
    def upload() -> bytes:
        return request.get_data()

    size = announced or 0
    body = os.urandom(size)
    variables: dict[str, Any] = {"wsgi.input": io.BytesIO(body)}
    if announced is not None:
        variables["CONTENT_LENGTH"] = str(announced)
    assert call(app, "/upload", "POST", variables=variables).body == body

    (recent,) = exporter.core.flight_recorder.read()
    assert (recent.request_size, recent.response_size) == (size, size)
    for name in ("request", "response"):
        family = f"flask_http_{name}_size_bytes"
        labels = ("POST", "/upload")
        assert counted(exporter, f"{family}_sum") == ({labels: size} if size else {})
        assert counted(exporter, f"{family}_count") == {labels: 1}
        assert counted(exporter, f"{family}_bucket") == {
            (*labels, bound): 1
            for bound in ("100.0", "1000.0", "10000.0", "100000.0", "1e+06", "1e+07", "1e+08", "+Inf")
            if size <= float(bound)
        }


@pytest.mark.parametrize("length", ["", "-5", "much", "١٢", "1" * 5000])
def test_a_length_that_the_client_made_up_hurts_nobody(length: str) -> None:
    app, exporter = application()

    assert call(app, "/orders/7", variables={"CONTENT_LENGTH": length}).status == "200 OK"
    counts = Counts(exporter)
    counts.are("GET", RULE, "200")
    assert all(0 < size <= 1 << 40 for size in counts.request_sizes.values())


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("1700000999.500", 0.5),
        ("t=1700000999.500", 0.5),
        ("1700000999500", 0.5),
        ("t=1700000999500", 0.5),
        ("1700000999500000", 0.5),
        ("1700000000", 60.0),
        ("1700001030", 0.0),
        ("99999999999", 0.0),
        ("100000000000", 60.0),
        ("99999999999999", 0.0),
        ("100000000000000", 60.0),
    ],
)
def test_the_time_in_the_queue_is_understood_in_seconds_milliseconds_and_microseconds(
    header: str, seconds: float, clock: Clock
) -> None:
    """Clamped to 0..60 s. The wall clock says 1700001000. No unit is mistaken for another since 1973."""
    app, exporter = application(trusted_proxies="127.0.0.1")
    assert clock.now == 1000

    call(app, "/orders/7", variables={"HTTP_X_REQUEST_START": header, "REMOTE_ADDR": "127.0.0.1"})

    assert counted(exporter, "flask_http_request_queue_seconds_count") == {(): 1}
    assert counted(exporter, "flask_http_request_queue_seconds_sum") == ({(): seconds} if seconds else {})


@pytest.mark.parametrize(
    "header", [None, "", "soon", "t=", "-1", "nan", "1e400", "9" * 5000, "12:30", "1700000999,5"]
)
def test_garbage_in_the_queue_header_counts_for_nothing(header: str | None) -> None:
    """Like none at all."""
    app, exporter = application(trusted_proxies="127.0.0.1")

    call(app, "/orders/7", variables={} if header is None else {"HTTP_X_REQUEST_START": header})

    assert counted(exporter, "flask_http_request_queue_seconds_count") == {}
    Counts(exporter).are("GET", RULE, "200")


@pytest.mark.parametrize("proxies", [(), "192.0.2.0/24"])
def test_the_queue_header_of_a_client_counts_for_nothing(proxies: Any) -> None:
    app, exporter = application(trusted_proxies=proxies)

    call(
        app, "/orders/7", variables={"HTTP_X_REQUEST_START": str(time.time() - 5), "REMOTE_ADDR": "127.0.0.1"}
    )

    assert counted(exporter, "flask_http_request_queue_seconds_count") == {}


# The first request


def test_simultaneous_first_requests_begin_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that come in meanwhile wait, and are measured too."""
    app, exporter = application()
    asked, beginnings, begun = list[int](), list[int](), threading.Event()

    def begin(*_: Any) -> None:
        beginnings.append(len(asked))
        begun.set()
        while len(asked) < 4:
            time.sleep(0)
        for _again in range(100_000):  # time for the others to come in
            pass

    def ask(number: int) -> None:
        if number:
            begun.wait(30)
        asked.append(number)
        call(app, "/orders/7")

    monkeypatch.setattr(exporter.core, "begin", begin)
    threads = [threading.Thread(target=ask, args=[number]) for number in range(4)]
    with quick_switches():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert beginnings == [1]
    assert Counts(exporter).total == {("GET", "200"): 4}


def test_a_child_begins_at_its_own_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    app, exporter = application()
    beginnings = list[int]()
    monkeypatch.setattr(exporter.core, "begin", lambda *_: beginnings.append(os.getpid()))

    def ask() -> None:
        beginnings.clear()
        call(app, "/orders/7")
        call(app, "/orders/7")
        assert beginnings == [os.getpid()]

    ask()
    as_child(ask)


# Request ids


@pytest.mark.parametrize("given", ["a", "A-z_0.9", "x" * 64])
def test_a_well_formed_request_id_is_kept(given: str) -> None:
    app, _ = application()

    assert (
        dict(call(app, "/orders/7", variables={"HTTP_X_REQUEST_ID": given}).headers)["X-Request-ID"] == given
    )


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\n", "é", "<script>"])
def test_any_other_request_id_is_replaced(given: str) -> None:
    app, _ = application()

    found = dict(call(app, "/orders/7", variables={"HTTP_X_REQUEST_ID": given}).headers)["X-Request-ID"]

    assert len(found) == 24
    assert int(found, 16) > 0


@pytest.mark.parametrize("header", ["x-request-id", "X-Request-ID", "X-Request-Id"])
def test_the_applications_own_request_id_is_left_alone(header: str) -> None:
    app, _ = application()
    app.after_request(lambda response: response.headers.set(header, "mine") or response)

    ids = [value for name, value in call(app, "/orders/7").headers if name.lower() == "x-request-id"]

    assert ids == ["mine"]


def test_each_request_has_the_id_after_the_last_one() -> None:
    app, _ = application()

    ids = [dict(call(app, "/orders/7").headers)["X-Request-ID"] for _ in range(1000)]

    first = int(ids[0], 16)
    assert ids == [f"{number:024x}" for number in range(first, first + 1000)]


def test_a_forked_worker_makes_other_ids_than_its_parent() -> None:
    app, _ = application()

    def ids() -> set[str]:
        return {dict(call(app, "/orders/7").headers)["X-Request-ID"] for _ in range(20)}

    ids()  # the parent has some in store
    reading, writing = os.pipe()
    as_child(lambda: os.write(writing, " ".join(ids()).encode()))
    os.close(writing)
    with open(reading) as of_child:
        assert not ids() & set(of_child.read().split())
