"""What the files of a worker directory contain, and which of them have a living writer."""

from __future__ import annotations

import os
import stat
import time
from typing import NamedTuple

from exporter import forks, guard
from exporter.merge.format import CorruptFileError, promises_lock
from exporter.merge.merge import Merge
from exporter.merge.plan import Content
from exporter.posix import fcntl
from exporter.store import archive, workerfile
from exporter.store.archive import Archive
from exporter.store.files import ARCHIVE, File, Files

# A plain prometheus_client process creates its file and fills in the header within microseconds.
_CREATION_SECONDS = 1.0


class Snapshot(NamedTuple):
    """The contents of all files at one time."""

    contents: list[Content]
    untidy: bool
    """Whether some files are dead or corrupt."""


class Contents:
    """Reads one directory again and again; keeps the archive until it changes."""

    def __init__(self, files: Files, merge: Merge) -> None:
        self._files = files
        self._merge = merge
        self._archive: tuple[tuple[int, int], list[Content], frozenset[str]] | None = None

    def read(self) -> Snapshot:
        """The contents of all files."""
        untidy = False
        with self._files.locked(fcntl.LOCK_SH):
            try:
                archived, folded = self._read_archive()
            except CorruptFileError:
                archived, folded, untidy = [], frozenset(), True
            contents = []
            for file in self._files.worker_files():
                if file.name in folded:
                    continue
                try:
                    with forks.hold(self._files.opened(file.name)) as descriptor:
                        content = self.of(file, descriptor, self._living(file, descriptor))
                except CorruptFileError:
                    untidy = True
                except (FileNotFoundError, PermissionError):
                    continue  # not ours to read, or gone: mark_process_dead() takes no lock
                else:
                    contents.append(content)
                    untidy = untidy or not content.living
        self._merge.forget_others(contents)
        return Snapshot(archived + contents, untidy)

    def of(self, file: File, descriptor: int, living: bool) -> Content:
        """The content of an open file; raises CorruptFileError."""
        status = os.fstat(descriptor)
        data = workerfile.read(descriptor, self._merge.expected(status))
        if not any(data) and not living:
            raise CorruptFileError("empty")
        return self._merge.content(file.stem, str(file.pid), living, status, data)

    def archive(self) -> Archive:
        """The archive, empty where there is none; raises CorruptFileError."""
        if not self._has_archive():
            return Archive()
        with forks.hold(self._files.opened(ARCHIVE)) as descriptor:
            return archive.load(guard.content(descriptor, os.fstat(descriptor).st_size))

    def _has_archive(self) -> os.stat_result | None:
        """The status of the archive; raises CorruptFileError where something else has its name."""
        try:
            status = os.stat(ARCHIVE, dir_fd=self._files.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            raise CorruptFileError("the archive is no regular file")
        return status

    def _read_archive(self) -> tuple[list[Content], frozenset[str]]:
        status = self._has_archive()
        if status is None:
            return [], frozenset()
        version = status.st_ino, status.st_mtime_ns
        if self._archive is None or self._archive[0] != version:
            total = self.archive()
            archived = self._merge.archived(total.series, total.created)
            self._archive = version, archived, frozenset(total.folded)
        return self._archive[1], self._archive[2]

    @staticmethod
    def _living(file: File, descriptor: int) -> bool:
        """Whether a process is still writing this file."""
        return workerfile.is_locked(descriptor) or has_unlocked_writer(file, descriptor)


def has_unlocked_writer(file: File, descriptor: int) -> bool:
    """Whether a process of plain prometheus_client, which holds no lock, is still writing this file.

    Such processes rely on process ids, so they share ours.
    """
    header = os.pread(descriptor, 8, 0)
    if file.dead or promises_lock(header):
        return False
    if not any(header):
        return time.time() - os.fstat(descriptor).st_mtime < _CREATION_SECONDS
    return _exists(file.pid)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
