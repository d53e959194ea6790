"""POSIX: the system calls that processes need to share files, and a thread to leave signals alone.

A single process needs none of them and runs on Windows too. Where space cannot be reserved, as on macOS,
zeros are written.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

fcntl: Any
resource: Any
try:
    import fcntl
    import resource
except ModuleNotFoundError:
    fcntl = resource = None

_CHUNK = 1 << 20
_FAULTS = ("SIGSEGV", "SIGFPE", "SIGBUS", "SIGILL", "SIGTRAP", "SIGSYS", "SIGABRT")
"""Signals of a thread's own faults: one that is blocked ends the process before `faulthandler` can tell."""


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


def start_of(pid: int) -> float:
    """The time at which a process began (Unix time, s); raises OSError where only Linux could tell."""
    ticks = int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def leave_signals() -> None:
    """Leave the signals of the process to its other threads, from now on and for the calling thread.

    A signal that the kernel hands to this thread does not interrupt the main thread, where Python calls the
    handler: a server that waits in `accept` would not end.
    """
    if hasattr(signal, "pthread_sigmask"):
        faults = {getattr(signal, name) for name in _FAULTS if hasattr(signal, name)}
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - faults)
