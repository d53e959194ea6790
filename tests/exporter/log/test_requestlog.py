"""The request log: every line whole, true and once, whatever a client sends and however many write."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from exporter.log.requestlog import RequestLog
from exporter.observation import Delay
from tests.rig.exchanges import exchange
from tests.rig.requestlogs import log_records, written_lines
from tests.rig.wsgi import application, call

_processes = multiprocessing.get_context("fork")


class TestLine:
    def test_it_has_these_fields(self, log: Callable[..., RequestLog], path: Path) -> None:
        log().write(exchange(trace_id="ab" * 16, request_size=17))

        expected = {
            "timestamp": "2026-01-01T00:00:00.262500Z",
            "level": "INFO",
            "logger": "exporter.request",
            "instance": socket.gethostname(),
            "message": "GET /orders/<int:id> 200",
            "request_id": "5f2b7c1e9a3d4f60000003e8",
            "trace_id": "ab" * 16,
            "method": "GET",
            "path": "/orders/7",
            "url_rule": "/orders/<int:id>",
            "endpoint": "orders.show",
            "status": 200,
            "duration_seconds": 0.0125,
            "request_bytes": 17,
            "response_bytes": 512,
            "remote_addr": "192.0.2.7",
            "error_type": "",
            "error_group": "",
        }
        assert [expected] == log_records(path)
        assert list(expected) == list(log_records(path)[0])

    @pytest.mark.parametrize("recent", [0, 100])
    def test_the_next_one_of_its_kind_has_them_too(self, path: Path, recent: int) -> None:
        """What the recorder knows of a kind is not looked for again."""
        app, exporter = application(request_log=str(path), recent=recent)
        for _ in range(3):
            call(app, "/orders/7")
        exporter.core.request_log.close()

        own = {"timestamp", "request_id", "duration_seconds"}
        kinds = [{name: line[name] for name in line.keys() - own} for line in log_records(path)]
        assert kinds == kinds[:1] * 3
        assert (kinds[0]["method"], kinds[0]["status"], kinds[0]["endpoint"]) == ("GET", 200, "show")

    def test_a_slow_one_has_these_too(self, log: Callable[..., RequestLog], path: Path) -> None:
        shares = {"orders:load": 0.75, 'orders:f"': 0.25}
        log().write(exchange(delay=Delay("orders:load", 7, "sqlalchemy:execute", "cursor.execute", shares)))
        log().write(exchange(delay=Delay("-", 0, "interpreter blocked", "", {"-": 1.0})))
        log().write(exchange())

        fields = [dict(list(line.items())[18:]) for line in log_records(path)]
        assert fields == [
            {
                "where": "orders:load",
                "line": 7,
                "library": "sqlalchemy:execute",
                "call": "cursor.execute",
                "shares": shares,
            },
            {"where": "-", "line": 0, "library": "interpreter blocked", "call": "", "shares": {"-": 1}},
            {},
        ]

    def test_it_names_the_instance_as_told(self, log: Callable[..., RequestLog], path: Path) -> None:
        log(instance='10.0.0.7:8000"').write(exchange())

        assert [line["instance"] for line in log_records(path)] == ['10.0.0.7:8000"']

    @pytest.mark.parametrize(
        ("status", "failed", "level"),
        [
            (200, False, "INFO"),
            (302, False, "INFO"),
            (399, False, "INFO"),
            (400, False, "WARNING"),
            (404, False, "WARNING"),
            (500, True, "ERROR"),
            (200, True, "ERROR"),
        ],
    )
    def test_its_level_follows_from_the_answer(
        self, log: Callable[..., RequestLog], path: Path, status: int, failed: bool, level: str
    ) -> None:
        log().write(exchange(status=status, failed=failed))

        assert [level] == [line["level"] for line in log_records(path)]

    @pytest.mark.parametrize(
        ("end", "stamp"),
        [
            (0.0, "1970-01-01T00:00:00.000000Z"),
            (1_767_225_600 + 2**-10, "2026-01-01T00:00:00.000976Z"),
            (1_767_225_600.0625, "2026-01-01T00:00:00.062500Z"),
        ],
    )
    def test_its_time_has_six_digits(
        self, log: Callable[..., RequestLog], path: Path, end: float, stamp: str
    ) -> None:
        log().write(exchange(start_time=end, duration=0.0))

        assert [stamp] == [line["timestamp"] for line in log_records(path)]

    def test_the_setting_leaves_lower_levels_out(self, log: Callable[..., RequestLog], path: Path) -> None:
        written = log(log_level="WARNING")
        for status in (200, 404, 500):
            written.write(exchange(status=status, failed=status == 500))

        assert [line["status"] for line in log_records(path)] == [404, 500]

    @pytest.mark.parametrize(
        ("sent", "shown"),
        [
            ('/a\r\n{"level":"ERROR"}', '/a\r\n{"level":"ERROR"}'),
            ("/\x1b[31m\x1b]0;title\x07\x9b\x7f", "/\x1b[31m\x1b]0;title\x07\ufffd\x7f"),
            ("/\udcff\ud800", "/??"),
            ("/caf\u00c3\u00a9\u00e2\u0080\u00a8", "/café\u2028"),
            ("/" + "x" * 511, "/" + "x" * 511),
            ("/" + "x" * 512, "/" + "x" * 511 + "…"),
            ("/" + "x" * 1_000_000, "/" + "x" * 511 + "…"),
            ('"\\', '"\\'),
        ],
    )
    def test_no_path_can_forge_a_line(
        self, log: Callable[..., RequestLog], path: Path, sent: str, shown: str
    ) -> None:
        log(log_query=True).write(
            exchange(path=sent, environ={"QUERY_STRING": sent, "REMOTE_ADDR": "127.0.0.1"})
        )
        (line,) = log_records(path)

        assert line["path"] == shown
        assert len(path.read_bytes()) < 4096

    def test_what_a_client_can_choose_fits_into_one_atomic_write_to_a_pipe(
        self, log: Callable[..., RequestLog], path: Path
    ) -> None:
        worst = "\U0001f600".encode().decode("latin-1") * 10_000
        log().write(exchange(path=worst, request_id="i" * 64, trace_id="t" * 32))

        assert len(path.read_bytes()) <= 4096

    def test_the_address_is_the_client_s_behind_a_declared_proxy(
        self, log: Callable[..., RequestLog], path: Path
    ) -> None:
        environ = {"REMOTE_ADDR": "10.0.0.1", "HTTP_X_FORWARDED_FOR": "198.51.100.1, 203.0.113.9"}
        log(trusted_proxies="10.0.0.1").write(exchange(environ=environ))
        log().write(exchange(environ=environ))
        log(trusted_proxies="10.0.0.9").write(exchange(environ=environ))

        assert [line["remote_addr"] for line in log_records(path)] == ["203.0.113.9", "10.0.0.1", "10.0.0.1"]


class TestQuery:
    def test_it_is_left_out_by_default(self, log: Callable[..., RequestLog], path: Path) -> None:
        log().write(exchange(environ={"QUERY_STRING": "password=hunter2"}))

        assert "query" not in log_records(path)[0]
        assert b"hunter2" not in path.read_bytes()

    @pytest.mark.parametrize(
        ("query", "shown"),
        [
            ("", ""),
            ("page=2&size=10", "page=2&size=10"),
            ("page=2&password=hunter2&x=", "page=2&password=***&x="),
            ("PassWord=hunter2", "PassWord=***"),
            ("pass%77ord=hunter2", "pass%77ord=***"),
            ("user[password]=hunter2&user%5Btoken%5D=t", "user[password]=***&user%5Btoken%5D=***"),
            ("token[]=a&token[]=b", "token[]=***&token[]=***"),
            ("a.secret=b=c", "a.secret=***"),
            ("token", "token"),
            *(
                (f"{name}=hunter2", f"{name}=***")
                for name in (
                    "client_secret",
                    "refresh_token",
                    "id_token",
                    "new_password",
                    "auth",
                    "apikey",
                    "api-key",
                    "access-token",
                    "X-Api-Key",
                    "sig",
                    "X-Amz-Signature",
                    "pwd",
                    "session",
                    "PHPSESSID",
                    "jwt",
                    "code",
                    "authorization",
                    "private_key",
                    "user-password",
                    "credentials",
                    "otp",
                )
            ),
            ("password:hunter2", "password:***"),
            ("a=1;password=hunter2;b=2", "a=1;password=***;b=2"),
            ("next=%2Flogin%3Fpassword%3Dhunter2", "next=***"),
            ("next=%252Flogin%253Ftoken%253Dhunter2", "next=***"),
            ("q=%7B%22secret%22%3A%22hunter2%22%7D", "q=***"),
            ("author=me&zipcode=12345&t=10:20", "author=me&zipcode=12345&t=10:20"),
            ("keyboard=1&monkey=2", "keyboard=1&monkey=2"),
            ("a=" + "x" * 1000 + "&token=t", "a=" + "x" * 510),
        ],
    )
    def test_named_parameters_are_masked(
        self, log: Callable[..., RequestLog], path: Path, query: str, shown: str
    ) -> None:
        log(log_query=True).write(exchange(environ={"QUERY_STRING": query}))

        assert shown == log_records(path)[0]["query"]

    def test_which_ones_is_a_setting(self, log: Callable[..., RequestLog], path: Path) -> None:
        log(log_query=True, log_mask="iban").write(exchange(environ={"QUERY_STRING": "iban=1&token=2"}))

        assert log_records(path)[0]["query"] == "iban=***&token=2"


class TestFailures:
    def test_a_log_that_cannot_be_written_leaves_the_answer_alone_and_is_counted(
        self, app: Flask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        client = app.test_client()
        whole = client.get("/orders/7")
        monkeypatch.setattr(os, "write", full)
        monkeypatch.setattr(logging, "raiseExceptions", False)
        answer = client.get("/orders/7")
        monkeypatch.undo()

        assert (answer.status, answer.data) == (whole.status, whole.data)
        # The record of the application, the line of the request, and the record that tells of the failure.
        assert 'flask_exporter_failures_total{stage="request_log"} 3.0' in client.get("/metrics").text


def _serve(log_file: Path, worker: int, requests: int) -> None:
    app, _ = application(request_log=str(log_file), log_max_bytes=10_000_000, log_backups=100)
    for number in range(requests):
        call(app, "/orders/7", variables={"HTTP_X_REQUEST_ID": f"{worker}.{number}"})


def _every_request_has_its_line(log_file: Path, requests: int) -> None:
    workers = [
        _processes.Process(target=_serve, args=(log_file, worker, requests // 4)) for worker in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    ids = [json.loads(line)["request_id"] for line in written_lines(log_file)]
    assert len(ids) == requests
    assert set(ids) == {f"{worker}.{number}" for worker in range(4) for number in range(requests // 4)}


class TestManyWorkers:
    def test_every_request_has_its_line(self, path: Path) -> None:
        _every_request_has_its_line(path, 8_000)

    @pytest.mark.soak
    def test_every_one_of_300_000_requests_has_its_line(self, path: Path) -> None:
        _every_request_has_its_line(path, 300_000)
