"""A terminal as a reader of the pages has it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.rig.deadline import eventually
from tests.rig.network import status


@contextmanager
def started(
    command: str, directory: Path, environ: Mapping[str, str], output: str = "output"
) -> Iterator[Path]:
    """A command in a terminal of its own, ended with Ctrl-C; yields the file with its output."""
    path = directory / output
    # A shell that runs the tests in the background lets them ignore the signal.
    shell = ["env", "--default-signal=INT", "bash", "-euo", "pipefail", "-c", command]
    with (
        path.open("wb") as file,
        subprocess.Popen(
            shell, cwd=directory, env=environ, stdout=file, stderr=file, start_new_session=True
        ) as process,
    ):
        try:
            yield path
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                # A signal that meets gunicorn's threaded worker as it starts a thread blocks that worker (in
                # ThreadPoolExecutor.shutdown) until graceful_timeout, 30 s. uWSGI kills a worker that has not
                # heard it after 60 s.
                process.wait(75)
                eventually(lambda: not _running(process.pid), f"Ctrl-C ends {command}", 10)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


def _running(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def environment(**variables: str) -> dict[str, str]:
    """A user's environment: no settings but these, and the programs of the virtual environment."""
    ours = re.compile(r"(EXPORTER|APP|ALERT|TRAFFIC)_|PROMETHEUS_MULTIPROC_DIR|MAKEFLAGS|MAKELEVEL|MFLAGS")
    inherited = {name: value for name, value in os.environ.items() if not ours.match(name)}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**inherited, "PATH": path, "EXPORTER_DRAIN": "0", "PYTHONUNBUFFERED": "1", **variables}


def local(text: str, ports: Mapping[str, int], directory: Path) -> str:
    """Text of a page with other ports, and another directory than /dev/shm/shop."""
    for port, other in ports.items():
        text = re.sub(rf"\b{port}\b", str(other), text)
    return text.replace("/dev/shm/shop", str(directory / "workers"))


def await_200(url: str, seconds: float, output: Path) -> None:
    """Wait for an answer; AssertionError with the end of the output where there is none in time."""
    try:
        eventually(lambda: status(url) == 200, f"{url} answers 200", seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{output.read_text()[-5000:]}") from None
