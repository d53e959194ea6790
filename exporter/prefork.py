"""The work of a master before it forks, for any server with forked workers.

A master of your own calls `start` before it forks and before it imports the application, and tells the
directory of each worker that has ended:

    from exporter import prefork

    directory = prefork.start(workers=4)
    ...                                   # fork the workers
    pid, _ = os.wait()
    directory.fold(pid)

Without the last two lines the next scrape folds the files of the dead. `exporter.gunicorn` and
`exporter.uwsgi` do all of this for those two servers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from exporter.settings import DIRECTORY, SettingsError, worker_directory

if TYPE_CHECKING:
    from exporter.store.directory import WorkerDirectory


def start(
    workers: int, *, keep: bool = False, owner: tuple[int, int] | None = None, max_series: int = 1000
) -> WorkerDirectory | None:
    """Prepare the worker directory for a master of `workers` processes; None where one worker has none.

    `keep` and `owner` are as in `WorkerDirectory.prepare`, `max_series` as in `WorkerDirectory`. Call it in
    the process that forks.

    Raises:
        RuntimeError: several workers have no directory, another master is using it, or it cannot be made.
    """
    path = worker_directory()
    if not path:
        if workers > 1:
            raise RuntimeError(
                f"{workers} workers each count for themselves: set {DIRECTORY} to a directory for them to "
                "share, on tmpfs if possible, for example /dev/shm/my-service"
            )
        return None
    os.environ[DIRECTORY] = path  # prometheus_client would warn of the old name
    # Imported late, because prometheus_client reads the variable at its first import.
    from exporter.store.directory import WorkerDirectory
    from exporter.store.workerfile import install

    install()
    directory = WorkerDirectory(path, max_series)
    try:
        directory.prepare(keep=keep, owner=owner)
    except SettingsError as error:
        raise RuntimeError(f"{DIRECTORY}={path} cannot be used: {error.remedy}") from None
    except OSError as error:
        raise RuntimeError(f"{DIRECTORY}={path} cannot be used: {error}") from error
    return directory
