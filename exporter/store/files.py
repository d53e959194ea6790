"""The files of a worker directory: their names and locks; how to list, open, replace and remove them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from exporter import forks, guard
from exporter.store.workerfile import NAME

ARCHIVE = "archive.json"
TEMPORARY = ARCHIVE + ".tmp"
LOCK = "archive.lock"
MASTER = "archive.master"
FOREIGN = "archive.foreign"
DEAD = "archive-dead-"
CORRUPT = "archive-corrupt-"

PATIENCE = 1.0
"""The time that a reader or a compactor waits for others (s); a large fold takes a tenth of it."""


class LockedError(BlockingIOError):
    """Another process holds the lock of the directory for longer than anybody needs it."""


@dataclass(frozen=True, slots=True)
class File:
    """A worker file in the directory. A dead one keeps stem and pid in its new name."""

    name: str
    stem: str
    pid: int
    dead: bool

    @staticmethod
    def of(name: str) -> File | None:
        """The worker file of this name; None for any other name."""
        dead = name.startswith(DEAD)
        match = NAME.fullmatch(name.removeprefix(DEAD).partition("~")[0] if dead else name)
        return File(name, match[1], int(match[2]), dead) if match else None


class Files:
    """The files of one directory. All methods but `enter` and `lock` work inside one of those two.

    A missing directory is left to the next worker, or to the master.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.directory = -1
        """The descriptor through which everything in it is reached."""
        self._patience = guard.Patience()

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Open the directory inside the context; raises OSError if that is not possible."""
        self.directory = guard.directory(self.path)
        try:
            yield
        finally:
            os.close(self.directory)
            self.directory = -1

    @contextmanager
    def lock(self, operation: int, wait: float = PATIENCE) -> Iterator[None]:
        """Hold the lock of the directory; `operation` is that of `fcntl.flock`.

        It waits `wait` seconds, but not at all if the last call waited in vain.

        Raises:
            LockedError: somebody else has the lock.
        """
        with self.enter(), forks.hold(self.descriptor(LOCK, os.O_RDONLY | os.O_CREAT)) as descriptor:
            if not self._patience.lock(descriptor, operation, wait):
                raise LockedError(errno.EAGAIN, "another process has locked the worker directory", self.path)
            yield

    def names(self) -> list[str]:
        """The names of all files."""
        return os.listdir(self.directory)

    def worker_files(self) -> list[File]:
        """All worker files, sorted by name."""
        with os.scandir(self.directory) as entries:
            files = [File.of(entry.name) for entry in entries if entry.is_file(follow_symlinks=False)]
        return sorted((file for file in files if file is not None), key=lambda file: file.name)

    def unlink(self, names: Iterable[str]) -> None:
        """Remove the files of these names; missing ones are no error."""
        for name in names:
            with suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(name, dir_fd=self.directory)

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, even that of another file."""
        os.rename(old, new, src_dir_fd=self.directory, dst_dir_fd=self.directory)

    def descriptor(self, name: str, flags: int = os.O_RDONLY) -> int:
        """A descriptor of the regular file of this name."""
        return guard.regular(name, flags, self.directory)

    def replace(self, name: str, content: bytes) -> None:
        """Put a file in place at once and whole; raises OSError, with the old one untouched."""
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with open(self.descriptor(TEMPORARY, flags), "wb") as file:
                file.write(content)
            self.rename(TEMPORARY, name)
        except BaseException:
            with suppress(OSError):
                self.unlink([TEMPORARY])
            raise
