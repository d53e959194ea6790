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
    at = guard.directory(directory)
    try:
        descriptor = guard.regular(_name(number), os.O_WRONLY | os.O_CREAT, at)
    finally:
        os.close(at)
    os.ftruncate(descriptor, 0)
    former, _file = _file, os.fdopen(descriptor, "wb", buffering=0)
    faulthandler.enable(_file, all_threads=True)
    if former is not None:
        former.close()


def lines(directory: str, number: int) -> list[str]:
    """What a crash has written for the ring of this number, line by line."""
    with suppress(OSError):
        at = guard.directory(directory)
        try:
            descriptor = guard.regular(_name(number), os.O_RDONLY, at)
        finally:
            os.close(at)
        try:
            text = os.pread(descriptor, _BYTES, 0).decode("utf-8", "replace")
        finally:
            os.close(descriptor)
        return [line[:200] for line in text.splitlines()[:_LINES]]
    return []


def _name(number: int) -> str:
    return f"stack_{number}.ring"
