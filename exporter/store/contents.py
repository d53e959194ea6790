"""What the files of a worker directory contain, and which of them have a living writer."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from exporter.merge.format import CorruptFileError, promises_lock
from exporter.merge.merge import Merge
from exporter.merge.plan import Content
from exporter.posix import fcntl
from exporter.store import archive, workerfile
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
                    with self._files.opened(file) as descriptor:
                        content = self.of(file, descriptor, self._living(file, descriptor))
                except CorruptFileError:
                    untidy = True
                except OSError:
                    continue  # not ours to read, or gone: mark_process_dead() takes no lock
                else:
                    contents.append(content)
                    untidy = untidy or not content.living
        self._merge.forget_others(contents)
        return Snapshot(archived + contents, untidy)

    def of(self, file: File, descriptor: int, living: bool) -> Content:
        """The content of an open file; raises CorruptFileError."""
        stat = os.fstat(descriptor)
        data = workerfile.read(descriptor, self._merge.expected(stat))
        if not any(data) and not living:
            raise CorruptFileError("empty")
        return self._merge.content(file.stem, str(file.pid), living, stat, data)

    def _read_archive(self) -> tuple[list[Content], frozenset[str]]:
        path = self._files.at(ARCHIVE)
        try:
            stat = os.stat(path)
        except FileNotFoundError:
            return [], frozenset()
        version = stat.st_ino, stat.st_mtime_ns
        if self._archive is None or self._archive[0] != version:
            total = archive.read(path)
            self._archive = (
                version,
                self._merge.archived(total.series, total.created),
                frozenset(total.folded),
            )
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
