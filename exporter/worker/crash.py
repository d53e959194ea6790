"""Crash: the Python stack at the end of a process, which `faulthandler` writes into a file beside its ring.

That is at SIGSEGV, SIGBUS, SIGABRT, SIGFPE and SIGILL; SIGKILL leaves none. It has no values in it.
"""

from __future__ import annotations

import faulthandler
import os
from contextlib import suppress
from typing import IO

from exporter import guard

_LINES = 100
_BYTES = 1 << 16

_file: IO[bytes] | None = None


def watch(directory: str, number: int) -> None:
    """Let a crash of this process write its stack, for the ring of this number. Raises OSError.

    An application that has `faulthandler` write somewhere else keeps it.
    """
    global _file
    if faulthandler.is_enabled() and _file is None:
        return
    descriptor = _opened(directory, number, os.O_WRONLY | os.O_CREAT)
    os.ftruncate(descriptor, 0)
    former, _file = _file, os.fdopen(descriptor, "wb", buffering=0)
    faulthandler.enable(_file, all_threads=True)
    if former is not None:
        former.close()


def lines(directory: str, number: int) -> list[str]:
    """What a crash has written for the ring of this number, line by line."""
    with suppress(OSError), os.fdopen(_opened(directory, number, os.O_RDONLY), "rb") as file:
        text = file.read(_BYTES).decode("utf-8", "replace")
        return [line[:200] for line in text.splitlines()[:_LINES]]
    return []


def clear(directory: str, number: int) -> None:
    """Let the next owner of the ring begin without it."""
    with suppress(OSError), os.fdopen(_opened(directory, number, os.O_WRONLY), "wb") as file:
        file.truncate(0)


def _opened(directory: str, number: int, flags: int) -> int:
    at = guard.directory(directory)
    try:
        return guard.regular(f"stack_{number}.ring", flags, at)
    finally:
        os.close(at)
