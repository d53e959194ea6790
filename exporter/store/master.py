"""The master: the server's parent process, which holds the worker directory while it lives."""

from __future__ import annotations

import os

from exporter import forks, guard
from exporter.merge.format import promises_lock
from exporter.posix import fcntl
from exporter.store import workerfile
from exporter.store.files import ARCHIVE, CORRUPT, FOREIGN, MASTER, TEMPORARY, Files


class DirectoryInUseError(RuntimeError):
    """Another running server has the worker directory."""


# The descriptors with which this process holds directories, by their path.
_holds: dict[str, int] = {}


def hold(files: Files, *, keep: bool) -> None:
    """Hold the directory for this process; the caller has locked it alone.

    The files of an earlier run are removed. `keep` leaves them (for a master that takes over from one that is
    still running).

    Raises:
        DirectoryInUseError: another master holds the directory.
        OSError: it cannot be written.
    """
    master = files.descriptor(MASTER, os.O_RDWR | os.O_CREAT)
    if not guard.lock(master, fcntl.LOCK_SH if keep else fcntl.LOCK_EX):
        holder = os.pread(master, 20, 0).decode("ascii", "replace").strip()
        os.close(master)
        raise DirectoryInUseError(
            f"the master process {holder} is using PROMETHEUS_MULTIPROC_DIR={files.path}: "
            "stop it, or give this one another directory"
        )
    try:
        if not keep:
            _remove_earlier_run(files)
        os.ftruncate(master, 0)
        os.pwrite(master, b"%d\n" % os.getpid(), 0)
        guard.lock(master, fcntl.LOCK_SH)
    except BaseException:
        os.close(master)
        raise
    _holds[files.path] = master
    forks.keep(master)


def is_held(files: Files) -> bool:
    """Whether a master holds the directory."""
    try:
        with forks.hold(files.descriptor(MASTER)) as descriptor:
            return not guard.lock(descriptor, fcntl.LOCK_EX)
    except FileNotFoundError:
        return False


def hold_on(files: Files) -> None:
    """Hold the directory again if it was removed and created again; the caller has locked it alone."""
    descriptor = _holds.get(files.path)
    if descriptor is not None and os.fstat(descriptor).st_nlink == 0:
        release(files)
        hold(files, keep=True)


def release(files: Files) -> None:
    """Let another master have the directory; ending the process does the same."""
    descriptor = _holds.pop(files.path, None)
    if descriptor is not None:
        forks.give_up(descriptor)


def _remove_earlier_run(files: Files) -> None:
    """Remove the files whose writer is dead, and the archive; the groups of errors outlive a deploy."""
    for file in files.worker_files():
        with forks.hold(files.descriptor(file.name)) as descriptor:
            # A file of this process (an application loaded before the fork) is not of that run.
            is_own = file.pid == os.getpid() and not promises_lock(os.pread(descriptor, 8, 0))
            if file.dead or not (is_own or workerfile.is_locked(descriptor)):
                files.unlink([file.name])
    for name in files.names():
        if name.endswith(".ring") and not _has_holder(files, name):  # of the flight recorder or the slots
            files.unlink([name])
    files.unlink([ARCHIVE, FOREIGN, TEMPORARY, *(name for name in files.names() if name.startswith(CORRUPT))])


def _has_holder(files: Files, name: str) -> bool:
    """Whether a process has the lock of this ring; only a regular file has a holder."""
    try:
        with forks.hold(files.descriptor(name)) as descriptor:
            return workerfile.is_locked(descriptor)
    except OSError:
        return False
