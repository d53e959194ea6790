"""The public names are typed: a checker takes what is right and finds what is wrong in a user's code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKERS = {
    "mypy": ["-m", "mypy", "--strict", "--config-file", os.devnull, "--no-error-summary"],
    "pyright": ["-m", "basedpyright", "--level", "error", "--pythonpath", sys.executable, "--project"],
}


def objections(checker: str, file: str, tmp_path: Path) -> set[int]:
    """The lines of this file to which the checker objects, outside of this project's own settings."""
    (tmp_path / file).write_text((HERE / file).read_text())
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    command = [sys.executable, *CHECKERS[checker]]
    if checker == "pyright":
        command.append(str(tmp_path / "pyrightconfig.json"))
    command.append(str(tmp_path / file))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return {int(line) for line in re.findall(rf"{file}:(\d+)\b.*error", done.stdout)}


@pytest.mark.parametrize("checker", CHECKERS)
def test_what_is_right_is_taken(checker: str, tmp_path: Path) -> None:
    assert objections(checker, "service.py", tmp_path) == set()


@pytest.mark.parametrize("checker", CHECKERS)
def test_what_is_wrong_is_found(checker: str, tmp_path: Path) -> None:
    lines = (HERE / "mistakes.py").read_text().splitlines()

    assert objections(checker, "mistakes.py", tmp_path) == {
        number for number, line in enumerate(lines, 1) if line.endswith("# wrong")
    }
