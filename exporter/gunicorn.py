"""gunicorn: `gunicorn -c python:exporter.gunicorn app:app`, or in a configuration of one's own

    from exporter.gunicorn import *

A configuration that has a hook of its own calls ours from it:

    from exporter import gunicorn as exporter_hooks

    def child_exit(server, worker):
        exporter_hooks.child_exit(server, worker)
        ...

The worker directory is prepared before the first worker starts, and a worker's files are folded when it ends.
What a worker was answering when it died is logged, and kept for `/monitoring/deaths`.
At SIGTERM readiness turns to 503 while requests are accepted for `EXPORTER_DRAIN` more seconds; a second
SIGTERM ends the wait. With `EXPORTER_LISTEN` a child of the master serves the metrics.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from exporter import guard, prefork
from exporter.pages import drain
from exporter.settings import DIRECTORY, Settings, SettingsError

if TYPE_CHECKING:
    from exporter.pages.listener import Listener
    from exporter.store.directory import WorkerDirectory

# Nothing at the top of this module may import prometheus_client: `raw_env` may yet name the directory.

__all__ = [
    "child_exit",
    "nworkers_changed",
    "on_exit",
    "on_starting",
    "post_fork",
    "post_worker_init",
    "when_ready",
]

# Between the death of a listener and its successor's first answer (s): it could die at once, again and again.
_LISTENER_PAUSE = 0.5
# How long the master waits for the listener after each of the two signals that end it (s).
_LISTENER_END = 2.0
# How long it waits for the system to give up the locks of a dead worker (s).
_BURIAL = 2.0


class _Master:
    """What the master process keeps between its hooks."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.directory: WorkerDirectory | None = None
        self.listener: Listener | None = None
        self.listener_pid = 0
        self.owner: tuple[int, int] | None = None
        self.causes: dict[int, str] = {}
        """Of what each worker died, as the system has told it before gunicorn was told."""


_master = _Master()


def nworkers_changed(server: Any, new_value: int, old_value: int | None) -> None:
    """Prepare before `preload_app` loads the application; object to workers that share nothing."""
    if old_value is None:
        # gunicorn does so later, and loads the application in between.
        os.environ.update(server.cfg.env)
        _prepare(server, new_value)
    elif new_value > 1 and _master.directory is None:
        server.log.error("%s workers each count for themselves: set %s", new_value, DIRECTORY)


def on_starting(server: Any) -> None:
    """Prepare, where a configuration does not pass `nworkers_changed` on."""
    _prepare(server, server.num_workers)


def when_ready(server: Any) -> None:
    """Have SIGTERM drain first, start the listener, and keep the memory that workers inherit shared."""
    if server.cfg.preload_app:
        # Collections in a worker would write into every inherited object, and so copy the master's pages.
        gc.freeze()
    server.handle_term = partial(_drain, server, server.handle_term)
    server.reap_workers = partial(_reap_workers, server, server.reap_workers)
    if _master.listener is not None:
        _start_listener(server)
        old, new = server.handle_chld, partial(_reap, server, server.handle_chld)
        # The signal has two names, and gunicorn looks for the handler of either when it comes to it. Before
        # release 24 the signal called the handler itself.
        server.handle_chld = server.handle_cld = new
        if signal.getsignal(signal.SIGCHLD) == old:
            signal.signal(signal.SIGCHLD, new)


def post_fork(server: Any, worker: Any) -> None:  # noqa: ARG001  gunicorn's signature
    """Leave the listener's address to the listener."""
    if _master.listener is not None:
        _master.listener.close()


def post_worker_init(worker: Any) -> None:
    """Tell that this worker serves, and how many requests at once."""
    from exporter.worker.worker import serve

    greenlets = worker.cfg.worker_class_str in ("gevent", "eventlet")
    serve(worker.cfg.worker_connections if greenlets else worker.cfg.threads)


def child_exit(server: Any, worker: Any) -> None:
    """Fold the files of a worker that has ended, by whatever signal."""
    if _master.directory is not None:
        try:
            _master.directory.fold(worker.pid)
        except Exception:  # the master must live on; the next scrape tries again
            server.log.exception("The metrics of worker %s are not folded yet", worker.pid)
        cause = _master.causes.pop(worker.pid, None) or _cause_above()
        _bury(server, worker.pid, "timeout" if worker.aborted else cause)


def on_exit(server: Any) -> None:
    """Stop the listener, whose last scrapes saw the drain; tell of workers that gunicorn did not wait for."""
    listener, _master.listener_pid = _master.listener_pid, 0
    if listener:
        _end(listener)
    if _master.directory is not None:
        with suppress(OSError):  # there, one worker's end can interrupt the folding of another
            _master.directory.sweep()
        for pid in {*server.WORKERS, *_master.causes}:
            _bury(server, pid, _master.causes.pop(pid, None) or "graceful timeout")


def _reap_workers(server: Any, reap: Callable[[], None]) -> None:
    """Look of what workers have died: gunicorn's own reaping leaves no trace of it."""
    for pid in list(server.WORKERS):
        with suppress(OSError, AttributeError):  # macOS has no waitid
            end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if end is not None:
                exited = end.si_code == os.CLD_EXITED
                _master.causes[pid] = f"exit {end.si_status}" if exited else _signal(end.si_status)
    reap()


def _cause_above() -> str | None:
    """The cause where a worker died between our look and gunicorn's reaping: that has it in a variable."""
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_name != "reap_workers":
        frame = frame.f_back  # type: ignore[assignment]
    status = frame.f_locals.get("status") if frame is not None else None
    if not isinstance(status, int):
        return None
    code = os.waitstatus_to_exitcode(status)
    return f"exit {code}" if code >= 0 else _signal(-code)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _bury(server: Any, pid: int, cause: str | None) -> None:
    """Tell what a worker was answering when it died; the workers count it."""
    if _master.directory is None:
        return
    from exporter.worker import deaths

    try:
        with guard.rights_of(_master.owner):
            death = deaths.bury(_master.directory.path, pid, cause or deaths.UNKNOWN, wait=_BURIAL)
    except Exception:  # the master must live on
        server.log.exception("What worker %s was answering is not read yet", pid)
        return
    if death is not None:
        server.log.error("%s", death)


def _end(pid: int) -> None:
    """End a child, by force if it does not obey: it may be frozen."""
    with suppress(ProcessLookupError, ChildProcessError):  # old gunicorns wait for it themselves
        for number in (signal.SIGTERM, signal.SIGKILL):
            os.kill(pid, number)
            deadline = time.monotonic() + _LISTENER_END
            while time.monotonic() < deadline:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    return
                time.sleep(0.01)


def _prepare(server: Any, workers: int) -> None:
    """Prepare the worker directory, once; gunicorn prints a RuntimeError and ends."""
    if _master.settings is not None:
        return
    try:
        settings = Settings.load()
    except SettingsError as error:
        raise RuntimeError(str(error)) from None
    upgrade = "GUNICORN_PID" in os.environ
    owner = server.cfg.uid, server.cfg.gid
    directory = prefork.start(workers, keep=upgrade, owner=owner, max_series=settings.max_series)
    if settings.listen:
        _master.listener = _listener(settings, directory, owner, bind=not upgrade)
    _master.settings, _master.directory, _master.owner = settings, directory, owner


def _listener(
    settings: Settings, directory: WorkerDirectory | None, owner: tuple[int, int], *, bind: bool
) -> Listener:
    if directory is None:
        raise RuntimeError(
            f"EXPORTER_LISTEN is served by a process that reads the worker files: set {DIRECTORY} too"
        )
    from exporter.pages.listener import Listener

    listener = Listener(settings, directory, owner)
    if bind:
        try:
            listener.bind()
        except OSError as error:
            address = ":".join(map(str, settings.listen or ()))
            raise RuntimeError(f"EXPORTER_LISTEN={address}: {error.strerror}") from error
    return listener


def _start_listener(server: Any, pause: float = 0.0) -> None:
    assert _master.listener is not None  # noqa: S101  the callers have checked
    _master.listener_pid = _master.listener.fork((listener.sock for listener in server.LISTENERS), pause)


def _reap(server: Any, reap_workers: Callable[..., None], *signal_and_frame: Any) -> None:
    """Start another listener in the place of one that has died, then look after the workers."""
    try:
        ended = _master.listener_pid and os.waitpid(_master.listener_pid, os.WNOHANG)[0]
    except ChildProcessError:  # gunicorn has waited for it
        ended = _master.listener_pid
    if ended:
        server.log.error("The process for EXPORTER_LISTEN has died; starting another")
        _start_listener(server, _LISTENER_PAUSE)
    reap_workers(*signal_and_frame)


def _drain(server: Any, stop: Callable[[], None]) -> None:
    """Let balancers and probes see that the end is near, and only then close the door."""
    seconds = _master.settings.drain if _master.settings is not None else 0.0
    # After SIGUSR2 another master accepts on the same sockets: there is nothing to wait for.
    if seconds == 0.0 or drain.draining() or server.reexec_pid:
        signal.setitimer(signal.ITIMER_REAL, 0)
        stop()
        return
    drain.begin()
    server.log.info("Not ready any more; stopping in %g s", seconds)
    signal.signal(signal.SIGALRM, lambda *_: server.signal(signal.SIGTERM, None))
    signal.setitimer(signal.ITIMER_REAL, seconds)
