"""The record of a run: the processes that it has started, so that they can be ended after the run was killed.

As a program it is the keeper of a run. The kernel closes its standard input at the end of the run, whatever
the cause; the keeper waits for that, and then ends the surviving processes.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

LINUX = Path("/proc/self/stat").exists()

PATIENCE = 10.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True, slots=True)
class Process:
    """A process that leads a session of its own; `start` tells it from a later process with the same id."""

    name: str
    pid: int
    start: str

    @property
    def alive(self) -> bool:
        """Whether the process or one of its children lives."""
        start = _start(self.pid)
        # The id of a living group is never given to another process.
        return start == self.start if start else _has_members(self.pid)


@dataclass(frozen=True, slots=True)
class Record:
    """The file with one line for each process: its id, its start, and its name."""

    path: Path

    @staticmethod
    def of(run: Path) -> "Record":
        """The record in the directory of a run."""
        return Record(run / "processes")

    def add(self, name: str, pid: int) -> None:
        """Add a new process."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{pid}\t{_start(pid)}\t{name}\n")

    def clear(self) -> None:
        """Forget all processes, because they have ended."""
        self.path.unlink(missing_ok=True)

    def alive(self) -> list[Process]:
        """The processes that are still alive."""
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        fields = (line.split("\t") for line in lines if line.count("\t") == 2)
        processes = [Process(name, int(pid), start) for pid, start, name in fields]
        return [process for process in processes if process.alive]

    def end(self) -> list[Process]:
        """End all processes with their children, the newest first, and return those that were alive."""
        survivors = processes = self.alive()
        for process in reversed(processes):
            _kill(process, signal.SIGTERM)
        deadline = time.monotonic() + PATIENCE
        while survivors and time.monotonic() < deadline:
            time.sleep(0.05)
            survivors = [process for process in survivors if process.alive]
        for process in survivors:
            _kill(process, signal.SIGKILL)
        self.clear()
        return processes


def _kill(process: Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _start(pid: int) -> str:
    """The start of a process, in the format of the system; "" for no process or a zombie."""
    if not LINUX:
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    fields = _stat(Path(f"/proc/{pid}"))
    return fields[19] if fields else ""


def _has_members(group: int) -> bool:
    if LINUX:
        stats = map(_stat, Path("/proc").glob("[0-9]*"))
        return any(fields[2] == str(group) for fields in stats if fields)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, 0)
        return True
    return False


def _stat(directory: Path) -> list[str]:
    """The fields of a process from its state on (proc(5)); an empty list if it has ended."""
    try:
        text = (directory / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    fields = text.rpartition(")")[2].split()
    return [] if fields[0] in "ZX" else fields


if __name__ == "__main__":
    sys.stdin.buffer.read()
    Record(Path(sys.argv[1])).end()
    for scratch in sys.argv[2:]:
        shutil.rmtree(scratch, ignore_errors=True)
