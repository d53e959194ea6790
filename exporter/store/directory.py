"""The worker directory: what several processes measured is served as one, and the dead are folded together.

Everything that reads or changes more than one file does so under a lock on `archive.lock`, which dies with
its holder: readers share it, the compactor has it alone. A compaction gives the files of the dead names that
are never used again, writes a new archive that contains their counts and lists those names, puts it in place
with one rename, and unlinks them. Readers leave out what the archive lists, so a compactor may be killed
between any two steps.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from exporter import forks
from exporter.merge.merge import Merge
from exporter.merge.plan import Content, Merged
from exporter.store import archive, cap, workerfile
from exporter.store.archive import Archive
from exporter.store.cap import LabelSet
from exporter.store.workerfile import NAME, CorruptFileError, WorkerFile, install

__all__ = ["CorruptFileError", "DirectoryInUseError", "WorkerDirectory", "WorkerFile", "install"]

_ARCHIVE = "archive.json"
_LOCK = "archive.lock"
_MASTER = "archive.master"
_DEAD = "archive-dead-"
_CORRUPT = "archive-corrupt-"

_KEEP_CORRUPT = 10
_LOCK_INTERVAL = 0.005
# A worker file that a living process has locked, that is gone, or that belongs to somebody else.
_NOT_OURS = (BlockingIOError, FileNotFoundError, PermissionError)
# A plain prometheus_client process creates its file and fills in the header within microseconds.
_CREATION_SECONDS = 1.0


class DirectoryInUseError(RuntimeError):
    """Another running server has the worker directory."""


@dataclass(frozen=True, slots=True)
class _File:
    """A worker file in the directory. A dead one keeps stem and pid in its new name."""

    name: str
    stem: str
    pid: int
    dead: bool

    @staticmethod
    def of(name: str) -> _File | None:
        """The worker file of this name; None if it is none."""
        dead = name.startswith(_DEAD)
        match = NAME.fullmatch(name.removeprefix(_DEAD).partition("~")[0] if dead else name)
        return _File(name, match[1], int(match[2]), dead) if match else None


class WorkerDirectory:
    """The directory named by `PROMETHEUS_MULTIPROC_DIR`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_series: int = 1000,
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        """`max_series` is the most label sets that a family of requests has in the archive.

        `failed` is told of a fold that a scrape wanted and that did not succeed; the next scrape tries again.
        """
        self.path = os.fspath(path)
        self._max_series = max_series
        self._failed = failed
        self._merge = Merge()
        self._busy = threading.RLock()
        self._archive: tuple[tuple[int, int], list[Content], frozenset[str]] | None = None

    def prepare(self, *, keep: bool = False, owner: tuple[int, int] | None = None) -> None:
        """Make the directory ready for a server's master process, which then holds it while it lives.

        What an earlier run left in it is removed: files whose writer is dead, and the archive. With
        `keep` (a master that takes over from one that is still running) nothing is. `owner` is the (uid, gid)
        of the workers, if it is not that of this process.

        Raises:
            DirectoryInUseError: another master holds the directory.
            OSError: it cannot be created or written.
        """
        os.makedirs(self.path, mode=0o700, exist_ok=True)
        if owner is not None and os.geteuid() == 0:
            os.chown(self.path, *owner)
        with self._locked(fcntl.LOCK_EX):
            master = os.open(self._at(_MASTER), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(master, fcntl.LOCK_NB | (fcntl.LOCK_SH if keep else fcntl.LOCK_EX))
            except BlockingIOError:
                holder = os.pread(master, 20, 0).decode("ascii", "replace").strip()
                os.close(master)
                raise DirectoryInUseError(
                    f"the master process {holder} is using PROMETHEUS_MULTIPROC_DIR={self.path}: "
                    "stop it, or give this one another directory"
                ) from None
            if not keep:
                self._remove_earlier_run()
            os.ftruncate(master, 0)
            os.pwrite(master, b"%d\n" % os.getpid(), 0)
            fcntl.flock(master, fcntl.LOCK_SH)
            _masters[self.path] = master
            forks.keep(master)

    def release(self) -> None:
        """Let another master have the directory; ending the process does the same."""
        descriptor = _masters.pop(self.path, None)
        if descriptor is not None:
            forks.give_up(descriptor)

    def fold(self, pid: int) -> bool:
        """Fold the files of a process that has ended, and of any other that has; as `sweep`."""
        return self.sweep(ended=pid)

    def sweep(self, *, ended: int | None = None, wait: float = 1.0) -> bool:
        """Fold the files of all dead processes into the archive and set corrupt ones aside.

        `ended` is a process that is known to be dead. False if others were reading or compacting for all of
        `wait` seconds: a reader that hangs must not hang a master too. Raises OSError (disk full); no
        count is lost.
        """
        deadline = time.monotonic() + wait
        while True:
            with suppress(BlockingIOError), self._busy, self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
                self._compact(ended)
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(_LOCK_INTERVAL)

    def counts(self) -> dict[str, int]:
        """How many files are live (of living workers), archive (with those yet to be folded) and corrupt."""
        names = os.listdir(self.path)
        dead = [file.dead for file in map(_File.of, names) if file is not None]
        return {
            "live": dead.count(False),
            "archive": (_ARCHIVE in names) + dead.count(True),
            "corrupt": sum(name.startswith(_CORRUPT) for name in names),
        }

    def merge(self) -> Merged:
        """All series of all workers, living and dead: families with a value for each of their samples.

        The dead and the corrupt files that it comes upon are swept away. Raises OSError where there is no
        directory.
        """
        with self._busy:
            if self._merge.crowded:
                self._merge, self._archive = Merge(), None
            contents, untidy = self._read()
            if untidy:
                try:
                    if self.sweep(wait=0):
                        contents, _ = self._read()
                except OSError as error:  # no space: the dead are served file by file until there is
                    if self._failed is not None:
                        self._failed(error)
            return self._merge(contents)

    def _read(self) -> tuple[list[Content], bool]:
        """The contents of all files, and whether some of them are dead or corrupt."""
        untidy = False
        with self._locked(fcntl.LOCK_SH):
            try:
                archived, folded = self._read_archive()
            except CorruptFileError:
                archived, folded, untidy = [], frozenset(), True
            contents = []
            for file in self._files():
                if file.name in folded:
                    continue
                try:
                    with self._opened(file) as descriptor:
                        content = self._content(file, descriptor, self._living(file, descriptor))
                except CorruptFileError:
                    untidy = True
                except OSError:
                    continue  # not ours to read, or gone: mark_process_dead() takes no lock
                else:
                    contents.append(content)
                    untidy = untidy or not content.living
        self._merge.forget_others(contents)
        return archived + contents, untidy

    def _read_archive(self) -> tuple[list[Content], frozenset[str]]:
        try:
            stat = os.stat(self._at(_ARCHIVE))
        except FileNotFoundError:
            return [], frozenset()
        version = stat.st_ino, stat.st_mtime_ns
        if self._archive is None or self._archive[0] != version:
            found = archive.read(self._at(_ARCHIVE))
            self._archive = version, self._merge.archived(found), frozenset(found.folded)
        return self._archive[1], self._archive[2]

    def _content(self, file: _File, descriptor: int, living: bool) -> Content:
        stat = os.fstat(descriptor)
        data = workerfile.read(descriptor, self._merge.expected(stat))
        if not any(data) and not living:
            raise CorruptFileError("empty")
        return self._merge.content(file.stem, str(file.pid), living, stat, data)

    def _living(self, file: _File, descriptor: int) -> bool:
        """Whether a process is still writing this file."""
        return workerfile.is_locked(descriptor) or self._unlocked_writer(file, descriptor)

    def _unlocked_writer(self, file: _File, descriptor: int) -> bool:
        """Whether a process of plain prometheus_client, which holds no lock, is still writing this file.

        Such processes rely on process ids, so they share ours.
        """
        header = os.pread(descriptor, 8, 0)
        if file.dead or workerfile.promises_lock(header):
            return False
        if not any(header):
            return time.time() - os.fstat(descriptor).st_mtime < _CREATION_SECONDS
        return _exists(file.pid)

    def _compact(self, ended: int | None) -> None:
        """Fold the dead and set the corrupt aside; the caller has the directory for itself."""
        try:
            total = archive.read(self._at(_ARCHIVE))
            self._merge.archived(total)
        except CorruptFileError:
            self._set_aside(_ARCHIVE)
            total = Archive()
        self._unlink(total.folded)
        folded = []
        for file in self._files():
            with suppress(*_NOT_OURS), self._opened(file) as descriptor:
                # Held until the file has its new name: a process that has just made it must find it gone.
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                living = file.pid != ended and self._unlocked_writer(file, descriptor)
                try:
                    content = self._content(file, descriptor, living)
                except CorruptFileError:
                    self._set_aside(file.name)
                    continue
                if not living:
                    total.fold(file.stem, content.layout.keys(), content.pairs())
                    folded.append(self._rename_dead(file))
        if folded:
            cap.bound(total, self._merge.archived(total), self._max_series, self._label_sets_of_the_living)
            total.folded = folded
            archive.write(self._at(_ARCHIVE), total)
            self._unlink(folded)

    def _label_sets_of_the_living(self) -> set[LabelSet]:
        contents = []
        for file in self._files():
            with suppress(CorruptFileError, OSError), self._opened(file) as descriptor:
                if not file.dead:
                    contents.append(self._content(file, descriptor, living=True))
        return cap.label_sets(contents)

    def _rename_dead(self, file: _File) -> str:
        if file.dead:
            return file.name
        name = f"{_DEAD}{file.name}~{uuid.uuid4().hex}"
        os.rename(self._at(file.name), self._at(name))
        return name

    def _set_aside(self, name: str) -> None:
        os.rename(self._at(name), self._at(f"{_CORRUPT}{time.time_ns():020d}-{name}"))
        self._unlink(
            sorted(name for name in os.listdir(self.path) if name.startswith(_CORRUPT))[:-_KEEP_CORRUPT]
        )

    def _remove_earlier_run(self) -> None:
        for file in self._files():
            with self._opened(file) as descriptor:
                # What this process has written (an application loaded before the fork) is not of that run.
                mine = file.pid == os.getpid() and not workerfile.promises_lock(os.pread(descriptor, 8, 0))
                if file.dead or not (mine or workerfile.is_locked(descriptor)):
                    self._unlink([file.name])
        for name in os.listdir(self.path):
            if name.endswith(".ring"):  # of the flight recorder or the slots
                with open(self._at(name), "rb") as ring:
                    if not workerfile.is_locked(ring.fileno()):
                        self._unlink([name])
        self._unlink([_ARCHIVE])
        self._unlink([name for name in os.listdir(self.path) if name.startswith(_CORRUPT)])

    def _files(self) -> list[_File]:
        with os.scandir(self.path) as entries:
            files = [_File.of(entry.name) for entry in entries if entry.is_file(follow_symlinks=False)]
        return sorted((file for file in files if file is not None), key=lambda file: file.name)

    def _at(self, name: str) -> str:
        return os.path.join(self.path, name)

    def _unlink(self, names: Iterable[str]) -> None:
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(self._at(name))

    @contextmanager
    def _opened(self, file: _File) -> Iterator[int]:
        descriptor = os.open(self._at(file.name), os.O_RDONLY | os.O_CLOEXEC)
        with forks.held(descriptor):
            yield descriptor

    @contextmanager
    def _locked(self, operation: int) -> Iterator[None]:
        descriptor = os.open(self._at(_LOCK), os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        with forks.held(descriptor):
            fcntl.flock(descriptor, operation)
            yield


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


_masters: dict[str, int] = {}
