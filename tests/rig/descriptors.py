"""The open files of this process."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def open_below(path: Path) -> list[str]:
    """The files in this directory that are open here, and the directory itself; removed ones too.

    Threads of other tests may open and close files of their own meanwhile.
    """
    links = []
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return sorted(link for link in links if link.startswith(str(path)))
