"""Rings: numbered files that a worker holds while it lives, and that the next worker takes over.

The number is claimed with a lock on the file, which the kernel releases when the process dies. So there are
never more files than there were workers at a time, and what the dead one wrote stays readable.
"""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path

from exporter.posix import fcntl


def claim(directory: str | os.PathLike[str], kind: str) -> int:
    """The descriptor of the first `<kind>_<n>.ring` that no living process holds, open and locked.

    Raises OSError where that is not possible.
    """
    for number in count():
        path = os.path.join(directory, f"{kind}_{number}.ring")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            os.close(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
    raise AssertionError("itertools.count ended")


def paths(directory: str | os.PathLike[str], kind: str) -> list[Path]:
    """The rings of this kind, of living and dead workers."""
    return sorted(Path(directory).glob(f"{kind}_*.ring"))
