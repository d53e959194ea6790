"""Rings: numbered files that a worker holds while it lives, and that the next worker takes over.

A lock on the file claims its number, and the kernel releases the lock when the process dies. So there are
never more files than workers at one time, and the content of a dead worker stays readable.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress

from exporter import forks, guard
from exporter.posix import fcntl

# The name belongs to no file of this package: a link, a pipe, a directory, the file of another user.
_FOREIGN = (errno.EINVAL, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EPERM)
_LIMIT = 10_000


def claim(
    directory: str | os.PathLike[str],
    kind: str,
    free: Callable[[int], bool] = lambda _: True,
    *,
    suffix: str = "ring",
) -> tuple[int, int]:
    """The number and descriptor of the first `<kind>_<n>.<suffix>` that no living process holds, now locked.

    `free` tells whether a ring with this descriptor may be taken. Raises OSError if no ring can be claimed.
    """
    at = guard.directory(os.fspath(directory))
    try:
        for number in range(_LIMIT):
            try:
                descriptor = guard.regular(f"{kind}_{number}.{suffix}", os.O_RDWR | os.O_CREAT, at)
            except OSError as error:
                if error.errno in _FOREIGN:
                    continue
                raise
            try:
                if guard.lock(descriptor, fcntl.LOCK_EX) and free(descriptor):
                    return number, descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
    finally:
        os.close(at)
    raise OSError(errno.EMFILE, f"{_LIMIT} rings are in use", os.fspath(directory))


def memory(
    directory: str | os.PathLike[str], kind: str, number: int, descriptor: int, length: int
) -> mmap.mmap:
    """The memory of a claimed ring, without its lock: a forked child may keep it for as long as it lives.

    A mapping keeps a duplicate of its descriptor, so the file is opened once more. Raises OSError if it has
    been removed.
    """
    at = guard.directory(os.fspath(directory))
    try:
        again = guard.regular(f"{kind}_{number}.ring", os.O_RDWR, at)
    finally:
        os.close(at)
    try:
        if not os.path.samestat(os.fstat(again), os.fstat(descriptor)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{kind}_{number}.ring")
        return mmap.mmap(again, length)
    finally:
        os.close(again)


def descriptors(
    directory: str | os.PathLike[str], kind: str, flags: int = os.O_RDONLY, *, suffix: str = "ring"
) -> Iterator[tuple[int, int]]:
    """The number and the descriptor of each ring of this kind; each is closed before the next one is opened.

    Only regular files of this package count. Raises OSError if the directory cannot be read.
    """
    at = guard.directory(os.fspath(directory))
    try:
        for name in sorted(os.listdir(at)):
            if match := re.fullmatch(rf"{kind}_(\d{{1,5}})\.{suffix}", name):
                with suppress(OSError), forks.hold(guard.regular(name, flags, at)) as descriptor:
                    yield int(match[1]), descriptor
    finally:
        os.close(at)


def contents(
    directory: str | os.PathLike[str], kind: str, limit: int, *, suffix: str = "ring"
) -> Iterator[bytes]:
    """The content of each ring of this kind, of living and dead workers; raises OSError as `descriptors`.

    Rings of more than `limit` bytes are left out.
    """
    for _, descriptor in descriptors(directory, kind, suffix=suffix):
        size = os.fstat(descriptor).st_size
        if size <= limit:
            yield guard.content(descriptor, size)


def is_held(descriptor: int, owner: int) -> bool:
    """Whether the process `owner`, which may run in another container, still holds this ring.

    The lock is tried last: trying it holds it for a moment, and a worker in search of a free ring would pass
    this one by.
    """
    try:
        os.kill(owner, 0)
    except (ProcessLookupError, OverflowError):
        if guard.lock(descriptor, fcntl.LOCK_SH):
            guard.lock(descriptor, fcntl.LOCK_UN)
            return False
    except PermissionError:
        pass
    return True
