"""Other processes count as peers where a request could as well have come to them."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from exporter.worker.peers import Peers
from tests.rig.descriptors import open_below
from tests.rig.network import free_ports
from tests.rig.places import ROOT

MAYBE = {"wsgi.multiprocess": True}
FILE = str(ROOT / "exporter" / "py.typed")
"""The file whose bytes are locked."""


@contextmanager
def child(action: Callable[[], object]) -> Iterator[None]:
    """A forked process that has done this and lives until the end of the context."""
    done, tell = os.pipe()
    wait, end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(end)
        try:
            action()
            os.write(tell, b"x")
            os.read(wait, 1)
        finally:
            os._exit(0)
    os.close(tell)
    os.close(wait)
    try:
        assert os.read(done, 1) == b"x"
        yield
    finally:
        os.close(end)
        os.close(done)
        os.waitpid(pid, 0)


needs_ipv6 = pytest.mark.skipif(
    not Path("/proc/net/if_inet6").exists(), reason="NOT TESTED: this machine has no IPv6"
)


@contextmanager
def listener(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """The port of a socket that this process, and each that is forked from it, listens on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as server:
        yield server.getsockname()[1]


def environ(port: object, **variables: Any) -> dict[str, Any]:
    return {"SERVER_PORT": str(port), **variables}


def serve(port: object, application: str = "shop") -> Peers:
    peers = Peers()
    peers.join(environ(port), application)
    return peers


@pytest.mark.parametrize("host", ["127.0.0.1", pytest.param("::1", marks=needs_ipv6)])
def test_two_processes_on_one_address_are_peers_while_both_live(host: str) -> None:
    with listener(host) as port:
        mine = serve(port)
        assert not mine.present()
        with child(lambda: serve(port)):
            assert mine.present()
        assert not mine.present()


def test_applications_that_are_joined_at_once_are_all_known() -> None:
    names = [f"shop {number}" for number in range(8)]
    with listener() as port:
        mine = Peers()
        joins = [Thread(target=mine.join, args=(environ(port), name)) for name in names]
        for join in joins:
            join.start()
        for join in joins:
            join.join()

        for name in names:
            with child(lambda name=name: serve(port, name)):  # type: ignore[misc]
                assert mine.present(), name


def test_those_of_a_server_that_may_have_several_are_told_by_their_address() -> None:
    """Whoever started them."""
    mine = Peers()

    with listener() as port:
        mine.join(environ(port, **MAYBE), "shop")
        with child(lambda: Peers().join(environ(port, **MAYBE), "shop")):
            assert mine.present()


def test_the_second_process_knows_the_first() -> None:
    with listener() as port, child(lambda: serve(port)):
        assert serve(port).present()


def test_a_forked_child_that_serves_nothing_is_no_peer() -> None:
    """A shell, a job, the pool of a view: it has the socket too, and has no peers itself."""
    with listener() as port:
        mine = serve(port)

        def ask() -> None:
            assert not Peers().present()

        with child(ask):
            assert not mine.present()


def test_a_child_forgets_what_its_parent_serves() -> None:
    """The descriptor that has the parent's locks, too."""
    with listener() as port:
        mine = serve(port)
        assert open_below(ROOT / "exporter") == [FILE]

        def ask() -> None:
            assert not mine.present()
            assert open_below(ROOT / "exporter") == []

        with child(ask):
            assert not mine.present()


def test_a_process_without_standard_input_opens_the_file_once() -> None:
    """A daemon's first descriptor is 0."""

    def ask() -> None:
        os.close(0)
        mine = serve(port)
        assert not mine.present()
        assert open_below(ROOT / "exporter") == [FILE]

    with listener() as port, child(ask):
        pass


def test_whoever_listened_on_the_address_before_is_no_peer() -> None:
    """It has closed the socket and answers its last requests, while the next process begins."""
    (port,) = free_ports(1)

    def end() -> None:
        with listener(port=port):
            serve(port)

    with child(end), listener(port=port):
        mine = serve(port)
        assert not mine.present()
        with child(lambda: serve(port)):
            assert mine.present()


def test_another_application_on_the_address_is_no_peer() -> None:
    with listener() as port:
        mine = serve(port)
        with child(lambda: serve(port, "admin")):
            assert not mine.present()


def test_the_same_address_in_another_network_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers may share the file, and each may listen on the same port."""
    stat = os.stat

    def elsewhere(path: Any, **options: Any) -> os.stat_result:
        return stat("/" if path == "/proc/self/ns/net" else path, **options)

    with listener() as port, child(lambda: serve(port)):
        monkeypatch.setattr(os, "stat", elsewhere)
        assert not serve(port).present()


@pytest.mark.parametrize("family", ["tcp", pytest.param("tcp6", marks=needs_ipv6), "unix"])
def test_the_same_application_on_another_address_is_no_peer(family: str, tmp_path: Path) -> None:
    """Two instances behind a balancer, each asked for itself."""

    def listening() -> socket.socket:
        if family == "tcp6":
            return socket.create_server(("::1", 0), family=socket.AF_INET6)
        return socket.create_server(("127.0.0.1", 0))

    def elsewhere() -> None:
        if family == "unix":
            server = socket.socket(socket.AF_UNIX)
            server.bind(str(tmp_path / "socket"))
            server.listen()
            os.close(mine_listens.fileno())
            serve("unix")
        else:
            server = listening()
            serve(server.getsockname()[1])
        server.detach()

    with listening() as mine_listens:
        mine = serve(mine_listens.getsockname()[1])
        with child(elsewhere):
            assert not mine.present()


@pytest.mark.parametrize("claim", ["", "80", "garbage", "9" * 30])
def test_two_processes_on_one_unix_socket_are_peers_whatever_port_the_client_names(
    claim: str, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen()
        mine = serve(claim)
        with child(lambda: serve("443")):
            assert mine.present()


def test_whoever_binds_the_path_of_a_unix_socket_anew_is_no_peer(tmp_path: Path) -> None:
    """The former one gets no more requests."""

    def bind() -> socket.socket:
        (tmp_path / "socket").unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(tmp_path / "socket"))
        server.listen()
        return server

    with bind() as server:
        mine = serve("")

        def bind_anew() -> None:
            os.close(server.fileno())
            bind().detach()
            serve("")

        with child(bind_anew):
            assert not mine.present()


@pytest.mark.parametrize("held", [False, True])
def test_the_question_about_a_lock_has_another_form_on_macos(
    held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who would block a write lock on this one byte?"""

    def answer(_: int, operation: int, question: bytes) -> bytes:
        start, length, pid, kind, whence = struct.unpack("qqihh", question)
        assert (operation, length, pid, kind, whence) == (fcntl.F_GETLK, 1, 0, fcntl.F_WRLCK, os.SEEK_SET)
        kind = fcntl.F_RDLCK if held else fcntl.F_UNLCK
        return struct.pack("qqihh", start, length, 7, kind, whence)

    with listener() as port, monkeypatch.context() as system:
        system.setattr(sys, "platform", "darwin")
        system.setattr(fcntl, "fcntl", answer)
        assert serve(port).present() is held


def test_two_sockets_that_share_a_port_make_peers() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as server:
        address = server.getsockname()
        mine = serve(address[1])

        def listen_too() -> None:
            os.close(server.fileno())
            socket.create_server(address, reuse_port=True).detach()
            serve(address[1])

        with child(listen_too):
            assert mine.present()


def test_whoever_shared_the_port_and_asked_for_peers_is_none_after_it_has_left() -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as server:
        address = server.getsockname()
        mine = serve(address[1])

        def ask_and_leave() -> None:
            os.close(server.fileno())
            with socket.create_server(address, reuse_port=True):
                assert serve(address[1]).present()

        with child(ask_and_leave):
            assert not mine.present()


def test_children_of_one_parent_that_listen_nowhere_believe_their_server() -> None:
    """NGINX Unit hands requests over in shared memory, and says that there may be several."""

    def ask() -> None:
        mine, several = Peers(), environ("80", **MAYBE)
        mine.join(several, "shop")
        assert mine.present()

    def join() -> None:
        Peers().join(environ("80", **MAYBE), "shop")

    with child(join), child(ask):
        pass


def test_where_no_byte_can_be_locked_each_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server forks on Windows."""
    monkeypatch.setattr("exporter.worker.peers.fcntl", None)
    mine = Peers()
    mine.join(environ("80", **MAYBE), "shop")

    assert not mine.present()


@pytest.mark.parametrize("variables", [{}, MAYBE])
def test_one_process_that_listens_nowhere_is_alone(variables: dict[str, Any]) -> None:
    """Whatever its server says: ASGI bridges say that there may be several, always."""
    mine = Peers()
    mine.join(environ("80", **variables), "shop")

    assert not mine.present()


@pytest.mark.parametrize(
    "variables", [{"wsgi.run_once": True}, {"werkzeug.socket": None, "wsgi.multiprocess": True}]
)
def test_processes_of_one_request_each_are_many(variables: dict[str, Any]) -> None:
    """CGI, and `app.run(threaded=False, processes=4)`."""
    mine = Peers()
    mine.join(environ("80", **variables), "shop")

    assert mine.present()
