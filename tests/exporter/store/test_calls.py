"""Every call to the system may be the last one, or fail: no count is lost, nothing stays behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.calls import FAULTS, KILL, SCENARIOS, run, trial


@pytest.fixture
def scratch() -> Iterator[Path]:
    if shutil.which("strace") is None:
        pytest.skip("SKIPPED: calls do not go wrong here, because strace is missing: apt install strace")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        yield Path(path)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_rename_that_goes_wrong_costs_no_count(fault: str, scratch: Path) -> None:
    """The first one of a fold, and the one that would put the archive in place."""
    for number in (1, 3):
        _, reached = trial("fold", scratch, f"renameat:{fault}:when={number}")
        assert reached or (fault != KILL and number > 1)


@pytest.mark.soak
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_call_goes_wrong_once(scenario: str, scratch: Path) -> None:
    """The process is killed at it, or it fails with ENOSPC, EIO, EINTR or EMFILE."""
    tried = run(scenario, scratch)
    print(f"{scenario}: {tried} calls went wrong")

    assert tried > 100
