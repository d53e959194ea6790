"""EXPORTER_LISTEN: an address that anybody may reach serves metrics, and only those who may read."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from exporter.pages import listener as listener_module
from exporter.pages.listener import Listener
from exporter.settings import Settings
from exporter.store.directory import WorkerDirectory
from tests.rig.deadline import eventually
from tests.rig.workerfiles import NOBODY, dead, total


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Of a listener behind a declared proxy."""
    dead(tmp_path, "counter", NOBODY, {total(): 1.0})
    settings = Settings.load({}, listen="127.0.0.1:0", trusted_proxies="127.0.0.1")
    server = Listener(settings, WorkerDirectory(tmp_path)).bind()
    server.parent = os.getppid()
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    thread.join()
    server.server_close()


def ask(port: int, request: str) -> tuple[int, bytes]:
    """The status and the body of the answer to a request, which is ended here."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(request.encode() + b"\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body


INSIDER = "X-Forwarded-For: 10.0.0.9"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([INSIDER], 200),
        (["X-Forwarded-For: 8.8.8.8"], 403),
        (["X-Forwarded-For: 8.8.8.8", "X_Forwarded_For: 10.0.0.9"], 403),
        (["X-Forwarded_For: 10.0.0.9"], 403),
        (["X_Real_IP: 10.0.0.9", "X-Real-IP: 8.8.8.8"], 403),
        ([], 403),
    ],
)
def test_a_header_with_an_underscore_is_not_one_with_a_hyphen(
    headers: list[str], status: int, port: int
) -> None:
    assert ask(port, "\r\n".join(["GET /metrics HTTP/1.1", *headers]))[0] == status


@pytest.mark.parametrize("method", ["POST", "DELETE", "FOO", "OPTIONS"])
def test_only_reading_is_understood(method: str, port: int) -> None:
    assert ask(port, f"{method} /metrics HTTP/1.1\r\n{INSIDER}") == (405, b"This page is read with GET\n")


def test_head_has_no_body(port: int) -> None:
    assert ask(port, f"HEAD /metrics HTTP/1.1\r\n{INSIDER}") == (200, b"")
    assert ask(port, f"GET /metrics HTTP/1.1\r\n{INSIDER}")[1].startswith(b"# HELP")


def test_a_client_that_dawdles_is_cut_off(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it sends a byte."""
    monkeypatch.setattr(listener_module, "_CONNECTION_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        start = time.monotonic()
        with suppress(OSError):
            while time.monotonic() < start + 30:
                connection.sendall(b"G")
                connection.settimeout(0.1)
                with suppress(TimeoutError):
                    if not connection.recv(1):
                        break

        assert time.monotonic() < start + 30


def test_many_idle_connections_keep_nobody_out(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """150 of them have no more than 32 threads, however long they last, and who asks gets an answer."""
    monkeypatch.setattr(listener_module, "_CONNECTION_SECONDS", 60)
    before = threading.active_count()
    with ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        assert ask(port, f"GET /metrics HTTP/1.1\r\n{INSIDER}")[0] == 200

        # Each read has a time of its own, of 10 s.
        eventually(lambda: threading.active_count() <= before + 32, "few threads", 5)


def test_an_address_of_ipv6(tmp_path: Path) -> None:
    """Its socket tells four parts of an address."""
    listener = Listener(Settings.load({}, listen="[::1]:0"), WorkerDirectory(tmp_path))
    server = listener.bind()

    assert (server.server_name, server.server_port) == ("::1", listener.port)
    listener.close()


def test_an_address_that_is_taken_is_waited_for_while_the_parent_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master that a new one replaces still has it."""
    parents = [7]
    asked = threading.Event()

    def parent() -> int:
        asked.set()
        return parents[-1]

    monkeypatch.setattr(os, "getppid", parent)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings.load({}, listen=f"127.0.0.1:{port}", trusted_proxies="127.0.0.1")
        listener = Listener(settings, WorkerDirectory(tmp_path))
        thread = threading.Thread(target=listener.run, args=[7])
        thread.start()
        assert asked.wait(30)

    def serves() -> bool:
        with suppress(ConnectionRefusedError):
            return ask(port, f"GET /metrics HTTP/1.1\r\n{INSIDER}")[0] == 200
        return False

    eventually(serves, "an answer")
    parents.append(1)
    thread.join(30)
    listener.close()
    assert not thread.is_alive()
