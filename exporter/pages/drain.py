"""Draining: between SIGTERM and the end a service still answers, and says that it is not ready.

The flag is memory that a master and the workers that it forks share, so it works without a worker directory,
and two masters in the middle of an upgrade do not see each other's.
"""

from __future__ import annotations

import mmap

_flag = mmap.mmap(-1, mmap.PAGESIZE)


def begin() -> None:
    """Let this process, and all that descend from it, drain from now on."""
    _flag[0] = 1


def draining() -> bool:
    """Whether the service has been told to end."""
    return _flag[0] == 1
