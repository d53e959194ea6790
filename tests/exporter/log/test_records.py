"""Log records as JSON lines: what a destination is told about each, and those that an application makes."""

from __future__ import annotations

import errno
import http.client
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from pathlib import Path

import pytest
from flask import Flask, Response, copy_current_request_context, request, stream_with_context
from prometheus_client import CollectorRegistry

from exporter import FlaskExporter
from exporter.log.masking import Mask
from exporter.log.records import JsonHandler, RequestContext
from exporter.observation import EXCHANGE
from tests.rig.clients import ask
from tests.rig.deadline import eventually
from tests.rig.network import free_ports
from tests.rig.places import ROOT
from tests.rig.program import Program, module
from tests.rig.requestlogs import log_records
from tests.rig.wsgi import call


class Kept:
    """A destination that keeps what it is told."""

    def __init__(self) -> None:
        self.severities: list[int] = []

    def write(self, line: bytes, severity: int) -> None:  # noqa: ARG002  the text has tests of its own
        self.severities.append(severity)

    def close(self) -> None:
        """Close nothing."""


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (logging.INFO, 6),
        (logging.INFO - 1, 7),
    ],
)
def test_a_level_has_its_severity_in_syslog(level: int, severity: int) -> None:
    """RFC 5424, section 6.2.1."""
    kept = Kept()
    JsonHandler(kept, "json", 0, Mask(["key"]), "here").handle(logging.makeLogRecord({"levelno": level}))

    assert kept.severities == [severity]


def test_a_record_that_is_lost_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """As by every handler of `logging`, and to the exporter."""

    class Full(Kept):
        def write(self, line: bytes, severity: int) -> None:  # noqa: ARG002
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    losses: list[BaseException] = []
    handler = JsonHandler(Full(), "json", 0, Mask(["key"]), "here", losses.append)
    handler.handle(logging.makeLogRecord({"levelno": logging.ERROR}))

    assert [str(loss) for loss in losses] == ["[Errno 28] No space left on device"]
    assert "OSError: [Errno 28] No space left on device" in capsys.readouterr().err


SHOP = """
from flask import Flask, request
from exporter import FlaskExporter

app = Flask("shop")
FlaskExporter(app)

@app.get("/items/<int:number>")
def show(number):
    app.logger.warning("slow: %s", request.url.replace("card", "key"))
    return "item"
"""


class TestRecords:
    def test_each_made_during_a_request_carries_its_id(self, app: Flask, path: Path) -> None:
        trace = "0af7651916cd43dd8448eb211c80319c"
        headers = {"X-Request-ID": "known-1", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        answer = app.test_client().get("/orders/7", headers=headers)
        record, line = log_records(path)

        assert answer.headers["X-Request-ID"] == "known-1"
        assert (line["request_id"], line["trace_id"], line["url_rule"]) == (
            "known-1",
            trace,
            "/orders/<int:number>",
        )
        assert record == {
            "timestamp": record["timestamp"],
            "level": "WARNING",
            "logger": "stock",
            "instance": socket.gethostname(),
            "message": "low\nred",
            "request_id": "known-1",
            "trace_id": trace,
            "method": "GET",
            "path": "/orders/7",
            "url_rule": "/orders/<int:number>",
            "endpoint": "show",
            "left": 3,
            "parts": "[1]",
            "at": "nan",
        }
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record["timestamp"])

    @pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\u00e9", "<script>", "a;b"])
    def test_an_id_that_is_not_well_formed_is_replaced(self, app: Flask, path: Path, given: str) -> None:
        answer = app.test_client().get("/orders/7", headers={"X-Request-ID": given})
        replaced = answer.headers["X-Request-ID"]

        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", replaced)
        assert replaced != given
        assert [replaced] * 2 == [line["request_id"] for line in log_records(path)]

    def test_an_exception_is_one_record_with_its_traceback(self, app: Flask, path: Path) -> None:
        answer = app.test_client().get("/boom")
        record, line = log_records(path)

        assert record["message"] == "Exception on /boom [GET]"
        assert (record["level"], record["error_type"]) == ("ERROR", "ValueError")
        assert record["traceback"].startswith("Traceback (most recent call last):\n")
        assert record["traceback"].endswith("ValueError: bad\r\nnumber")
        assert record["request_id"] == line["request_id"] == answer.headers["X-Request-ID"]
        assert (line["level"], line["status"], line["error_type"]) == ("ERROR", 500, "ValueError")

    @pytest.mark.parametrize(("path_of_body", "status"), [("/stream/1", 200), ("/stream/0", 500)])
    def test_a_body_that_raises_leaves_its_traceback(
        self, app: Flask, path: Path, path_of_body: str, status: int
    ) -> None:
        """Flask, which is through with the request by then, logs nothing."""
        with pytest.raises(ValueError, match="half-way"):
            app.test_client().get(path_of_body, headers={"X-Request-ID": "known-3"}, buffered=True)
        line, record = log_records(path)

        assert (line["status"], line["level"], line["error_type"]) == (status, "ERROR", "ValueError")
        assert (record["message"], record["level"]) == (f"Exception on {path_of_body} [GET]", "ERROR")
        assert record["traceback"].endswith("ValueError: half-way")
        assert line["request_id"] == record["request_id"] == "known-3"

    def test_one_made_while_a_body_is_streamed_carries_the_id_too(self, app: Flask, path: Path) -> None:
        """Flask's context is gone by then, unless the view has asked for it to stay."""

        @app.get("/export")
        def export() -> Iterator[str]:
            logging.getLogger("stock").warning("first row")
            yield "row"
            logging.getLogger("stock").warning("second row")

        app.test_client().get("/export", headers={"X-Request-ID": "known-4"}, buffered=True)
        logging.getLogger("stock").warning("later")
        *records, later = [line for line in log_records(path) if line["logger"] == "stock"]

        assert [(one["request_id"], one["url_rule"], one["endpoint"]) for one in records] == [
            ("known-4", "/export", "export")
        ] * 2
        assert "request_id" not in later

    def test_an_exception_that_flask_propagates_leaves_its_traceback(self, app: Flask, path: Path) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = True
        with pytest.raises(ValueError, match="bad"):
            app.test_client().get("/boom")
        line, record = log_records(path)

        assert (record["message"], record["error_type"]) == ("Exception on /boom [GET]", "ValueError")
        assert record["request_id"] == line["request_id"]

    @pytest.mark.parametrize("propagate", [True, False])
    def test_a_handled_exception_in_the_log_hides_no_unhandled_one(
        self, app: Flask, path: Path, propagate: bool
    ) -> None:
        app.config["PROPAGATE_EXCEPTIONS"] = propagate

        @app.get("/twice")
        def twice() -> str:
            try:
                return os.environ["NO_SUCH_ORDER"]
            except KeyError:
                app.logger.exception("no such order")
            raise ValueError("worse")

        with suppress(ValueError):
            app.test_client().get("/twice")

        logged = [line["traceback"].splitlines()[-1] for line in log_records(path) if "traceback" in line]
        assert logged == ["KeyError: 'NO_SUCH_ORDER'", "ValueError: worse"]

    @pytest.mark.parametrize("size", [16_384, 20_000, 100_000])
    def test_of_a_long_traceback_the_end_stays(self, app: Flask, path: Path, size: int) -> None:
        """There it says what has happened."""

        @app.get("/long")
        def long() -> str:
            raise ValueError("x" * size + " and the end")

        app.test_client().get("/long")
        record, _ = log_records(path)

        assert len(record["traceback"]) == 16_384
        assert record["traceback"].endswith("xx and the end")

    def test_outside_of_a_request_there_is_no_id(self, app: Flask, path: Path) -> None:
        app.logger.error("starting")
        (record,) = log_records(path)

        assert (record["message"], "request_id" in record) == ("starting", False)

    def test_lower_levels_are_left_out(self, app: Flask, path: Path) -> None:
        app.logger.debug("no")
        app.logger.info("yes")

        assert [record["message"] for record in log_records(path)] == ["yes"]

    def test_plain_lines_that_a_path_could_forge_are_gone(self) -> None:
        """Though Flask's own handler, which writes them to stderr, was there before the exporter."""
        program = """
from flask import Flask
from exporter import FlaskExporter
app = Flask("shop")
app.logger.error("before")
FlaskExporter(app, request_log="stdout")
app.logger.error("after")
"""
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
        )

        assert re.findall("before|after", done.stderr) == ["before"]
        assert json.loads(done.stdout)["message"] == "after"

    def test_what_cannot_be_shown_in_json_leaves_the_record_whole(self, app: Flask, path: Path) -> None:
        class Odd:
            def __str__(self) -> str:
                return "odd\udcff"

        app.logger.error("%s", Odd(), extra={"odd": Odd(), "number": 2**70, "flag": True, "none": None})
        (record,) = log_records(path)

        assert (record["message"], record["odd"]) == ("odd\udcff", "odd\udcff")
        assert (record["number"], record["flag"], record["none"]) == (2**70, True, None)

    def test_a_value_that_cannot_be_shown_costs_itself_only(self, app: Flask, path: Path) -> None:
        class Hostile:
            def __str__(self) -> str:
                raise RuntimeError("no text")

        extras = {"digits": 10**5000, "hostile": Hostile(), "good": 1}
        app.logger.warning("odd", extra=extras)
        record = log_records(path)[0]

        assert record["digits"] == "<int: ValueError>" if sys.version_info >= (3, 11) else True
        assert (record["hostile"], record["good"]) == ("<Hostile: RuntimeError>", 1)

    def test_a_record_that_is_lost_is_counted(self, path: Path) -> None:
        """With the next scrape: a record may be made where no lock may be taken."""
        app = Flask("orders")
        exporter = FlaskExporter(app, registry=CollectorRegistry(), request_log=str(path))
        logging.raiseExceptions = False
        try:
            for _ in range(3):
                app.logger.warning("%d", "no number")
        finally:
            logging.raiseExceptions = True
        text = call(app, "/metrics").body.decode()
        exporter.core.request_log.close()

        assert 'flask_exporter_failures_total{stage="request_log"} 3.0' in text

    def test_a_handler_of_one_s_own_gets_the_id_from_a_filter(self, app: Flask) -> None:
        seen: list[tuple[str, str]] = []

        class Own(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                seen.append((record.request_id, record.trace_id))  # type: ignore[attr-defined]

        handler = Own()
        handler.addFilter(RequestContext())
        logging.getLogger("stock").addHandler(handler)
        try:
            app.test_client().get("/orders/7", headers={"X-Request-ID": "known-2"})
            logging.getLogger("stock").warning("later")
        finally:
            logging.getLogger("stock").removeHandler(handler)

        assert seen == [("known-2", ""), ("", "")]

    def test_extras_with_the_name_of_a_field_get_another(self, app: Flask, path: Path) -> None:
        names = ["timestamp", "level", "logger", "method", "path", "url_rule", "endpoint", "request_id"]

        @app.get("/pay")
        def pay() -> str:
            app.logger.error("paid", extra={**dict.fromkeys(names, 5), "customer": 7, "trace_id": ""})
            app.logger.error("paid", extra={"level": 5, "extra_level": 6})
            return "paid"

        app.test_client().get("/pay")
        record, second, line = log_records(path)

        assert {name for name, value in record.items() if value == 5} == {f"extra_{name}" for name in names}
        assert (record["level"], record["path"], record["customer"]) == ("ERROR", "/pay", 7)
        assert record["request_id"] == line["request_id"]
        assert "extra_trace_id" not in record  # it says the same
        assert (second["level"], second["extra_level"], second["extra_extra_level"]) == ("ERROR", 5, 6)

    def test_the_names_that_logging_leaves_free_stay(self, app: Flask, path: Path) -> None:
        app.logger.error("paid", extra={"method": "card", "path": "/till", "level": "gold"})
        (record,) = log_records(path)

        assert (record["method"], record["path"], record["extra_level"]) == ("card", "/till", "gold")

    def test_secrets_and_colours_are_in_no_part_of_a_record(self, app: Flask, path: Path) -> None:
        secret = "\x1b[1mhttps://shop:SECRET@bank/pay?token=SECRET&amount=5\x1b[0m"
        try:
            raise ConnectionError(secret)
        except ConnectionError:
            app.logger.exception("no answer from %s", secret, extra={"url": secret}, stack_info=True)
        (record,) = log_records(path)

        shown = "https://shop:***@bank/pay?token=***&amount=5"
        assert record["message"] == f"no answer from {shown}"
        assert record["traceback"].endswith(f"ConnectionError: {shown}")
        assert record["url"] == shown
        assert record["stack"].startswith("Stack (most recent call last):\n")
        assert b"SECRET" not in path.read_bytes().replace(b"@bank", b"")

    @pytest.mark.parametrize(
        ("logger", "message"),
        [
            ("werkzeug", '127.0.0.1 - - [28/Nov/2026 01:02:03] "%s" %s %s\n'),
            ("gunicorn.access", '127.0.0.1 "%s" %s %s'),
            ("uvicorn.access", '127.0.0.1:5 - "%s" %s %s'),
        ],
    )
    def test_a_server_s_own_line_for_a_request_is_not_there(
        self, app: Flask, path: Path, logger: str, message: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        app.logger.info("starting")
        logging.getLogger(logger).info(message, "GET /orders/7?card=4111 HTTP/1.1", 200, "-")
        logging.getLogger("werkzeug").error("Error on request:\n%s", "trace")

        assert [line["message"] for line in log_records(path)] == ["starting", "Error on request:\ntrace"]

    @pytest.mark.parametrize("target", ["stdout", "./requests.jsonl"])
    def test_flask_run_shows_no_secret(self, tmp_path: Path, target: str) -> None:
        (tmp_path / "shop.py").write_text(SHOP)
        (port,) = free_ports(1)
        command = module("flask", "--app", "shop", "run", "--port", str(port))
        environ = {**os.environ, "EXPORTER_REQUEST_LOG": target, "FORCE_COLOR": "1", "PYTHONPATH": str(ROOT)}
        with Program(command, tmp_path / "output", environ, tmp_path) as server:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

            def asked() -> bool:
                with suppress(ConnectionError):
                    return ask(connection, "/items/1?token=SECRET&card=SECRET").status == 200
                connection.close()
                return False

            eventually(asked, "an answer")
            assert ask(connection, "/nowhere?password=SECRET").status == 404
            connection.close()
            log = server.text() if target == "stdout" else (tmp_path / target).read_text()

            lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
            assert [line["path"] for line in lines if "path" in line] == ["/items/1", "/items/1", "/nowhere"]
            assert "SECRET" not in log + server.text()
            assert "\\u001b" not in log

    def test_work_that_outlives_its_request_still_has_its_id(self, app: Flask, path: Path) -> None:
        """In a copy of the request's context, as Flask-Executor runs each job; or of the body's."""
        log = logging.getLogger("jobs")
        jobs: list[Callable[[], None]] = []

        @app.get("/job")
        def job() -> str:
            jobs.append(copy_current_request_context(lambda: log.warning("job")))
            return "started"

        @app.get("/failing")
        def failing() -> str:
            jobs.append(copy_current_request_context(fail))
            raise ValueError("first")

        def fail() -> None:
            try:
                raise KeyError("second")
            except KeyError:
                log.exception("failing")

        @app.get("/body")
        def body() -> Iterator[str]:
            jobs.append(partial(copy_context().run, log.warning, "body"))
            yield "row"
            jobs.append(partial(copy_context().run, log.warning, "body"))

        client = app.test_client()
        for name in ("job", "failing", "body"):
            client.get(f"/{name}", headers={"X-Request-ID": name}, buffered=True)
        for work in jobs:
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        records = [line for line in log_records(path) if line["logger"] == "jobs"]

        assert [record["message"] for record in records] == ["job", "failing", "body", "body"]
        assert [record["request_id"] for record in records] == ["job", "failing", "body", "body"]
        assert [record["url_rule"] for record in records] == ["/job", "/failing", "/body", "/body"]
        assert {record["method"] for record in records} == {"GET"}

    def test_what_is_logged_after_the_last_byte_has_the_id(self, app: Flask, path: Path) -> None:
        log = logging.getLogger("jobs")
        app.teardown_request(lambda error: log.warning("teardown", exc_info=error))

        @app.get("/sized")
        def sized() -> Response:
            def rows() -> Iterator[str]:
                yield "row"
                log.warning("through")

            return Response(stream_with_context(rows()), headers={"Content-Length": "3"})

        app.test_client().get("/sized", headers={"X-Request-ID": "sized"}, buffered=True)
        records = [line for line in log_records(path) if line["logger"] == "jobs"]

        assert {record["message"] for record in records} == {"through", "teardown"}
        assert {(record["request_id"], record["path"]) for record in records} == {("sized", "/sized")}

    def test_the_filter_never_raises(self, app: Flask) -> None:
        with app.test_request_context():
            request.environ[EXCHANGE] = object()
            record = logging.makeLogRecord({})

            assert RequestContext().filter(record)
        assert (record.request_id, record.trace_id) == ("", "")  # type: ignore[attr-defined]

    def test_two_applications_with_one_log_write_a_record_once(self, app: Flask, path: Path) -> None:
        second = FlaskExporter(Flask("stock"), registry=CollectorRegistry(), request_log=str(path))
        app.logger.error("once")
        second.core.request_log.close()

        assert [record["message"] for record in log_records(path)] == ["once"]

    def test_two_applications_with_logs_of_their_own_write_it_into_both(self, app: Flask, path: Path) -> None:
        """Whose it is nobody knows outside of a request."""
        other = path.with_name("stock.log")
        second = FlaskExporter(Flask("stock"), registry=CollectorRegistry(), request_log=str(other))
        app.logger.error("twice")
        second.core.request_log.close()

        assert [[record["message"] for record in log_records(one)] for one in (path, other)] == [
            ["twice"]
        ] * 2


class TestLevel:
    @pytest.mark.parametrize(
        ("configured", "messages"), [("", ["info", "warning"]), ("logging.basicConfig()\n", ["warning"])]
    )
    def test_it_holds_for_every_logger_unless_the_host_has_configured_logging(
        self, path: Path, configured: str, messages: list[str]
    ) -> None:
        program = f"""
import logging
from flask import Flask
from exporter import FlaskExporter
{configured}
FlaskExporter(Flask("orders"), request_log={str(path)!r})
for level in ("debug", "info", "warning"):
    getattr(logging.getLogger("stock"), level)(level)
"""
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)

        assert [record["message"] for record in log_records(path)] == messages

    def test_records_are_there_though_the_host_configures_logging_after_the_exporter(
        self, path: Path
    ) -> None:
        program = f"""
import logging.config
from flask import Flask
from exporter import FlaskExporter
app = Flask("orders")
FlaskExporter(app, request_log={str(path)!r})
logging.config.dictConfig({{"version": 1, "root": {{"level": "INFO"}}, "disable_existing_loggers": False}})
app.get("/")(lambda: logging.getLogger("stock").info("here") or "x")
app.test_client().get("/")
"""
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)

        assert [record["message"] for record in log_records(path)] == ["here", "GET / 200"]


def test_a_record_of_the_end_of_the_program_is_there(path: Path) -> None:
    program = f"""
import atexit, logging
atexit.register(logging.error, "end")
from flask import Flask
from exporter import FlaskExporter
app = Flask("orders")
FlaskExporter(app, request_log={str(path)!r})
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=60)

    assert [record["message"] for record in log_records(path)] == ["end"]
