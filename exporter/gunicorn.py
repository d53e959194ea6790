"""gunicorn: start it with `gunicorn -c python:exporter.gunicorn app:app`, or write into your configuration

    from exporter.gunicorn import *

If your configuration has a hook of the same name, call this module's hook from it:

    from exporter import gunicorn as exporter_hooks

    def child_exit(server, worker):
        exporter_hooks.child_exit(server, worker)
        ...

The hooks prepare the worker directory before the first worker starts, and fold the files of a worker at its
end. They log the requests in progress of a dead worker, and keep them for `/monitoring/deaths`. At SIGTERM
readiness turns to 503, and requests are accepted for `EXPORTER_DRAIN` more seconds; a second SIGTERM ends
that wait. With `EXPORTER_LISTEN` a child of the master serves the metrics.
"""

from __future__ import annotations

import atexit
import gc
import os
import select
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
from exporter.worker import deaths

if TYPE_CHECKING:
    from exporter.pages.listener import Listener
    from exporter.store.directory import WorkerDirectory

# No import at the top of this module may load prometheus_client: `raw_env` may still set the directory.

__all__ = [
    "child_exit",
    "nworkers_changed",
    "on_exit",
    "on_starting",
    "post_fork",
    "post_worker_init",
    "when_ready",
]

# The pause before a new listener starts (s), because it could die at once, again and again.
_LISTENER_PAUSE = 0.5
# The time that the master waits for the listener after each of the two signals that end it (s).
_LISTENER_END = 2.0


class _Master:
    """The state of the master process between its hooks."""

    def __init__(self) -> None:
        self.settings: Settings | None = None
        self.directory: WorkerDirectory | None = None
        self.listener: Listener | None = None
        self.listener_pid = 0
        self.is_impatient = False
        """Whether the graceful timeout has run out."""
        self.causes: dict[int, str] = {}
        """The cause of death of each worker, read from the system before gunicorn reads it."""


_master = _Master()


def nworkers_changed(server: Any, new_value: int, old_value: int | None) -> None:
    """Prepare before `preload_app` loads the application; log an error if workers share no directory."""
    if old_value is None:
        # gunicorn sets them only after it has loaded the application.
        os.environ.update(server.cfg.env)
        _prepare(server, new_value)
    elif new_value > 1 and _master.directory is None:
        server.log.error("%s workers each count for themselves: set %s", new_value, DIRECTORY)


def on_starting(server: Any) -> None:
    """Prepare, if a configuration has no `nworkers_changed`."""
    _prepare(server, server.num_workers)


def when_ready(server: Any) -> None:
    """Let SIGTERM drain first, start the listener, and keep the inherited memory of workers shared."""
    if server.cfg.preload_app:
        # A garbage collection writes into every inherited object, so that the system copies its memory.
        gc.freeze()
    server.handle_term = partial(_drain, server, server.handle_term)
    server.reap_workers = partial(_reap_workers, server, server.reap_workers)
    server.kill_workers = partial(_kill_workers, server.kill_workers)
    if _master.listener is not None:
        _start_listener(server)
        old, new = server.handle_chld, partial(_reap, server, server.handle_chld)
        # The signal has two names, and gunicorn looks up the handler by either of them. Before release 24
        # the signal called the handler directly.
        server.handle_chld = server.handle_cld = new
        if signal.getsignal(signal.SIGCHLD) == old:
            signal.signal(signal.SIGCHLD, new)


def post_fork(server: Any, worker: Any) -> None:  # noqa: ARG001  gunicorn's signature
    """Close the listener's socket in the worker."""
    if _master.listener is not None:
        _master.listener.close()


def post_worker_init(worker: Any) -> None:
    """Measure an application without an exporter; count this worker, with the requests that it can serve."""
    from exporter.auto import instrument, is_measured
    from exporter.worker.worker import serve

    worker.wsgi = instrument(worker.wsgi)
    if _master.directory is not None and not is_measured():
        _master.directory.leave_alone()
    greenlets = worker.cfg.worker_class_str in ("gevent", "eventlet")
    if greenlets and worker.cfg.preload_app:
        atexit.register(gc.unfreeze)  # what is frozen would end after gevent, and log errors
    serve(worker.cfg.worker_connections if greenlets else worker.cfg.threads)
    if hasattr(worker, "set_accept_enabled"):
        worker.set_accept_enabled = partial(_accept, worker, worker.set_accept_enabled)


def child_exit(server: Any, worker: Any) -> None:
    """Fold the files of a worker, whatever ended it."""
    if _master.directory is not None:
        try:
            _master.directory.fold(worker.pid)
        except Exception:  # the master must survive; the next scrape tries again
            server.log.exception("The metrics of worker %s are not folded yet", worker.pid)
        cause = _master.causes.pop(worker.pid, None) or _cause_from_stack()
        _bury(server, worker.pid, "timeout" if worker.aborted else cause)


def on_exit(server: Any) -> None:
    """Stop the listener, after scrapes of the drain; bury the workers that gunicorn did not wait for."""
    _hold_back_ends()  # for good, or a worker that ends now would be buried twice
    listener, _master.listener_pid = _master.listener_pid, 0
    if listener:
        _end(listener)
    if _master.directory is not None:
        with suppress(OSError):  # no space: the files stay
            _master.directory.sweep()
        for pid in {*server.WORKERS, *_master.causes}:
            _bury(server, pid, _master.causes.pop(pid, None) or "graceful timeout")


def _kill_workers(kill: Callable[[int], None], signal_number: int) -> None:
    """Let gunicorn signal all workers, with SIGKILL once the graceful timeout has run out."""
    _master.is_impatient |= signal_number == signal.SIGKILL
    kill(signal_number)


def _accept(worker: Any, enable: Callable[[bool], None], enabled: bool) -> None:
    """Close the door at once when a worker with threads ends, behind those who stand in it.

    gunicorn leaves it open for as long as a request takes, and the system then resets whoever has come: a
    proxy may not send a POST to another server after that, as it may after a connection that was refused.
    """
    enable(enabled)
    if enabled or worker.alive:
        return
    for listener in worker.sockets:
        with suppress(OSError):
            # No more than it answers at once: other workers may take the rest of a long queue.
            for _ in range(worker.cfg.threads):
                if select.select([listener], [], [], 0)[0]:
                    worker.accept(listener)
        listener.close()


def _reap_workers(server: Any, reap: Callable[[], None]) -> None:
    """Read the causes of death, and then let gunicorn reap the workers, which deletes the causes."""
    former = _hold_back_ends()
    try:
        for pid in list(server.WORKERS):
            with suppress(OSError, AttributeError):  # macOS has no waitid
                end = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if end is not None:
                    is_exit = end.si_code == os.CLD_EXITED
                    _master.causes[pid] = deaths.cause_of(end.si_status if is_exit else -end.si_status)
        reap()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def _hold_back_ends() -> set[signal.Signals | int]:
    """Let no end of a worker interrupt the burial of another; returns the signals that were blocked before.

    gunicorn before 24 reaps workers in the signal's handler.
    """
    return signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})


def _cause_from_stack() -> str | None:
    """The cause of a death after `_reap_workers` has looked: a variable of gunicorn's own frame has it."""
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_name != "reap_workers":
        frame = frame.f_back  # type: ignore[assignment]
    status = frame.f_locals.get("status") if frame is not None else None
    return deaths.cause_of(os.waitstatus_to_exitcode(status)) if isinstance(status, int) else None


def _bury(server: Any, pid: int, cause: str | None) -> None:
    """Log the requests in progress of a dead worker; the other workers count them."""
    if _master.directory is None:
        return
    if _master.is_impatient and cause == "SIGKILL":
        cause = "graceful timeout"
    try:
        with guard.rights_of(_master.directory.owner):
            death = deaths.bury(_master.directory.path, pid, cause or deaths.UNKNOWN, wait=prefork.BURIAL)
    except Exception:  # the master must survive
        server.log.exception("What worker %s was answering is not read yet", pid)
        return
    if death is not None:
        server.log.error("%s", death)


def _end(pid: int) -> None:
    """End a child, by force if it is frozen."""
    with suppress(ProcessLookupError, ChildProcessError):  # old gunicorns wait for it themselves
        for number in (signal.SIGTERM, signal.SIGKILL):
            os.kill(pid, number)
            deadline = time.monotonic() + _LISTENER_END
            while time.monotonic() < deadline:
                if os.waitpid(pid, os.WNOHANG)[0]:
                    return
                time.sleep(0.01)


def _prepare(server: Any, workers: int) -> None:
    """Prepare the worker directory once; gunicorn prints a RuntimeError and exits."""
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
    _master.settings, _master.directory = settings, directory


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
            raise RuntimeError(
                f"EXPORTER_LISTEN={address}: {error.strerror}; give an address here with a free port"
            ) from error
    return listener


def _start_listener(server: Any, pause: float = 0.0) -> None:
    assert _master.listener is not None  # noqa: S101  the callers have checked
    _master.listener_pid = _master.listener.fork((listener.sock for listener in server.LISTENERS), pause)


def _reap(server: Any, reap_workers: Callable[..., None], *signal_and_frame: Any) -> None:
    """Replace a dead listener, and then reap the workers."""
    try:
        dead_pid = _master.listener_pid and os.waitpid(_master.listener_pid, os.WNOHANG)[0]
    except ChildProcessError:  # gunicorn has reaped it
        dead_pid = _master.listener_pid
    if dead_pid:
        server.log.error("The process for EXPORTER_LISTEN has died; starting another")
        _start_listener(server, _LISTENER_PAUSE)
    reap_workers(*signal_and_frame)


def _drain(server: Any, stop: Callable[[], None]) -> None:
    """Answer 503 to readiness probes for `EXPORTER_DRAIN` seconds, and then stop."""
    seconds = _master.settings.drain if _master.settings is not None else 0.0
    # After SIGUSR2 another master accepts requests on the same sockets, so no wait is needed.
    if seconds == 0.0 or drain.draining() or server.reexec_pid:
        signal.setitimer(signal.ITIMER_REAL, 0)
        stop()
        return
    drain.begin()
    server.log.info("Not ready any more; stopping in %g s", seconds)
    signal.signal(signal.SIGALRM, lambda *_: server.signal(signal.SIGTERM, None))
    signal.setitimer(signal.ITIMER_REAL, seconds)
