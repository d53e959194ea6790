"""Compaction: the files of the dead are folded into the archive, and corrupt ones are set aside.

It gives the files of the dead names that are never used again, writes a new archive that contains their
counts and lists those names, puts it in place with one rename, and unlinks them. Readers leave out what the
archive lists, so a compactor may be killed between any two steps.
"""

from __future__ import annotations

import time
import uuid
from contextlib import suppress

from exporter import forks
from exporter.merge.format import CorruptFileError
from exporter.merge.merge import Merge
from exporter.posix import fcntl
from exporter.store import cap
from exporter.store.archive import Archive
from exporter.store.contents import Contents, has_unlocked_writer
from exporter.store.files import ARCHIVE, CORRUPT, DEAD, TEMPORARY, File, Files

_KEEP_CORRUPT = 10
# The file has a living process, is gone, or belongs to somebody else.
_SKIPS = (BlockingIOError, FileNotFoundError, PermissionError)


class Compaction:
    """Compacts one directory; the caller holds its lock alone."""

    def __init__(self, files: Files, contents: Contents, merge: Merge, max_series: int) -> None:
        """`max_series` is the most label sets that a family of requests has in the archive."""
        self._files = files
        self._contents = contents
        self._merge = merge
        self._max_series = max_series

    def __call__(self, dead_pid: int | None) -> None:
        """Compact; `dead_pid` is a process that is known to be dead. Raises OSError (disk full)."""
        files = self._files
        files.unlink([TEMPORARY])  # left by a compactor that was killed
        try:
            total = self._contents.archive()
            self._merge.archive_contents(total.series, total.created)
        except CorruptFileError:
            self._set_aside(ARCHIVE)
            total = Archive()
        files.unlink(total.file_names)
        names = []
        for file in files.worker_files():
            with suppress(*_SKIPS), forks.hold(files.descriptor(file.name)) as descriptor:
                # Held until the file has its new name: a process that has just created it must notice.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                alive = file.pid != dead_pid and has_unlocked_writer(file, descriptor)
                try:
                    content = self._contents.of(file, descriptor, alive)
                except CorruptFileError:
                    self._set_aside(file.name)
                    continue
                if not alive:
                    names.append(self._rename(file))  # before its counts are taken, because it may fail
                    layout = content.layout
                    times = [entry.created for entry in layout.entries]
                    total.fold(file.stem, layout.keys(), content.pairs(), times)
        if names:
            contents = self._merge.archive_contents(total.series, total.created)
            cap.apply(total, contents, self._max_series, self._live_sets)
            total.file_names = names
            files.replace(ARCHIVE, total.dump())
            files.unlink(names)

    def _live_sets(self) -> set[cap.LabelSet]:
        contents = []
        for file in self._files.worker_files():
            with (
                suppress(CorruptFileError, FileNotFoundError, PermissionError),
                forks.hold(self._files.descriptor(file.name)) as descriptor,
            ):
                if not file.dead:
                    contents.append(self._contents.of(file, descriptor, alive=True))
        return cap.label_sets(contents)

    def _rename(self, file: File) -> str:
        """The name of the file among the dead."""
        if file.dead:
            return file.name
        name = f"{DEAD}{file.name}~{uuid.uuid4().hex}"
        self._files.rename(file.name, name)
        return name

    def _set_aside(self, name: str) -> None:
        self._files.rename(name, f"{CORRUPT}{time.time_ns():020d}-{name}")
        corrupt = sorted(name for name in self._files.names() if name.startswith(CORRUPT))
        self._files.unlink(corrupt[:-_KEEP_CORRUPT])
