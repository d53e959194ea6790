"""Guards: how a process opens and locks files that other processes, maybe hostile ones, can reach.

No link is followed, no pipe is waited for, and no lock is waited for without a deadline. Root works in the
directory of its less privileged workers with their rights.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager

from exporter.posix import fcntl, resource

LIMIT = 1 << 28
"""The most bytes that are read from one file; a larger file does not come from this package."""

_INTERVAL = 0.001
_BUFFER = 1 << 16
# The last descriptors of a process are for its connections and the files of the application.
_SPARE = 2

_trusted_uids = {0}


class UntrustedError(PermissionError):
    """A directory or a file that other users may have tampered with."""


def trust(uid: int) -> None:
    """Trust the files of this user, whom the workers run as, from now on."""
    _trusted_uids.add(uid)


def directory(path: str, *, make: bool = False) -> int:
    """A descriptor of the private directory at `path`, which is no link; `make` creates a missing one.

    Raises:
        UntrustedError: it belongs to somebody else, or others may replace files in it.
        OSError: it is no directory, or cannot be made or opened.
    """
    path = os.path.normpath(path)  # the system follows a link with a slash behind its name
    try:
        descriptor = _open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        if not make:
            raise
        os.makedirs(path, mode=0o700, exist_ok=True)
        descriptor = _open(path, os.O_RDONLY | os.O_DIRECTORY)
    status = os.fstat(descriptor)
    # In a sticky directory, such as a new tmpfs, others cannot replace a file, and theirs are not read.
    is_shared = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
    if _is_trustworthy(status) and not is_shared:
        return descriptor
    os.close(descriptor)
    raise UntrustedError(
        errno.EPERM,
        f"it belongs to user {status.st_uid} and has the mode {status.st_mode & 0o7777:o}, so others could "
        "forge what lies in it: name a directory that is not there yet, or one of this user with mode 700",
        path,
    )


def take_over(descriptor: int, owner: tuple[int, int] | None) -> None:
    """Make a directory private to `owner` (uid, gid), or to this user if that is None.

    Raises UntrustedError if somebody else has put something into it.
    """
    if owner is not None and os.geteuid() == 0:
        os.fchown(descriptor, *owner)
    if os.fstat(descriptor).st_mode & 0o777 != 0o700:
        os.fchmod(descriptor, 0o700)
    for name in os.listdir(descriptor):
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        if not _is_trustworthy(status):
            raise UntrustedError(
                errno.EPERM, f"user {status.st_uid} has put something into the worker directory", name
            )


def regular(name: str, flags: int, at: int | None = None) -> int:
    """A descriptor of the regular file `name` in the directory `at`; only its owner may use a new one.

    Raises:
        UntrustedError: it belongs to somebody else.
        OSError: it is no regular file, or cannot be opened.
    """
    descriptor = _open(name, flags | os.O_NONBLOCK, at)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "this is no regular file", name)
        if not _is_trustworthy(status) or status.st_nlink > 1:
            raise UntrustedError(
                errno.EPERM, f"the file belongs to user {status.st_uid}, or has two names", name
            )
        if flags & os.O_EXCL and at is not None and os.geteuid() == 0:
            # Root has loaded the application for its workers, which must be able to read the file.
            os.fchown(descriptor, os.fstat(at).st_uid, -1)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def content(descriptor: int, likely_size: int = 4096) -> bytes:
    """The content of an open file, `LIMIT` + 1 bytes at most; `likely_size` is a hint."""
    parts = []
    position = 0
    while position <= LIMIT:
        part = os.pread(descriptor, min(max(likely_size - position, _BUFFER), LIMIT + 1 - position), position)
        if not part:
            break
        parts.append(part)
        position += len(part)
    return b"".join(parts)


def lock(descriptor: int, operation: int, seconds: float = 0.0) -> bool:
    """Take a lock with `fcntl.flock`; False if others hold it for all of these seconds."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
        time.sleep(_INTERVAL)


class Patience:
    """Waits in vain for a lock only once: a holder that needs longer than anybody should may never end.

    It must not delay every other thread too, or a master that folds the files of its workers one by one.
    """

    def __init__(self) -> None:
        self._in_vain = False

    def lock(self, descriptor: int, operation: int, seconds: float) -> bool:
        """As `lock`, but without waiting if the last call waited in vain."""
        free = lock(descriptor, operation, 0.0 if self._in_vain else seconds)
        if free or seconds:
            self._in_vain = not free
        return free


@contextmanager
def rights_of(owner: tuple[int, int] | None) -> Iterator[None]:
    """Leave root only the rights of `owner` (uid, gid) inside the context; for a process with one thread."""
    if owner is None or os.geteuid() != 0 or owner[0] == 0:
        yield
        return
    groups, gid = os.getgroups(), os.getegid()
    os.setegid(owner[1])
    os.setgroups([owner[1]])
    os.seteuid(owner[0])
    try:
        yield
    finally:
        os.seteuid(0)
        os.setgroups(groups)
        os.setegid(gid)


def become(owner: tuple[int, int] | None) -> None:
    """Give up root's rights for those of `owner` (uid, gid), for good."""
    if owner is not None and os.geteuid() == 0 and owner[0] != 0:
        os.setgroups([owner[1]])
        os.setgid(owner[1])
        os.setuid(owner[0])


def _open(name: str, flags: int, at: int | None = None) -> int:
    descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=at)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE
    if descriptor >= limit > 0:
        os.close(descriptor)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), name)
    return descriptor


def _is_trustworthy(status: os.stat_result) -> bool:
    return status.st_uid in _trusted_uids or status.st_uid == os.geteuid()
