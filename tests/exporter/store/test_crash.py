"""Workers and compactors that are killed at any moment lose no count, double none, and make none fall."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def crash(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.rig.crash", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)
    return done.stdout


def test_a_compactor_may_die_before_any_of_its_steps(tmp_path: Path) -> None:
    """Killed before each of its calls to the system, it leaves what the next one gets right."""
    assert crash("steps", str(tmp_path)).startswith("killed before each of ")


def test_workers_and_compactors_may_die_at_any_time(tmp_path: Path) -> None:
    """15 rounds of four workers and two compactors that are killed while a reader looks on."""
    assert "15 rounds, 60 workers and 30 compactors killed" in crash("rounds", str(tmp_path), "15")


@pytest.mark.soak
def test_workers_and_compactors_may_die_at_any_time_1000_times(tmp_path: Path) -> None:
    """The same in 1,000 rounds."""
    assert "1000 rounds, 4000 workers and 2000 compactors killed" in crash("rounds", str(tmp_path), "1000")
