"""Rings: who holds one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from exporter.worker import ring
from tests.rig.descriptors import open_below
from tests.rig.wsgi import Raises


@pytest.mark.parametrize(
    ("error", "holds"), [(PermissionError(), True), (ProcessLookupError(), False)], ids=["stranger", "dead"]
)
def test_a_process_that_may_not_be_asked_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, holds: bool
) -> None:
    """That of another user."""
    _, descriptor = ring.claim(tmp_path, "requests")
    os.close(descriptor)
    monkeypatch.setattr(os, "kill", Raises(error))

    assert [ring.is_held(other, 7) for _, other in ring.descriptors(tmp_path, "requests")] == [holds]


def test_a_ring_whose_process_has_ended_is_free_after_the_question(tmp_path: Path) -> None:
    _, descriptor = ring.claim(tmp_path, "requests")
    os.close(descriptor)

    for _, other in ring.descriptors(tmp_path, "requests"):
        assert not ring.is_held(other, sys.maxsize)
        number, descriptor = ring.claim(tmp_path, "requests")
        assert number == 0
        os.close(descriptor)


def test_a_directory_that_takes_no_ring_is_an_error() -> None:
    """Unlike a name that is taken by something else, which costs this name."""
    with pytest.raises(FileNotFoundError, match="requests_0"):
        ring.claim("/proc", "requests")


def test_a_ring_that_cannot_be_judged_stays_open_nowhere(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        ring.claim(tmp_path, "requests", Raises(OSError(5, "Input/output error")))

    assert open_below(tmp_path) == []
