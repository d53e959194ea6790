"""`make run`'s own entry as a subprocess, on ports and in a directory of its own."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus.run.plan import PORTS
from tests.rig.network import free_ports, get_json
from tests.rig.places import ROOT

STARTED = "waiting until Prometheus has scraped"
READY = "Ctrl-C stops everything."


def settings(run: Path, **variables: str) -> dict[str, str]:
    """Environment for a run of its own in the directory `run`."""
    ports = dict(zip(PORTS.values(), map(str, free_ports(len(PORTS))), strict=True))
    return {**ports, "RUN_DIR": str(run), **variables}


class Run:
    """A started stack; `output` is its output up to the end of its table."""

    def __init__(self, environ: Mapping[str, str], *arguments: str) -> None:
        self.environ = environ
        self.process = start(environ, *arguments)
        self.output = ""

    def url(self, setting: str, path: str = "") -> str:
        """Address of the part whose port is `setting`."""
        return f"http://127.0.0.1:{self.environ[setting]}{path}"

    def wait_until_up(self, until: str = READY, seconds: float = 90) -> None:
        """Read the output until the table of addresses is complete, or until it has STARTED every part."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while until not in self.output:
            readable, _, _ = select.select(
                [self.process.stdout], [], [], max(0.0, deadline - time.monotonic())
            )
            assert readable, f"not up within {seconds:g} s: {self.output}"
            line = os.read(self.process.stdout.fileno(), 65536).decode()
            assert line, f"ended while starting: {self.output}{self.process.communicate()[1]}"
            self.output += line

    def query(self, promql: str) -> dict[str, float]:
        """Value of each series of an instant query, by its labels as JSON."""
        path = f"/api/v1/query?query={urllib.parse.quote(promql)}"
        result = get_json(self.url("PROMETHEUS_PORT", path))["data"]["result"]
        return {json.dumps(series["metric"], sort_keys=True): float(series["value"][1]) for series in result}

    def processes(self) -> dict[int, str]:
        """Command line of each process of this run but the one that started the others."""
        mark = f"RUN_DIR={self.environ['RUN_DIR']}\0".encode()
        commands = {}
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (directory / "environ").read_bytes() and int(directory.name) != self.process.pid:
                    commands[int(directory.name)] = (directory / "cmdline").read_text().replace("\0", " ")
        return commands

    def gunicorns(self) -> dict[int, int]:
        """The process ids of gunicorn's master and workers, and those of their parents."""
        parents = {}
        for pid, command in self.processes().items():
            with contextlib.suppress(OSError):  # it may have ended since
                if "gunicorn" in command:
                    parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return parents

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Send a signal; return the exit status and the standard error."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=40)
        return self.process.returncode, errors


def start(environ: Mapping[str, str], *arguments: str) -> "subprocess.Popen[str]":
    """Start the run without waiting for anything."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EXPORTER_")}
    return subprocess.Popen(
        [sys.executable, "-m", "prometheus.run", *arguments],
        cwd=ROOT,
        env={**environment, "PYTHONUNBUFFERED": "1", **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def running(environ: Mapping[str, str], *arguments: str) -> Iterator[Run]:
    """A run inside the context; at its end all that it started ends, if need be by force.

    A run that a part has ended before is told with what it says, unless the test has read that.
    """
    run = Run(environ, *arguments)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.end()
        for pid in run.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        output, errors = run.process.stdout, run.process.stderr
        assert output is not None
        assert errors is not None
        complaint = errors.read() if run.process.returncode == 1 and not errors.closed else ""
        output.close()
        errors.close()
        assert not complaint, f"the run has ended by itself: {complaint}"
