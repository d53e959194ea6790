"""Contents of the files of a worker directory, and which of the files have a living writer."""

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
        with self._files.lock(fcntl.LOCK_SH):
            try:
                contents, file_names = self._read_archive()
            except CorruptFileError:
                contents, file_names, untidy = [], frozenset(), True
            worker_contents = []
            for file in self._files.worker_files():
                if file.name in file_names:
                    continue
                try:
                    with forks.hold(self._files.descriptor(file.name)) as descriptor:
                        content = self.of(file, descriptor, self._is_alive(file, descriptor))
                except CorruptFileError:
                    untidy = True
                except (FileNotFoundError, PermissionError):
                    continue  # not readable, or gone: mark_process_dead() takes no lock
                else:
                    worker_contents.append(content)
                    untidy = untidy or not content.alive
        self._merge.keep_only(worker_contents)
        return Snapshot(contents + worker_contents, untidy)

    def of(self, file: File, descriptor: int, alive: bool) -> Content:
        """The content of an open file; raises CorruptFileError."""
        status = os.fstat(descriptor)
        data = workerfile.read(descriptor, self._merge.likely_size(status))
        if not any(data) and not alive:
            raise CorruptFileError("empty")
        return self._merge.content(file.stem, str(file.pid), alive, status, data)

    def archive(self) -> Archive:
        """The archive, empty where there is none; raises CorruptFileError."""
        if not self._archive_status():
            return Archive()
        with forks.hold(self._files.descriptor(ARCHIVE)) as descriptor:
            return archive.load(guard.content(descriptor, os.fstat(descriptor).st_size))

    def _archive_status(self) -> os.stat_result | None:
        """The status of the archive; raises CorruptFileError if something else has its name."""
        try:
            status = os.stat(ARCHIVE, dir_fd=self._files.directory, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            raise CorruptFileError("the archive is no regular file")
        return status

    def _read_archive(self) -> tuple[list[Content], frozenset[str]]:
        status = self._archive_status()
        if status is None:
            return [], frozenset()
        version = status.st_ino, status.st_mtime_ns
        if self._archive is None or self._archive[0] != version:
            total = self.archive()
            contents = self._merge.archive_contents(total.series, total.created)
            self._archive = version, contents, frozenset(total.file_names)
        return self._archive[1], self._archive[2]

    @staticmethod
    def _is_alive(file: File, descriptor: int) -> bool:
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
