"""Worker files: one process writes each of them, and others read it.

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
from inspect import getclosurevars
from itertools import count
from typing import Any
from weakref import WeakSet

from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

from exporter import client, forks, guard, posix
from exporter.merge.format import HEADER, LENGTH, LOCK_MARK, CorruptFileError, head, padding
from exporter.posix import fcntl
from exporter.settings import DIRECTORY, SettingsError, forget_empty_directory, worker_directory

NAME = re.compile(
    r"((?:counter|histogram|summary|gauge_(?:live)?(?:all|min|max|sum|mostrecent))(?=_\d+\.db)|"
    r"native(?=_\d+\.buckets))_(\d+)\.(?:db|buckets)"
)
"""The stem and the process id; prometheus_client must not read `native` files, so they end differently."""

# Linux has at most 2**22 process ids: a greater number is a further file of the same process id.
SAME_PID = 10_000_000

_INITIAL = 1 << 16
_PAIR = struct.Struct("=dd")
_EMPTY = HEADER.pack(8, LOCK_MARK)
# How long (s) a request waits for a reader of its new file, which needs the lock for microseconds.
_PATIENCE = 0.01


class WorkerFile(MmapedDict):
    """The file of one kind of metric of this process; takes the place of prometheus_client's `MmapedDict`.

    It reserves its space, so that a full disk is no SIGBUS. An error of the system never reaches a request:
    samples without a place stay in the process and are counted by `refusals()`; they are written whole with
    their first change after there is a place again.
    """

    _m: Any  # mmap | None
    _doubles: Any = None  # the same memory as doubles
    _lock = -1

    def __init__(self, filename: str) -> None:
        """`filename` is the preferred name; an existing file of that name is left to the compactor."""
        self._fname = filename
        self._is_gauge = os.path.basename(filename).startswith("gauge")
        self._m = None
        self._positions: dict[str, int] = {}
        _files.add(self)
        forks.forget(self)
        try:
            ready(os.path.dirname(filename))
            self._begin(_EMPTY)
        except OSError as reason:
            _count(reason)

    def read_value(self, key: str) -> tuple[float, float]:
        """The value and timestamp (seconds) of a key, which is added if it is new."""
        try:
            return super().read_value(key)  # type: ignore[no-any-return, no-untyped-call]
        except OSError as reason:
            _count(reason)
            return 0.0, 0.0

    def write_value(self, key: str, value: float, timestamp: float) -> None:
        """Set a key's value; a gauge's timestamp (seconds) too, others keep the time of their creation."""
        try:
            if not self._is_gauge:
                if key not in self._positions:
                    self._init_value(key)
                _, timestamp = _PAIR.unpack_from(self._m, self._positions[key])
            super().write_value(key, value, timestamp)  # type: ignore[no-untyped-call]
        except OSError as reason:
            _count(reason)

    def close(self) -> None:
        """Close the file and give up its lock; from then on it counts as that of a dead process."""
        # A cell's view of the memory makes mmap.close() raise; then the memory goes with the view.
        self._doubles = None
        with suppress(BufferError):
            if self._m is not None:
                self._m.close()
        self._m = None
        self.after_fork()

    def after_fork(self) -> None:
        """Give up the lock: the child's copy of it would let the parent seem alive."""
        if self._lock >= 0:
            with suppress(OSError):  # closed all the same
                os.close(self._lock)
        self._lock = -1

    def renew(self) -> bool:
        """If the file has been removed, go on in a new one with all values, and return True."""
        if self._lock < 0 or os.fstat(self._lock).st_nlink:
            return False
        with suppress(OSError):
            self._begin(self._m[: self._used])
        return True

    def _init_value(self, key: str) -> None:
        if self._m is None:
            self._begin(_EMPTY)
        raw = key.encode("utf-8")
        entry = head(raw) + b" " * padding(len(raw)) + _PAIR.pack(0.0, 0.0 if self._is_gauge else time.time())
        end = self._used + len(entry)
        if end > self._capacity:
            self._grow(end)
        self._m[self._used : end] = entry
        self._m[0:4] = LENGTH.pack(end)
        self._used = end
        self._positions[key] = end - 16

    def _begin(self, content: bytes) -> None:
        """Make a new file with this content."""
        directory, base = os.path.split(self._fname)
        base, extension = os.path.splitext(base)
        *kind, identifier = base.split("_", 1 + self._is_gauge)
        stem = "_".join(kind)
        # An application may name its processes with `MultiProcessValue(process_identifier)`.
        pid = int(identifier) if identifier.isdecimal() else os.getpid()
        at = guard.directory(directory, make=True)
        try:
            for number in count(pid, SAME_PID):
                name = f"{stem}_{number}{extension}"
                with suppress(FileExistsError):
                    if self._create(at, name, content):
                        break
        finally:
            os.close(at)
        self._fname = os.path.join(directory, name)

    def _create(self, at: int, name: str, content: bytes) -> bool:
        """Create the file and lock it; False if a compactor took the still empty file for a dead one."""
        descriptor, lock = guard.regular(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, at), -1
        try:
            with suppress(FileNotFoundError):
                # Opened a second time: the memory has a duplicate of the first, which a forked child keeps.
                lock = guard.regular(name, os.O_RDONLY, at)
                if not guard.lock(lock, fcntl.LOCK_EX, _PATIENCE):
                    raise OSError(errno.EAGAIN, "another process has locked the new file", name)
                if os.path.samestat(os.stat(name, dir_fd=at), os.fstat(descriptor)):
                    self._use(descriptor, _capacity_for(len(content)))
                    self._m[: len(content)] = content
                    self._used = len(content)
                    self.after_fork()
                    self._lock, lock = lock, -1
                    return True
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=at)
            raise
        finally:
            os.close(descriptor)
            if lock >= 0:
                os.close(lock)
        return False

    def _grow(self, size: int) -> None:
        directory, name = os.path.split(self._fname)
        at = guard.directory(directory)
        try:
            descriptor = guard.regular(name, os.O_RDWR, at)
        finally:
            os.close(at)
        try:
            if self._lock < 0 or not os.path.samestat(os.fstat(descriptor), os.fstat(self._lock)):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self._fname)
            self._use(descriptor, _capacity_for(size))
        finally:
            os.close(descriptor)

    def _use(self, descriptor: int, capacity: int) -> None:
        posix.reserve(descriptor, capacity)
        self._m = mmap.mmap(descriptor, capacity)
        self._doubles = memoryview(self._m).cast("d")
        self._capacity = capacity


def place(file: MmapedDict, key: str) -> tuple[Any, int] | None:
    """The memory of a file as doubles and the index of the key's value in it; None if it has no place."""
    if key not in file._positions:
        return None
    # An application may have made metrics before `install`: then the file is prometheus_client's own.
    doubles = file._doubles if isinstance(file, WorkerFile) else memoryview(file._m).cast("d")
    return doubles, file._positions[key] >> 3


_files: WeakSet[WorkerFile] = WeakSet()
_losses = 0
_error: OSError | None = None


def refusals() -> int:
    """The number of writes of this process without a place."""
    return _losses


def error() -> OSError | None:
    """The error of the last of them."""
    return _error


def renew() -> bool:
    """Begin a new file for each removed one of this process; True if there was one."""
    return sum(file.renew() for file in list(_files)) > 0  # any() would stop at the first


def is_shut_out() -> bool:
    """Whether this process has files, and none of them has a place in the directory."""
    memories = [file._m for file in list(_files)]
    return bool(memories) and not any(memory is not None for memory in memories)


def _capacity_for(size: int) -> int:
    """A power of two, so that a file grows seldom; raises OSError for a size that no reader would read."""
    if size > guard.LIMIT:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    return max(_INITIAL, 1 << (size - 1).bit_length())


def install() -> None:
    """Make prometheus_client write its values through WorkerFile from now on.

    Raises:
        ImportError: this prometheus_client lacks something that the exporter uses.
        RuntimeError: it would write files, which this system cannot share.
    """
    client.check()
    vars(values)["MmapedDict"] = WorkerFile
    if forget_empty_directory():
        values.ValueClass = values.MutexValue
    if shares_files():
        posix.require(DIRECTORY)
        # prometheus_client reads it for each file, warns of its old name, and the application may change its
        # working directory.
        os.environ[DIRECTORY] = worker_directory() or ""
        _adopt(values.ValueClass)


def shares_files() -> bool:
    """Whether prometheus_client writes into worker files, and into no class of the application's own."""
    return getattr(values.ValueClass, "_multiprocess", False)


def _adopt(value_class: Any) -> None:
    """Move what the application has counted before `install` into files of ours.

    Those files of prometheus_client have no lock, so a process without its process id in their names, or in
    another container, would seem dead; and they neither outlive the directory nor a full disk.
    """
    state = getclosurevars(value_class._MmapedValue__check_for_pid_change).nonlocals
    files, early = state["files"], state["values"]
    for value in early[:1]:
        value.get()  # the first call after a fork opens this process's own files
    with getclosurevars(value_class.inc).nonlocals["lock"]:
        for kind, file in files.items():
            if not isinstance(file, WorkerFile):
                files[kind] = ours = WorkerFile(file._fname)
                with suppress(OSError):  # before its counts lie elsewhere: nobody may read them twice
                    os.unlink(file._fname)
                for key, number, timestamp in file.read_all_values():
                    ours.write_value(key, number, timestamp)
                for value in early:
                    if value._file is file:
                        value._file = ours
                file.close()


def ready(path: str) -> None:
    """Create the worker directory, for this user alone, if there is none.

    Once it has been ready, its loss costs measurements and raises nothing, neither in this process nor in
    those that are forked from it.

    Raises:
        SettingsError: it cannot be made or written, or is somebody else's; a full disk is an OSError.
    """
    if path in _ready_paths:
        return
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        os.close(guard.directory(path))
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise unusable(path, error) from error
    _ready_paths.add(path)


_ready_paths: set[str] = set()


def unusable(path: str, error: OSError) -> SettingsError:
    """The complaint about a worker directory that led to this error."""
    reason = "this is no directory" if isinstance(error, FileExistsError) else error.strerror
    return SettingsError(
        DIRECTORY, path, f"{reason}; give a directory that the service may make and write to"
    )


def is_locked(descriptor: int) -> bool:
    """Whether a process holds the lock of this open file."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def read(descriptor: int, likely_size: int = 0) -> bytes:
    """The used part of an open worker file, zeros if nothing is in it yet; `likely_size` is a hint.

    Raises:
        CorruptFileError: its header is nonsense, or the file is shorter than its header says.
    """
    data = os.pread(descriptor, max(likely_size, 4096), 0)
    if len(data) < 8:
        if any(data):
            raise CorruptFileError("shorter than its header")
        return bytes(8)
    used = int(LENGTH.unpack_from(data)[0])
    if used == 0:
        return bytes(8)
    if used < 8 or used % 8 or used > guard.LIMIT:
        raise CorruptFileError(f"its header says {used} bytes")
    if used > os.fstat(descriptor).st_size:
        raise CorruptFileError(f"shorter than the {used} bytes that its header says")
    while len(data) < used:
        part = os.pread(descriptor, used - len(data), len(data))
        if not part:
            raise CorruptFileError(f"{len(data)} bytes of {used}")
        data += part
    return data[:used]


def _count(reason: OSError) -> None:
    global _losses, _error
    _losses += 1
    _error = reason
