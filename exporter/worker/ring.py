"""Rings: numbered files that a worker holds while it lives, and that the next worker takes over.

The number is claimed with a lock on the file, which the kernel releases when the process dies. So there are
never more files than there were workers at a time, and what the dead one wrote stays readable.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress

from exporter import forks, guard
from exporter.posix import fcntl

# Something else than a file of ours has the name: a link, a pipe, a directory, the file of another user.
_STRANGE = (errno.EINVAL, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EPERM)
_MOST = 10_000


def claim(
    directory: str | os.PathLike[str],
    kind: str,
    free: Callable[[int], bool] = lambda _: True,
    *,
    ending: str = "ring",
) -> tuple[int, int]:
    """The number and descriptor of the first `<kind>_<n>.<ending>` that nobody alive holds, open and locked.

    `free` says of an open one whether it may be had. Raises OSError where that is not possible.
    """
    at = guard.directory(os.fspath(directory))
    try:
        for number in range(_MOST):
            try:
                descriptor = guard.regular(f"{kind}_{number}.{ending}", os.O_RDWR | os.O_CREAT, at)
            except OSError as error:
                if error.errno in _STRANGE:
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
    raise OSError(errno.EMFILE, f"{_MOST} rings are in use", os.fspath(directory))


def opened(
    directory: str | os.PathLike[str], kind: str, flags: int = os.O_RDONLY, *, ending: str = "ring"
) -> Iterator[tuple[int, int]]:
    """The number and the descriptor of each ring of this kind; it is open until the next one is asked for.

    What is no regular file of ours is left out. Raises OSError where the directory cannot be read.
    """
    at = guard.directory(os.fspath(directory))
    try:
        for name in sorted(os.listdir(at)):
            if match := re.fullmatch(rf"{kind}_(\d{{1,5}})\.{ending}", name):
                with suppress(OSError), forks.hold(guard.regular(name, flags, at)) as descriptor:
                    yield int(match[1]), descriptor
    finally:
        os.close(at)


def contents(
    directory: str | os.PathLike[str], kind: str, limit: int, *, ending: str = "ring"
) -> Iterator[bytes]:
    """What each ring of this kind contains, of living and dead workers; raises OSError as `opened`.

    What has more than `limit` bytes is left out.
    """
    for _, descriptor in opened(directory, kind, ending=ending):
        size = os.fstat(descriptor).st_size
        if size <= limit:
            yield guard.content(descriptor, size)


def is_held(descriptor: int, owner: int) -> bool:
    """Whether the process `owner` still holds this open ring, which may be in a container of its own.

    The lock is not asked first: who asks holds it for a moment, and another worker would take the ring for
    somebody's.
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
