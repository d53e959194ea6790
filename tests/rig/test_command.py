"""A command of `make` ends with Ctrl-C, and says nothing of it."""

import os
import signal
import sys
from pathlib import Path

import pytest

from tests.rig.places import ROOT
from tests.rig.program import Program

ENDS = {
    "signal.pause()": (130, "begins with ['word']\n"),
    "sys.exit(3)": (3, "begins with ['word']\n"),
    "sys.exit('wrong')": (1, "begins with ['word']\nwrong\n"),
    "": (0, "begins with ['word']\n"),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_command_ends(tmp_path: Path, end: str) -> None:
    """With its own status, or that of an interrupted one."""
    module = f"""
import signal
import sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background has it ignored
print('begins with', sys.argv[1:], flush=True)
{end}
"""
    (tmp_path / "task.py").write_text(module)
    command = [sys.executable, "-m", "tests.rig.command", "task", "word"]
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    with Program(command, tmp_path / "log", environ) as program:
        program.await_text("begins with")
        if "pause" in end:
            program.process.send_signal(signal.SIGINT)
        status = program.process.wait(60)

        assert (status, program.text()) == ENDS[end]
