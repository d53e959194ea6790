"""EXPORTER_LISTEN: an address that anybody may reach serves metrics, and only those who may read."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from socketserver import TCPServer
from typing import Any

import pytest

from exporter.pages import listener as listener_module
from exporter.pages.listener import Listener
from exporter.settings import Settings
from exporter.store.directory import WorkerDirectory
from tests.rig.deadline import eventually
from tests.rig.workerfiles import NOBODY, dead, total


@contextmanager
def serving(listener: Listener) -> Iterator[int]:
    """Serve in a thread of this process; gives the port."""
    server = listener.bind()
    server.parent = os.getppid()
    thread = threading.Thread(target=server.serve_forever, args=[0.05], name="listener")
    thread.start()
    try:
        yield listener.port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Of a listener behind a declared proxy."""
    dead(tmp_path, "counter", NOBODY, {total(): 1.0})
    settings = Settings.load({}, listen="127.0.0.1:0", trusted_proxies="127.0.0.1")
    with serving(Listener(settings, WorkerDirectory(tmp_path))) as port:
        yield port


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


def test_the_oldest_connections_make_room_and_nobody_else(port: int) -> None:
    """There is room for 32, the one that asks included; those that have ended take none."""

    def is_open(connection: socket.socket) -> bool:
        with suppress(BlockingIOError):
            return connection.recv(1) != b""
        return True

    with ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(50)
        ]
        for _ in range(40):
            assert ask(port, f"GET /metrics HTTP/1.1\r\n{INSIDER}")[0] == 200
        for connection in idle:
            connection.setblocking(False)
        eventually(lambda: not is_open(idle[18]), "the end of the last that has to go")

        assert [is_open(connection) for connection in idle] == [False] * 19 + [True] * 31


def test_without_a_free_descriptor_it_takes_a_break_and_goes_on(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, sleep = TCPServer.get_request, time.sleep
    tries: list[int] = []
    breaks: list[float] = []

    def get_request(server: TCPServer) -> Any:
        tries.append(1)
        if len(tries) == 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return accept(server)

    def note(seconds: float) -> None:
        if threading.current_thread().name == "listener":
            breaks.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(TCPServer, "get_request", get_request)
    monkeypatch.setattr(time, "sleep", note)

    assert ask(port, f"GET /metrics HTTP/1.1\r\n{INSIDER}")[0] == 200
    assert (len(tries), breaks) == (2, [0.1])


@pytest.mark.parametrize(
    ("settings", "pages"),
    [
        ({}, {"/metrics": b"# HELP", "/monitoring/inflight": b"[]\n", "/monitoring/deaths": b"[]\n"}),
        ({"path": "/figures", "monitoring_path": "/m"}, {"/figures": b"# HELP", "/m/deaths": b"[]\n"}),
        ({"path": "off"}, {"/metrics": b"# HELP"}),
    ],
)
def test_its_pages_are_where_those_of_the_service_are(
    settings: dict[str, str], pages: dict[str, bytes], tmp_path: Path
) -> None:
    dead(tmp_path, "counter", NOBODY, {total(): 1.0})
    loaded = Settings.load({}, listen="127.0.0.1:0", **settings)
    with serving(Listener(loaded, WorkerDirectory(tmp_path))) as port:
        for path, beginning in pages.items():
            status, body = ask(port, f"GET {path} HTTP/1.1")
            assert (status, body[: len(beginning)]) == (200, beginning)
        first = next(iter(pages))
        assert ask(port, "GET / HTTP/1.1") == (404, f"Metrics are at {first}\n".encode())
        assert ask(port, f"GET {first}/stats HTTP/1.1")[0] == 404


def test_it_is_a_child_that_leaves_the_masters_sockets_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins after a pause, which it spends itself, and ends at a signal that the master handles."""
    readable, writable = os.pipe2(os.O_NONBLOCK)
    monkeypatch.setattr(time, "sleep", lambda seconds: os.write(writable, str(seconds).encode()))
    listener = Listener(Settings.load({}, listen="127.0.0.1:0"), WorkerDirectory(tmp_path))
    listener.bind()
    former = signal.signal(signal.SIGTERM, lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as masters:
        child = listener.fork([masters], 0.25)
        address = masters.getsockname()
    try:
        assert ask(listener.port, "GET /metrics HTTP/1.1")[0] == 200
        assert os.read(readable, 100) == b"0.25"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=30)
        os.kill(child, signal.SIGTERM)
        monkeypatch.undo()
        assert eventually(lambda: os.waitpid(child, os.WNOHANG)[0], "its end") == child
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    finally:
        signal.signal(signal.SIGTERM, former)
        listener.close()
        os.close(readable)
        os.close(writable)


def test_it_ends_with_the_master(tmp_path: Path) -> None:
    """And does nothing of what the master would do next."""
    readable, writable = os.pipe()
    listener = Listener(Settings.load({}, listen="127.0.0.1:0"), WorkerDirectory(tmp_path))
    listener.bind()
    master = os.fork()
    if not master:
        try:
            listener.fork([], 0.0)
            os.write(writable, b"x")
        finally:
            os._exit(0)
    os.close(writable)
    os.waitpid(master, 0)
    listener.close()
    said = b""
    while not said.endswith(b"end"):
        assert select.select([readable], [], [], 30)[0], "it lives on"
        said += os.read(readable, 100) or b"end"
    os.close(readable)

    assert said == b"xend"


def test_an_address_of_ipv6(tmp_path: Path) -> None:
    """Its socket tells four parts of an address."""
    listener = Listener(Settings.load({}, listen="[::1]:0"), WorkerDirectory(tmp_path))
    listener.close()  # which is nothing before it is bound
    server = listener.bind()

    assert (server.server_name, server.server_port) == ("::1", listener.port)
    listener.close()
    assert server.socket.fileno() == -1


def test_an_address_that_is_taken_is_waited_for_while_the_parent_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The master that a new one replaces still has it."""
    parents = [7]
    asked: list[int] = []
    pauses: list[threading.Thread] = []
    sleep = time.sleep

    def parent() -> int:
        asked.append(parents[-1])
        return parents[-1]

    def note(seconds: float) -> None:
        pauses.append(threading.current_thread())
        sleep(seconds)

    monkeypatch.setattr(os, "getppid", parent)
    monkeypatch.setattr(time, "sleep", note)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings.load({}, listen=f"127.0.0.1:{port}", trusted_proxies="127.0.0.1")
        listener = Listener(settings, WorkerDirectory(tmp_path))
        thread = threading.Thread(target=listener.run, args=[7])
        thread.start()
        eventually(lambda: len(asked) > 1, "a second look")
        assert thread in pauses

    def serves() -> bool:
        with suppress(ConnectionRefusedError):
            return ask(port, f"GET /metrics HTTP/1.1\r\n{INSIDER}")[0] == 200
        return False

    eventually(serves, "an answer")
    before = len(asked)
    eventually(lambda: len(asked) > before + 1 or not thread.is_alive(), "looks for the parent")
    assert thread.is_alive()
    parents.append(1)
    thread.join(30)
    listener.close()
    assert not thread.is_alive()
