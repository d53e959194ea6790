"""The files of a worker directory: their names, their locks, and how they are listed, opened and removed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from exporter import forks
from exporter.posix import fcntl
from exporter.store.workerfile import NAME

ARCHIVE = "archive.json"
LOCK = "archive.lock"
MASTER = "archive.master"
DEAD = "archive-dead-"
CORRUPT = "archive-corrupt-"


@dataclass(frozen=True, slots=True)
class File:
    """A worker file in the directory. A dead one keeps stem and pid in its new name."""

    name: str
    stem: str
    pid: int
    dead: bool

    @staticmethod
    def of(name: str) -> File | None:
        """The worker file of this name; None if it is none."""
        dead = name.startswith(DEAD)
        match = NAME.fullmatch(name.removeprefix(DEAD).partition("~")[0] if dead else name)
        return File(name, match[1], int(match[2]), dead) if match else None


class Files:
    """What lies in one directory."""

    def __init__(self, path: str) -> None:
        self.path = path

    def at(self, name: str) -> str:
        """The path of a file of this name."""
        return os.path.join(self.path, name)

    def names(self) -> list[str]:
        """The names of all files; raises OSError where there is no directory."""
        return os.listdir(self.path)

    def worker_files(self) -> list[File]:
        """All worker files, sorted by name; raises OSError where there is no directory."""
        with os.scandir(self.path) as entries:
            files = [File.of(entry.name) for entry in entries if entry.is_file(follow_symlinks=False)]
        return sorted((file for file in files if file is not None), key=lambda file: file.name)

    def unlink(self, names: Iterable[str]) -> None:
        """Remove the files of these names, where they are there."""
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(self.at(name))

    @contextmanager
    def opened(self, file: File) -> Iterator[int]:
        """A descriptor of the file, for reading."""
        descriptor = os.open(self.at(file.name), os.O_RDONLY | os.O_CLOEXEC)
        with forks.held(descriptor):
            yield descriptor

    @contextmanager
    def locked(self, operation: int) -> Iterator[None]:
        """Hold the lock of the directory; `operation` is that of `fcntl.flock`."""
        descriptor = os.open(self.at(LOCK), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with forks.held(descriptor):
            fcntl.flock(descriptor, operation)
            yield
