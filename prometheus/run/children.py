"""Child processes of a run: each has a log file, and all are watched and stopped together."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from prometheus.run.record import Record

LAST_LINES = 12

POLL = 0.1  # seconds


class ChildError(Exception):
    """A child ended or never answered; the message names it, and ends with its last log lines."""


# A proxy from the environment leads to the outside world, not to this machine's own ports.
_local = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(url: str) -> bytes:
    """Return the body of a local URL; raise OSError unless it answers 200 within 5 seconds."""
    with _local.open(url, timeout=5) as answer:
        body: bytes = answer.read()
    return body


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the stack; `health` is the URL that answers 200 once it is ready."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str] = field(default_factory=dict)
    health: str | None = None


@dataclass(slots=True)
class Children:
    """The processes of one run. Every wait ends at once when `is_over` returns true."""

    logs: Path
    directory: Path
    is_over: Callable[[], bool]
    scratch: Sequence[Path] = ()
    """Directories that are removed at the end of the run."""
    _keeper: "subprocess.Popen[bytes] | None" = None
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, part: Part) -> None:
        """Start a part in its own session: Ctrl-C reaches the run alone, which stops the parts in order."""
        if self._keeper is None:
            paths = map(str, (self._record.path, *self.scratch))
            command = (sys.executable, "-m", "prometheus.run.record", *paths)
            self._keeper = subprocess.Popen(
                command, cwd=self.directory, stdin=subprocess.PIPE, start_new_session=True
            )
        with (self.logs / f"{part.name}.log").open("wb") as log:
            self._processes[part.name] = subprocess.Popen(
                part.command,
                cwd=self.directory,
                env={**os.environ, **part.environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._record.add(part.name, self.process(part.name))

    @property
    def _record(self) -> Record:
        return Record.of(self.logs.parent)

    def process(self, name: str) -> int:
        """The process id of a child."""
        return self._processes[name].pid

    def end(self, name: str, seconds: float = 25.0) -> None:
        """Stop one child, by force after `seconds`, and forget it."""
        process = self._processes.pop(name)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def check(self) -> None:
        """Raise ChildError if a child has ended."""
        for name, process in self._processes.items():
            status = process.poll()
            if status is not None:
                how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
                raise ChildError(f"{name} {how}; {self.last_lines(name)}")

    def wait(self, condition: Callable[[], str | None], seconds: float) -> bool:
        """Wait until `condition` returns no complaint; return False if the run is stopped first.

        Raises:
            ChildError: a child ended, or `seconds` have passed; then the message is the last complaint.
        """
        deadline = time.monotonic() + seconds
        while not self.is_over():
            self.check()
            complaint = condition()
            if complaint is None:
                return True
            if time.monotonic() > deadline:
                raise ChildError(f"after {seconds:g} s {complaint}")
            time.sleep(POLL)
        return False

    def watch(self) -> None:
        """Return when the run is stopped; raise ChildError if a child ends first."""
        while not self.is_over():
            self.check()
            time.sleep(POLL)

    def healthy(self, parts: Sequence[Part]) -> Callable[[], str | None]:
        """Return a condition for `wait`: every part answers its health check."""
        queue = [part for part in parts if part.health]

        def condition() -> str | None:
            while queue:
                part = queue[0]
                try:
                    ask(str(part.health))
                except OSError as error:
                    return (
                        f"{part.name} does not answer {part.health} ({error}); {self.last_lines(part.name)}"
                    )
                queue.pop(0)
            return None

        return condition

    def last_lines(self, name: str) -> str:
        """Return the last lines of a part's log, for a message."""
        log = self.logs / f"{name}.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        return "\n".join([f"the end of {log}:", *(f"  {line}" for line in lines)])

    def stop(self, seconds: float = 25.0) -> None:
        """Stop all children, the newest first, by force after `seconds`."""
        for process in reversed(self._processes.values()):
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + seconds
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            # A child that ended may have left children of its own behind; they are in its group.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()
        self._record.clear()
        for directory in self.scratch:
            shutil.rmtree(directory, ignore_errors=True)
        if self._keeper is not None:
            self._keeper.communicate()  # it finds nothing to stop
            self._keeper = None
