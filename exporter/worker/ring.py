"""Rings: numbered files that a worker holds while it lives, and that the next worker takes over.

The number is claimed with a lock on the file, which the kernel releases when the process dies. So there are
never more files than there were workers at a time, and what the dead one wrote stays readable.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress

from exporter import guard
from exporter.posix import fcntl

# Something else than a file of ours has the name: a link, a pipe, a directory, the file of another user.
_STRANGE = (errno.EINVAL, errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.EPERM)
_MOST = 10_000


def claim(directory: str | os.PathLike[str], kind: str) -> int:
    """The descriptor of the first `<kind>_<n>.ring` that no living process holds, open and locked.

    Raises OSError where that is not possible.
    """
    at = guard.directory(os.fspath(directory))
    try:
        for number in range(_MOST):
            try:
                descriptor = guard.regular(f"{kind}_{number}.ring", os.O_RDWR | os.O_CREAT, at)
            except OSError as error:
                if error.errno in _STRANGE:
                    continue
                raise
            try:
                if guard.lock(descriptor, fcntl.LOCK_EX):
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)
    finally:
        os.close(at)
    raise OSError(errno.EMFILE, f"{_MOST} rings are in use", os.fspath(directory))


def contents(directory: str | os.PathLike[str], kind: str, limit: int) -> Iterator[bytes]:
    """What each ring of this kind contains, of living and dead workers.

    What is no regular file of ours, or has more than `limit` bytes, is left out. Raises OSError where the
    directory cannot be read.
    """
    at = guard.directory(os.fspath(directory))
    try:
        for name in sorted(os.listdir(at)):
            if re.fullmatch(kind + r"_\d{1,5}\.ring", name):
                with suppress(OSError):
                    yield _content(name, at, limit)
    finally:
        os.close(at)


def _content(name: str, at: int, limit: int) -> bytes:
    descriptor = guard.regular(name, os.O_RDONLY, at)
    try:
        size = os.fstat(descriptor).st_size
        return guard.content(descriptor, size) if size <= limit else b""
    finally:
        os.close(descriptor)
