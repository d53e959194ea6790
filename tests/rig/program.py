"""A program that a test starts, reads and ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from tests.rig.deadline import eventually
from tests.rig.places import ROOT

T = TypeVar("T", bound="Program")


class Program:
    """A running program; `log` is the file that it writes its output to."""

    def __init__(
        self, command: Sequence[str], log: Path, environ: Mapping[str, str], directory: Path = ROOT
    ) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, env=environ, cwd=directory, stdout=output, stderr=output, start_new_session=True
            )

    def __enter__(self: T) -> T:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the program and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def text(self) -> str:
        """The output of the program so far."""
        return self.log.read_text()

    def await_text(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        """Wait for output that matches; AssertionError, with the output, if the program ends before."""

        def match() -> re.Match[str] | None:
            has_ended = self.process.poll() is not None
            match = re.search(pattern, self.text())
            assert match or not has_ended, f"ended without {pattern}:\n{self.text()}"
            return match

        return eventually(match, f"{pattern} in {self.log}", seconds)

    def end(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Send a signal, wait for the end, and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


def handles(pid: int, number: int) -> bool:
    """Whether the process has a handler for this signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = re.findall(r"^SigCgt:\s*(\w+)", status, re.MULTILINE)
    return bool(int(mask, 16) >> (number - 1) & 1)


def module(name: str, *arguments: str) -> list[str]:
    """The command for `python -m name`."""
    return [sys.executable, "-m", name, *arguments]
