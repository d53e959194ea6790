"""A crash leaves the stacks of all threads beside the worker's ring, and nothing of an earlier one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from exporter.worker import crash

PROGRAM = """
import faulthandler, os, resource, signal, sys, threading
from exporter.worker import crash

def wait(inside):
    inside.set()
    threading.Event().wait()

inside = threading.Event()
threading.Thread(target=wait, args=(inside,), daemon=True).start()
inside.wait()
if sys.argv[2] == "own":
    faulthandler.enable()
for number in sys.argv[3:]:
    crash.watch(sys.argv[1], int(number))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
os.kill(os.getpid(), signal.SIGABRT)
"""


def crashed(directory: Path, *arguments: str) -> str:
    """Let a process crash that watches these rings one after another, and return its standard error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(directory), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGABRT
    return done.stderr


@pytest.mark.parametrize("numbers", [["0"], ["0", "1"]], ids=["first ring", "second ring"])
def test_the_stacks_of_all_threads_stand_beside_the_ring(numbers: list[str], tmp_path: Path) -> None:
    """That of its latest ring, and without the words of the ring's former owner."""
    for number in numbers:
        (tmp_path / f"stack_{number}.ring").write_text("the former owner\n")
    assert crashed(tmp_path, "ours", *numbers) == ""

    *others, last = (crash.lines(str(tmp_path), int(number)) for number in numbers)
    assert others == [[]] * (len(numbers) - 1)
    assert last[0] == "Fatal Python error: Aborted"
    assert {line.rpartition(" in ")[2] for line in last} >= {"wait", "<module>"}


def test_an_application_that_watches_for_crashes_itself_keeps_what_it_has(tmp_path: Path) -> None:
    assert "Fatal Python error: Aborted" in crashed(tmp_path, "own", "0")

    assert crash.lines(str(tmp_path), 0) == []
