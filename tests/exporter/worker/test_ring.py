"""Rings: who holds one."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import pytest

from exporter import guard
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


def test_a_process_is_asked_whether_it_lives_and_told_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, descriptor = ring.claim(tmp_path, "requests")
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: signals.append((pid, number)))

    assert ring.is_held(descriptor, 7)
    assert signals == [(7, 0)]
    os.close(descriptor)


def test_a_ring_whose_process_has_ended_is_free_after_the_question(tmp_path: Path) -> None:
    _, descriptor = ring.claim(tmp_path, "requests")
    os.close(descriptor)

    for _, other in ring.descriptors(tmp_path, "requests"):
        assert not ring.is_held(other, sys.maxsize)
        number, descriptor = ring.claim(tmp_path, "requests")
        assert number == 0
        os.close(descriptor)
    assert open_below(tmp_path) == []


def test_a_directory_that_takes_no_ring_is_an_error() -> None:
    """Unlike a name that is taken by something else, which costs this name."""
    with pytest.raises(FileNotFoundError, match="requests_0"):
        ring.claim("/proc", "requests")


def test_a_ring_that_cannot_be_judged_stays_open_nowhere(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Input/output error"):
        ring.claim(tmp_path, "requests", Raises(OSError(5, "Input/output error")))

    assert open_below(tmp_path) == []


def test_a_worker_that_passes_others_by_keeps_none_of_their_rings_open(tmp_path: Path) -> None:
    claimed = [ring.claim(tmp_path, "requests") for _ in range(3)]
    assert [number for number, _ in claimed] == [0, 1, 2]
    assert len(open_below(tmp_path)) == 3

    for _, descriptor in claimed:
        os.close(descriptor)


def test_where_all_names_are_taken_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "regular", Raises(IsADirectoryError(21, "Is a directory")))

    with pytest.raises(OSError, match="10000 rings are in use"):
        ring.claim(tmp_path, "requests")
    assert open_below(tmp_path) == []


@pytest.mark.parametrize("successor", [False, True])
def test_the_memory_of_a_ring_that_was_removed_is_an_error(successor: bool, tmp_path: Path) -> None:
    """Also where another process has made one of that name meanwhile: that one is not written."""
    path = tmp_path / "requests_0.ring"
    number, descriptor = ring.claim(tmp_path, "requests")
    os.truncate(path, mmap.PAGESIZE)
    with ring.memory(tmp_path, "requests", number, descriptor, mmap.PAGESIZE) as memory:
        memory[:4] = b"ours"
    assert path.read_bytes()[:4] == b"ours"

    path.unlink()
    if successor:
        path.write_bytes(bytes(mmap.PAGESIZE))
    with pytest.raises(FileNotFoundError, match=r"requests_0\.ring"):
        ring.memory(tmp_path, "requests", number, descriptor, mmap.PAGESIZE)
    os.close(descriptor)
    assert open_below(tmp_path) == []


def test_what_is_too_large_is_left_out(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"errors_{number}.groups").write_bytes(b"x" * (99 + number))

    assert [len(content) for content in ring.contents(tmp_path, "errors", 100, suffix="groups")] == [99, 100]
