"""The worker directory: several processes are served as one, and the dead are folded together.

Everything that reads or changes more than one file does so under a lock on `archive.lock`, which dies with
its holder: readers share it, the compactor has it alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress

from exporter import forks, guard, posix
from exporter.merge.merge import Merge
from exporter.merge.plan import Content, FamilyValues
from exporter.posix import fcntl
from exporter.settings import DIRECTORY, warn, worker_directory
from exporter.store import master, workerfile
from exporter.store.compaction import Compaction
from exporter.store.contents import Contents
from exporter.store.files import ARCHIVE, CORRUPT, FOREIGN, LOCK, PATIENCE, File, Files, LockedError

# How long a master waits for the processes of an earlier run (s).
_START_PATIENCE = 5.0


class WorkerDirectory:
    """The directory named by `PROMETHEUS_MULTIPROC_DIR`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        max_series: int = 1000,
        on_failure: Callable[[BaseException], None] | None = None,
    ) -> None:
        """`max_series` is the most label sets that a family of requests has in the archive.

        `on_failure` is called when a fold fails that a scrape began; the next scrape tries again.
        """
        self.path = os.fspath(path)
        self._max_series = max_series
        self._on_failure = on_failure
        self._files = Files(self.path)
        self.owner: tuple[int, int] | None = None
        """The (uid, gid) of the workers, where the master is root."""
        self._busy = threading.RLock()
        self._begin()

    def prepare(self, *, keep: bool = False, owner: tuple[int, int] | None = None) -> None:
        """Make the directory ready for a server's master process, which then holds it while it lives.

        The files of an earlier run are removed: those with a dead writer, and the archive. `keep` leaves them
        (for a master that takes over from one that is still running). `owner` is the (uid, gid) of the
        workers, if it is not that of this process.

        Raises:
            DirectoryInUseError: another master holds the directory.
            SettingsError: it cannot be made or written.
        """
        self.owner = owner
        with self._busy:
            try:
                if owner is not None:
                    guard.trust(owner[0])
                workerfile.ready(self.path)
                self._make_private()
            except OSError as error:
                raise workerfile.unusable(self.path, error) from error
            with guard.rights_of(owner), self._files.lock(fcntl.LOCK_EX, _START_PATIENCE):
                master.hold(self._files, keep=keep)

    def release(self) -> None:
        """Let another master have the directory; ending the process does the same."""
        master.release(self._files)

    def is_held(self) -> bool:
        """Whether a server's master holds the directory, and so has emptied it."""
        with self._busy, self._files.enter():
            return master.is_held(self._files)

    def is_left_over(self) -> bool:
        """Whether only processes that have ended wrote here before this one.

        Processes that have begun later, as their numbers tell, do not count: of several that begin together
        the first one finds what is left over.
        """
        with self._busy, self._files.enter():
            dead = ARCHIVE in self._files.names()
            for file in self._files.worker_files():
                pid = file.pid % workerfile.SAME_PID
                if file.dead or pid != os.getpid():
                    with forks.hold(self._files.descriptor(file.name)) as descriptor:
                        is_alive = not file.dead and workerfile.is_locked(descriptor)
                    if is_alive and pid < os.getpid():
                        return False
                    dead = dead or not is_alive
        return dead

    def is_younger_than(self, pid: int) -> bool:
        """Whether it was first read after this process had begun; False where nobody can tell."""
        with suppress(OSError), self._busy, self._files.enter():
            return os.stat(LOCK, dir_fd=self._files.directory).st_mtime > posix.start_of(pid)
        return False

    def leave_alone(self) -> None:
        """Let nobody fold files: they are of another exporter, which reads those of the dead itself."""
        with self._busy, self._files.enter():
            os.close(self._files.descriptor(FOREIGN, os.O_RDONLY | os.O_CREAT))

    def fold(self, pid: int) -> bool:
        """Fold the files of a process that has ended, and of any other that has; as `sweep`."""
        return self.sweep(dead_pid=pid)

    def sweep(self, *, dead_pid: int | None = None, wait: float = PATIENCE) -> bool:
        """Fold the files of all dead processes into the archive and set corrupt ones aside.

        `dead_pid` is a process that is known to be dead. False if others read or compact for all of `wait`
        seconds: a reader that hangs must not hang a master too. Raises OSError (disk full); no count is lost.
        """
        with self._busy, suppress(LockedError):
            if dead_pid is not None and not os.path.lexists(self.path):
                self._make_private()
            with guard.rights_of(self.owner), self._files.lock(fcntl.LOCK_EX, wait):
                if dead_pid is not None:  # this is the master
                    master.hold_on(self._files)
                if FOREIGN not in self._files.names():
                    self._compact(dead_pid)
                return True
        return False

    def counts(self) -> dict[str, int]:
        """The numbers of files: live (of living workers), archive (with those yet to be folded), corrupt."""
        with self._busy, self._files.enter():
            names = self._files.names()
        dead = [file.dead for file in map(File.of, names) if file is not None]
        return {
            "live": dead.count(False),
            "archive": (ARCHIVE in names) + dead.count(True),
            "corrupt": sum(name.startswith(CORRUPT) for name in names),
        }

    def merge(self) -> FamilyValues:
        """All series of all workers, living and dead: families with a value for each of their samples.

        It sweeps away dead and corrupt files that it meets. Raises OSError if the directory cannot be read.
        """
        with self._busy:
            return self._merge(self._sweep_and_read())

    def merge_with_natives(self) -> tuple[FamilyValues, FamilyValues, int]:
        """As `merge`, the families of native buckets at the same time, and how many processes write."""
        with self._busy:
            contents = self._sweep_and_read()
            writers = len({content.pid for content in contents if content.alive})
            return self._merge(contents), self._merge.natives(contents), writers

    def _sweep_and_read(self) -> list[Content]:
        """The contents of all files; the caller holds `_busy`."""
        if self._merge.is_overgrown:
            self._begin()
        contents, untidy = self._contents.read()
        if untidy:
            try:
                if self.sweep(wait=0):
                    contents = self._contents.read().contents
            except OSError as error:  # no space: the dead are served file by file until there is
                if self._on_failure is not None:
                    self._on_failure(error)
        return contents

    def _make_private(self) -> None:
        """Make the directory private to the workers; raises OSError if it is somebody else's."""
        descriptor = guard.directory(self.path, make=True)
        try:
            guard.take_over(descriptor, self.owner)
        finally:
            os.close(descriptor)

    def _begin(self) -> None:
        """Forget all that was read before."""
        self._merge = Merge()
        self._contents = Contents(self._files, self._merge)
        self._compact = Compaction(self._files, self._contents, self._merge, self._max_series)


def shared_path() -> str | None:
    """The path of the worker directory, if prometheus_client writes there; the first file makes it ready."""
    path = worker_directory()
    if path and not workerfile.shares_files():
        warn(
            f"{DIRECTORY}={path!r} has no effect, because prometheus_client was imported before or its "
            "ValueClass replaced: set it before the process starts, and leave the class"
        )
        return None
    return path
