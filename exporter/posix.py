"""POSIX: the system calls that processes need to share files.

A single process needs none of them and runs on Windows too. Where space cannot be reserved, as on macOS,
zeros are written.
"""

from __future__ import annotations

import errno
import os
from typing import Any

fcntl: Any
resource: Any
try:
    import fcntl
    import resource
except ModuleNotFoundError:
    fcntl = resource = None

_CHUNK = 1 << 20


def require(purpose: str) -> None:
    """Raise RuntimeError on a system where processes cannot share files for this purpose."""
    if fcntl is None or not hasattr(os, "register_at_fork"):
        raise RuntimeError(
            f"{purpose} needs file locks and fork, which only POSIX systems such as Linux and macOS have: "
            "leave it out here and run one process"
        )


def reserve(descriptor: int, size: int) -> None:
    """Give the file `size` bytes on the disk; raises OSError if the disk is full."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
            return
        except OSError as error:  # musl, unlike glibc, leaves it to the file system; NFS and ZFS refuse
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    end = os.fstat(descriptor).st_size
    while end < size:
        end += os.pwrite(descriptor, bytes(min(size - end, _CHUNK)), end)
