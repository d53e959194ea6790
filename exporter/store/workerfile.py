"""Worker files: what one process writes, and how it is read.

The kernel drops a writer's lock when the process ends, however it ends, and a lock is seen from every
container that shares the directory, which a process id is not.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import struct
import time
from contextlib import suppress
from itertools import count
from typing import Any

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

from exporter import client, forks, posix
from exporter.merge.format import HEADER, LENGTH, LOCKED, CorruptFileError, head, padding
from exporter.posix import fcntl
from exporter.settings import DIRECTORY, SettingsError, forget_empty_directory

NAME = re.compile(
    r"((?:counter|histogram|summary|gauge_(?:live)?(?:all|min|max|sum|mostrecent))(?=_\d+\.db)|"
    r"native(?=_\d+\.buckets))_(\d+)\.(?:db|buckets)"
)
"""The stem and the process id; `native` are ours alone, which prometheus_client must not read."""

# Linux has at most 2**22 process ids: numbers above are further files of the same process id.
SAME_PID = 10_000_000

_INITIAL = 1 << 16
_PAIR = struct.Struct("=dd")
_FULL = (errno.ENOSPC, errno.EDQUOT)


class WorkerFile(MmapedDict):
    """The file of one kind of metric of this process; takes the place of prometheus_client's `MmapedDict`.

    It reserves its space, so that a full disk is not a SIGBUS. While the disk is full the samples that find
    no place stay in the process and are counted in `refused`; they are written whole with their first change
    after there is space again.
    """

    refused = 0
    """Writes of this process that found the disk full."""

    _f: Any  # BinaryIO | None
    _m: Any  # mmap | None
    _lock: Any  # BinaryIO | None

    def __init__(self, filename: str) -> None:
        """`filename` is the wanted name; an existing file of that name is left to the compactor."""
        self._fname = filename
        self._is_gauge = os.path.basename(filename).startswith("gauge")
        self._f = self._m = self._lock = None
        self._used = self._capacity = 0
        self._positions: dict[str, int] = {}
        try:
            ready(os.path.dirname(filename))
            self._open()
        except OSError as error:
            _count_if_full(error)

    def read_value(self, key: str) -> tuple[float, float]:
        """The value and timestamp (seconds) of a key, which is added if it is new."""
        try:
            return super().read_value(key)  # type: ignore[no-any-return, no-untyped-call]
        except OSError as error:
            _count_if_full(error)
            return 0.0, 0.0

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Set a key's value; a gauge's timestamp (seconds) too, others keep the time of their creation."""
        try:
            if not self._is_gauge:
                if key not in self._positions:
                    self._init_value(key)
                _, timestamp = _PAIR.unpack_from(self._m, self._positions[key])
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]
        except OSError as error:
            _count_if_full(error)

    def place(self, key: str) -> tuple[Any, int] | None:
        """The memory as doubles and the index of the key's value in it; None where it has no place."""
        if key not in self._positions:
            return None
        return memoryview(self._m).cast("d"), self._positions[key] >> 3

    def close(self) -> None:
        """Close the file and give up its lock; from then on it counts as that of a dead process."""
        # A view that somebody keeps of the memory makes mmap.close() raise; then it goes with the view.
        with suppress(BufferError):
            if self._m is not None:
                self._m.close()
        self._m = None
        self.release()
        if self._f is not None:
            self._f.close()
        self._f = None

    def after_fork(self) -> None:
        """Give up the child's copy of the lock, which would let the parent seem alive."""
        self.release()

    def release(self) -> None:
        """Give up the lock."""
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def _init_value(self, key: str) -> None:
        if self._m is None:
            self._open()
        encoded = key.encode("utf-8")
        entry = (
            head(encoded)
            + b" " * padding(len(encoded))
            + _PAIR.pack(0.0, 0.0 if self._is_gauge else time.time())
        )
        end = self._used + len(entry)
        if end > self._capacity:
            self._reserve(max(2 * self._capacity, 1 << end.bit_length()))
        self._m[self._used : end] = entry
        self._m[0:4] = LENGTH.pack(end)
        self._used = end
        self._positions[key] = end - 16

    def _open(self) -> None:
        directory, base = os.path.split(self._fname)
        base, extension = os.path.splitext(base)
        stem, _, pid = base.rpartition("_")
        for number in count(int(pid), SAME_PID):
            path = os.path.join(directory, f"{stem}_{number}{extension}")
            with suppress(FileExistsError):
                if self._create(path):
                    break
        self._fname = path
        self._used = 8
        self._m[0:8] = HEADER.pack(self._used, LOCKED)
        forks.forget(self)

    def _create(self, path: str) -> bool:
        """Create the file and lock it; False if a compactor took the still empty file for a dead one."""
        self._f = open(path, "x+b", buffering=0)  # noqa: SIM115  open for as long as the process lives
        try:
            with suppress(FileNotFoundError):
                self._lock = open(path, "rb", buffering=0)  # noqa: SIM115
                fcntl.flock(self._lock, fcntl.LOCK_EX)
                if os.path.samestat(os.stat(path), os.fstat(self._f.fileno())):
                    self._reserve(_INITIAL)
                    return True
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(path)
            self.close()
            raise
        self.close()
        return False

    def _reserve(self, capacity: int) -> None:
        posix.reserve(self._f.fileno(), capacity)
        self._m = mmap.mmap(self._f.fileno(), capacity)
        self._capacity = capacity


def install() -> None:
    """Make prometheus_client write its values through WorkerFile from now on.

    Raises:
        ImportError: this prometheus_client is not made as the exporter expects.
        RuntimeError: it is to write files, and the system cannot share them.
    """
    client.check()
    vars(values)["MmapedDict"] = WorkerFile
    if forget_empty_directory():
        values.ValueClass = values.MutexValue
    if values.ValueClass._multiprocess:
        posix.require(DIRECTORY)


def ready(path: str) -> None:
    """Make the worker directory, for this user alone, where there is none.

    Raises:
        SettingsError: it cannot be made or written; the full disk is an OSError.
    """
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    except OSError as error:
        if error.errno in _FULL:
            raise
        reason = "this is no directory" if isinstance(error, FileExistsError) else error.strerror
        raise SettingsError(
            DIRECTORY, path, f"{reason}; give a directory that the service may make and write to"
        ) from error


def is_locked(descriptor: int) -> bool:
    """Whether a process holds the lock of this open file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def read(descriptor: int, expected: int = 0) -> bytes:
    """The used part of an open worker file, zeros if nothing is in it yet; `expected` is its likely length.

    Raises:
        CorruptFileError: its header is nonsense, or the file is shorter than its header says.
    """
    data = os.pread(descriptor, max(expected, 4096), 0)
    if len(data) < 8:
        if any(data):
            raise CorruptFileError("shorter than its header")
        return bytes(8)
    used = int(LENGTH.unpack_from(data)[0])
    if used == 0:
        return bytes(8)
    if used < 8 or used % 8:
        raise CorruptFileError(f"its header says {used} bytes")
    if used > os.fstat(descriptor).st_size:
        raise CorruptFileError(f"shorter than the {used} bytes that its header says")
    while len(data) < used:
        more = os.pread(descriptor, used - len(data), len(data))
        if not more:
            raise CorruptFileError(f"{len(data)} bytes of {used}")
        data += more
    return data[:used]


def _count_if_full(error: OSError) -> None:
    if error.errno not in _FULL:
        raise error
    WorkerFile.refused += 1
