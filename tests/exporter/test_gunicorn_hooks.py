"""gunicorn's hooks, called as a master and its workers call them."""

from __future__ import annotations

import importlib
import os
import select
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from exporter import gunicorn
from exporter.pages import drain
from exporter.pages.listener import Listener
from tests.rig.users import as_child


@pytest.mark.parametrize(("workers", "errors"), [(1, 0), (2, 1), (3, 1)])
def test_several_workers_without_a_directory_are_an_error(workers: int, errors: int) -> None:
    """As after a signal to have one more."""
    said: list[tuple[Any, ...]] = []
    server = SimpleNamespace(log=SimpleNamespace(error=lambda *words: said.append(words)))
    gunicorn.nworkers_changed(server, workers, 1)

    assert (
        said
        == [("%s workers each count for themselves: set %s", workers, "PROMETHEUS_MULTIPROC_DIR")] * errors
    )


def test_an_end_without_a_listener_ends_nobody() -> None:
    def end() -> None:
        killed: list[int] = []
        os.kill = lambda pid, _: killed.append(pid)
        gunicorn.on_exit(SimpleNamespace(WORKERS={}))
        assert killed == []

    as_child(end)


def test_at_its_end_a_worker_answers_who_stands_in_the_door_and_waits_for_nobody() -> None:
    """No more than it answers at once; the others find the door closed."""

    def end() -> None:
        os.environ["EXPORTER_AUTO"] = "off"
        asked: list[float] = []
        waiting = select.select

        def ask(*arguments: Any) -> Any:
            asked.append(arguments[-1])
            return waiting(*arguments)

        select.select = ask
        doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        clients = [socket.create_connection(doors[0].getsockname()) for _ in range(3)]
        accepted: list[socket.socket] = []
        enabled: list[bool] = []
        worker = SimpleNamespace(
            wsgi=None,
            cfg=SimpleNamespace(worker_class_str="gthread", preload_app=False, threads=2),
            set_accept_enabled=enabled.append,
            accept=accepted.append,
            sockets=doors,
            alive=True,
        )
        gunicorn.post_worker_init(worker)
        worker.set_accept_enabled(False)
        assert [door.fileno() >= 0 for door in doors] == [True, True]

        worker.alive = False
        worker.set_accept_enabled(False)
        assert accepted == [doors[0]] * 2
        assert asked == [0] * 4
        assert [door.fileno() >= 0 for door in doors] == [False, False]
        assert enabled == [False, False]
        for client in clients:
            client.close()

    as_child(end)


class Master(SimpleNamespace):
    """A master that keeps what is said, and which hooks of gunicorn's own were called."""

    def __init__(self) -> None:
        self.called: list[tuple[Any, ...]] = []
        super().__init__(
            cfg=SimpleNamespace(env={}, uid=os.geteuid(), gid=os.getegid(), preload_app=False),
            log=SimpleNamespace(info=self.note("info"), error=self.note("error")),
            handle_term=self.note("term"),
            handle_chld=self.note("chld"),
            reap_workers=self.note("reap"),
            kill_workers=self.note("kill"),
            LISTENERS=[],
            reexec_pid=0,
        )

    def note(self, name: str) -> Callable[..., None]:
        return lambda *words: self.called.append((name, *words))


def test_a_new_listener_waits_only_where_one_has_died(tmp_path: Path) -> None:
    def serve() -> None:
        os.environ.update(PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "workers"), EXPORTER_LISTEN="127.0.0.1:0")
        pauses: list[float] = []

        def fork(*arguments: Any) -> int:
            pauses.append(arguments[-1])
            return 1

        pytest.MonkeyPatch().setattr(Listener, "fork", fork)
        master = Master()
        gunicorn.nworkers_changed(master, 2, None)
        gunicorn.when_ready(master)
        assert pauses == [0.0]

        master.handle_chld(signal.SIGCHLD, None)  # the process 1 is no child of this one
        assert pauses == [0.0, 0.5]
        assert master.called == [
            ("error", "The process for EXPORTER_LISTEN has died; starting another"),
            ("chld", signal.SIGCHLD, None),
        ]

    as_child(serve)


@pytest.mark.parametrize(("seconds", "is_prepared"), [("0", True), ("3600", True), ("3600", False)])
def test_an_end_without_a_drain_sets_no_alarm_and_the_second_signal_takes_it_back(
    seconds: str, is_prepared: bool
) -> None:
    """An alarm would end the master in the middle of the graceful end."""

    def end() -> None:
        importlib.reload(drain)  # its flag is shared with the parent
        os.environ.update(EXPORTER_DRAIN=seconds)
        master = Master()
        if is_prepared:
            gunicorn.nworkers_changed(master, 1, None)
        gunicorn.when_ready(master)
        if is_prepared and float(seconds):
            master.handle_term()
            assert 3590 < signal.getitimer(signal.ITIMER_REAL)[0] <= 3600
            assert master.called == [("info", "Not ready any more; stopping in %g s", 3600.0)]
            master.called.clear()
        master.handle_term()
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        assert master.called == [("term",)]

    as_child(end)
