"""The work of a master before it forks, for any server with forked workers.

A master of your own calls `start` before it forks and before it imports the application, and tells
`ended` of each worker that has ended:

    from exporter import prefork

    directory = prefork.start(workers=4)
    ...                                   # fork the workers
    pid, status = os.wait()
    prefork.ended(directory, pid, os.waitstatus_to_exitcode(status))

Without the last two lines the next scrape folds the files of the dead, and nobody knows of what they died.
`exporter.gunicorn` and `exporter.uwsgi` do all of this for those two servers.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from exporter import guard, posix
from exporter.settings import DIRECTORY, Settings, SettingsError, worker_directory
from exporter.worker import deaths

if TYPE_CHECKING:
    from exporter.store.directory import WorkerDirectory

BURIAL = 2.0
"""How long a master waits for the system to give up the locks of a dead worker (s)."""


def start(
    workers: int,
    *,
    keep: bool = False,
    owner: tuple[int, int] | None = None,
    max_series: int | None = None,
) -> WorkerDirectory | None:
    """Prepare the worker directory for a master of `workers` processes; None where one worker has none.

    `keep` and `owner` are as in `WorkerDirectory.prepare`, `max_series` as in `WorkerDirectory` and by
    default EXPORTER_MAX_SERIES: that of the workers. Call it in the process that forks.

    Raises:
        RuntimeError: several workers have no directory, another master is using it, it cannot be made, or a
            setting is wrong.
    """
    path = worker_directory()
    if not path:
        if workers > 1:
            raise RuntimeError(
                f"{workers} workers each count for themselves: set {DIRECTORY} to a directory for them to "
                "share, on tmpfs if possible, for example /dev/shm/my-service"
            )
        return None
    posix.require(DIRECTORY)
    # Imported late, because prometheus_client reads the variable at its first import.
    from exporter.store.directory import WorkerDirectory
    from exporter.store.workerfile import install

    try:
        directory = WorkerDirectory(path, max_series or Settings.load().max_series)
    except SettingsError as error:
        raise RuntimeError(str(error)) from None
    try:
        directory.prepare(keep=keep, owner=owner)
        install()  # after the directory has its owner, who must be able to read the files
    except SettingsError as error:
        raise RuntimeError(f"{DIRECTORY}={path} cannot be used: {error.remedy}") from None
    except OSError as error:
        raise RuntimeError(f"{DIRECTORY}={path} cannot be used: {error}") from error
    return directory


def ended(directory: WorkerDirectory | None, pid: int, exitcode: int) -> None:
    """Fold the files of a worker that has ended; log what it was answering if it died.

    `exitcode` is as in `multiprocessing.Process`, negative for a signal: `os.waitstatus_to_exitcode` makes it
    of what `os.wait` returns. Raises OSError (disk full); the next scrape tries again, without the cause.
    """
    if directory is None:
        return
    directory.fold(pid)
    with guard.rights_of(directory.owner):
        death = deaths.bury(directory.path, pid, deaths.cause_of(exitcode), wait=BURIAL)
    if death is not None:
        logging.getLogger("exporter").error("%s", death)
