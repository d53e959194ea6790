"""Child processes: started with a log file each, watched together, stopped together."""

import contextlib
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LAST_LINES = 12

POLL = 0.1  # seconds


class ChildError(Exception):
    """A child ended or did not come up; the message says which, and ends with its last log lines."""


# A proxy that the environment names is for the world outside.
_local = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(url: str) -> bytes:
    """Body of a local URL; OSError unless it answers 200 within 5 seconds."""
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
    """The processes of one run. `stopping` is asked while waiting, so that a signal is obeyed at once."""

    logs: Path
    directory: Path
    stopping: Callable[[], bool]
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, part: Part) -> None:
        """Start a part in a session of its own: Ctrl-C reaches us alone, and we end it in order."""
        with (self.logs / f"{part.name}.log").open("wb") as log:
            self._running[part.name] = subprocess.Popen(
                part.command,
                cwd=self.directory,
                env={**os.environ, **part.environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def process(self, name: str) -> int:
        """Process id of a running child."""
        return self._running[name].pid

    def end(self, name: str, seconds: float = 25.0) -> None:
        """Ask one child to end, kill it if it does not in time, and watch it no more."""
        process = self._running.pop(name)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def check(self) -> None:
        """Raise ChildError if a child has ended."""
        for name, process in self._running.items():
            status = process.poll()
            if status is not None:
                how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
                raise ChildError(f"{name} {how}; {self.last_lines(name)}")

    def wait(self, condition: Callable[[], str | None], seconds: float) -> bool:
        """Wait until `condition` has nothing to complain about any more; False if asked to stop meanwhile.

        Raises:
            ChildError: a child ended, or the time is up; the message is the last complaint.
        """
        deadline = time.monotonic() + seconds
        while not self.stopping():
            self.check()
            complaint = condition()
            if complaint is None:
                return True
            if time.monotonic() > deadline:
                raise ChildError(f"after {seconds:g} s {complaint}")
            time.sleep(POLL)
        return False

    def watch(self) -> None:
        """Stay until asked to stop; raise ChildError if a child ends."""
        while not self.stopping():
            self.check()
            time.sleep(POLL)

    def healthy(self, parts: Sequence[Part]) -> Callable[[], str | None]:
        """A condition for `wait`: every part answers its health check."""
        waiting = [part for part in parts if part.health]

        def condition() -> str | None:
            while waiting:
                part = waiting[0]
                try:
                    ask(str(part.health))
                except OSError as error:
                    return (
                        f"{part.name} does not answer {part.health} ({error}); {self.last_lines(part.name)}"
                    )
                waiting.pop(0)
            return None

        return condition

    def last_lines(self, name: str) -> str:
        """The end of a part's log, for a message."""
        log = self.logs / f"{name}.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:]
        return "\n".join([f"the end of {log}:", *(f"  {line}" for line in lines)])

    def stop(self, seconds: float = 25.0) -> None:
        """Ask all to end, the last started first; kill with their own children those that do not in time."""
        for process in reversed(self._running.values()):
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + seconds
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
            # Also where the leader ended by itself: what it left behind is in its group.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._running.clear()
