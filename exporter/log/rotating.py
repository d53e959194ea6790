"""A log file that rotates by size, and that any number of processes write at once."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from exporter import guard
from exporter.posix import fcntl

# A request waits so long (s). A rotation takes a tenth of it, even if four writers rotate all the time.
_PATIENCE = 0.025
_NO_FILE = "it is a link, a pipe or a device, and no regular file"


class RotatingFile:
    """Appends to `path`, which becomes `path.1`, `path.2`, … `path.<backups>` whenever it has `limit` bytes.

    Any number of processes may write to one path. A line is one appending write, which the kernel keeps
    apart from others. The writer that takes the lock first rotates; the others find another file at the path
    and follow. A file grows beyond its limit by at most one line of each thread, and by what is written while
    the one that rotates waits for a processor.
    """

    def __init__(self, path: str, limit: int, backups: int) -> None:
        self._path = os.path.abspath(path)
        directory, name = os.path.split(self._path)
        self._lock_path = os.path.join(directory, f".{name}.lock")
        self._limit = limit
        self._backups = backups
        self._is_mid_line = False
        self._last_look = time.monotonic()
        self._patience = guard.Patience()
        self._file = self._open()
        # Tests make many applications, and nobody closes their logs.
        self._end = weakref.finalize(self, os.close, self._file)
        self._end.atexit = False

    def write(self, line: bytes, severity: int) -> None:  # noqa: ARG002  a file has none
        """Write one line: 1.8 µs, of which the system calls are 1.4."""
        now = time.monotonic()
        if now - self._last_look >= 1.0:  # somebody else may have moved the file
            self._last_look = now
            if not self._is_current():
                self._turn()
        if self._is_mid_line:
            line = b"\n" + line
        size = os.write(self._file, line)
        self._is_mid_line = size < len(line)
        if self._is_mid_line:
            raise OSError(errno.ENOSPC, "the line was cut short", self._path)
        status = os.fstat(self._file)
        if status.st_size >= self._limit or not status.st_nlink:
            self._turn(line)

    def close(self) -> None:
        self._end()

    def _turn(self, line: bytes = b"") -> None:
        """Rotate unless somebody has, and go on in the file at the path; `line` is the last line written."""
        with self._lock() as has_lock:
            status = os.fstat(self._file)
            if not has_lock and status.st_nlink:
                return  # the file grows until the lock is free
            if has_lock and self._is_current():
                if status.st_size < self._limit:
                    return
                _shift(self._path, self._backups)
            file = self._open()
            # Another thread may be writing: the number stays valid and means the new file from here on.
            os.dup2(file, self._file, inheritable=False)
            os.close(file)
            if status.st_nlink == 0 and line:  # removed, or rotated out of existence
                os.write(self._file, line)

    @contextmanager
    def _lock(self) -> Iterator[bool]:
        """Try to hold the lock of the file inside the context; yields whether that succeeds.

        Only this user can open the lock file, unlike the directory, which is created if it is gone.
        """
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        while True:
            # A new descriptor each time, so the lock excludes other threads too.
            lock = guard.regular(self._lock_path, os.O_RDONLY | os.O_CREAT)
            has_lock = self._patience.lock(lock, fcntl.LOCK_EX, _PATIENCE)
            if not has_lock or _is_at(self._lock_path, lock):
                break
            os.close(lock)  # its last holder has removed the file
        try:
            yield has_lock
        finally:
            with suppress(FileNotFoundError):
                if has_lock:
                    os.unlink(self._lock_path)
            # Closing is not enough: a process forked at this moment holds a duplicate.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def _is_current(self) -> bool:
        return _is_at(self._path, self._file)

    def _open(self) -> int:
        """Open the file at the path, but through no link, which a less privileged user may have put there."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            file = os.open(self._path, flags, 0o666)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise OSError(errno.EINVAL, _NO_FILE, self._path) from error
            raise
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise OSError(errno.EINVAL, _NO_FILE, self._path)
        return file


def _is_at(path: str, file: int) -> bool:
    """Whether this open file is the one at the path."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.stat(path), os.fstat(file))
    return False


class UnsharedFile:
    """A rotating file where locks are missing: one process alone may write it, and its threads take turns."""

    def __init__(self, path: str, limit: int, backups: int) -> None:
        self._path = os.path.abspath(path)
        self._limit = limit
        self._backups = backups
        self._lock = threading.Lock()
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115  open for as long as it is written

    def write(self, line: bytes, severity: int) -> None:  # noqa: ARG002  a file has none
        """Write one line."""
        with self._lock:
            self._file.write(line)
            if self._file.tell() < self._limit:
                return
            self._file.close()  # Windows renames no file that is open
            try:
                _shift(self._path, self._backups)
            finally:
                self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115

    def close(self) -> None:
        self._file.close()


def _shift(path: str, backups: int) -> None:
    for number in range(backups, 1, -1):
        with suppress(FileNotFoundError):
            os.replace(f"{path}.{number - 1}", f"{path}.{number}")
    os.replace(path, f"{path}.1")
