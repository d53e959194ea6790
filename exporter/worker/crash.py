"""Crash: the Python stack at the end of a process, which `faulthandler` writes into a file beside its ring.

A process writes it at SIGSEGV, SIGBUS, SIGABRT, SIGFPE and SIGILL, but cannot at SIGKILL. The stack contains
no values.
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
    """Let a crash of this process write its stack beside the ring of this number. Raises OSError.

    If the application uses `faulthandler` itself, this does nothing.
    """
    global _file
    if faulthandler.is_enabled() and _file is None:
        return
    descriptor = _open(directory, number, os.O_WRONLY | os.O_CREAT)
    os.ftruncate(descriptor, 0)
    former, _file = _file, os.fdopen(descriptor, "wb", buffering=0)
    faulthandler.enable(_file, all_threads=True)
    if former is not None:
        former.close()


def lines(directory: str, number: int) -> list[str]:
    """The lines that a crash has written beside the ring of this number."""
    with suppress(OSError), os.fdopen(_open(directory, number, os.O_RDONLY), "rb") as file:
        text = file.read(_BYTES).decode("utf-8", "replace")
        return [line[:200] for line in text.splitlines()[:_LINES]]
    return []


def clear(directory: str, number: int) -> None:
    """Empty the file for the next owner of the ring."""
    with suppress(OSError), os.fdopen(_open(directory, number, os.O_WRONLY), "wb") as file:
        file.truncate(0)


def _open(directory: str, number: int, flags: int) -> int:
    at = guard.directory(directory)
    try:
        return guard.regular(f"stack_{number}.ring", flags, at)
    finally:
        os.close(at)
