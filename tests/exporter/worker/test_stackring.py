"""The stacks that a worker lets others read: which are kept, and what is no stack of anybody's."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from exporter.worker import stackring
from exporter.worker.stackring import RECORDS, Sample, StackRing, read_stacks
from exporter.worker.stacks import calls
from tests.rig.descriptors import open_below
from tests.rig.users import as_child

PID = os.getpid()


def shown(directory: Path) -> dict[float, Sample]:
    """The stacks of this process by the start of the request."""
    stacks = read_stacks(str(directory))
    return {start: sample for (pid, start), sample in stacks.items() if pid == PID}


def keep(ring: StackRing, started: float, lines: list[str], now: float) -> None:
    """As the sampler does."""
    if ring.is_due(started, now):
        ring.write(started, lines, now)


def test_the_last_stack_of_each_request_is_kept(tmp_path: Path) -> None:
    ring = StackRing(str(tmp_path))
    keep(ring, 1.5, ["a:view:1", "b:call:2"], 10.0)
    keep(ring, 2.5, ["ä:view:3"], 10.0)
    keep(ring, 1.5, ["a:view:4"], 10.5)
    keep(ring, 1.5, ["a:view:5"], 10.9)
    keep(ring, 2.5, ["a:view:5"], 10.4)

    assert shown(tmp_path) == {1.5: (10.5, ["a:view:4"]), 2.5: (10.0, ["ä:view:3"])}


def test_a_request_that_is_over_gives_its_place_up(tmp_path: Path) -> None:
    """Where nobody does, those that came later have none."""
    ring = StackRing(str(tmp_path))
    for number in range(RECORDS + 1):
        keep(ring, float(number), [f"view:{number}"], 1.0)
    assert set(shown(tmp_path)) == set(map(float, range(RECORDS)))

    ring.free({float(number) for number in range(RECORDS + 1) if number != 7})
    keep(ring, float(RECORDS), ["late"], 2.0)
    keep(ring, 0.0, ["again"], 2.0)
    expected = {*map(float, range(RECORDS + 1))} - {7.0}
    assert set(shown(tmp_path)) == expected
    assert shown(tmp_path)[0.0] == (2.0, ["again"])
    assert (tmp_path / "samples_0.ring").stat().st_size <= 64 + RECORDS * 4096


def test_of_a_deep_stack_the_innermost_calls_are_kept(tmp_path: Path) -> None:
    def deeper(depth: int) -> list[str]:
        return deeper(depth - 1) if depth else calls(sys._getframe())

    ring = StackRing(str(tmp_path))
    whole = deeper(90)
    keep(ring, 1.0, whole, 1.0)

    ((_, lines),) = shown(tmp_path).values()
    assert 20 < len(lines) < len(whole)
    assert lines == whole[-len(lines) :]


def test_a_stack_that_just_fits_is_kept_whole(tmp_path: Path) -> None:
    """And with one byte more without its outermost call."""
    ring = StackRing(str(tmp_path))
    inner = ["view:1"] * 10
    room = 4096 - 24 - len("\n".join(["", *inner]))
    whole = ["x" * room, *inner]
    keep(ring, 1.0, whole, 1.0)
    assert shown(tmp_path) == {1.0: (1.0, whole)}

    keep(ring, 2.0, ["x" + whole[0], *inner], 1.0)
    assert shown(tmp_path) == {1.0: (1.0, whole), 2.0: (1.0, inner)}


def test_each_process_has_a_ring_of_its_own(tmp_path: Path) -> None:
    """The forked one leaves its parent's alone, and does not keep it for itself."""
    ring = StackRing(str(tmp_path))
    keep(ring, 1.0, ["parent"], 1.0)

    def child() -> None:
        assert open_below(tmp_path) == []
        keep(ring, 1.0, ["child"], 2.0)
        stacks = read_stacks(str(tmp_path))
        assert stacks[PID, 1.0].lines == ["parent"]
        assert stacks[os.getpid(), 1.0].lines == ["child"]

    as_child(child)
    assert sorted(os.listdir(tmp_path)) == ["samples_0.ring", "samples_1.ring"]
    assert shown(tmp_path) == {1.0: (1.0, ["parent"])}


def test_the_next_worker_shows_no_stack_of_the_one_whose_ring_it_has(tmp_path: Path) -> None:
    ring = StackRing(str(tmp_path))

    def end() -> None:
        for started in (1.0, 2.0):
            keep(ring, started, ["former"], 1.0)

    as_child(end)
    keep(ring, 3.0, ["view"], 1.0)

    assert os.listdir(tmp_path) == ["samples_0.ring"]
    assert shown(tmp_path) == {3.0: (1.0, ["view"])}


def test_without_a_directory_nobody_else_reads_any() -> None:
    keep(StackRing(None), 1.0, ["view"], 1.0)

    assert read_stacks(None) == {}


def test_a_directory_that_is_gone_is_told_once_a_second(tmp_path: Path) -> None:
    ring = StackRing(str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError):
        keep(ring, 1.0, ["view"], 10.0)
    keep(ring, 1.0, ["view"], 10.9)
    (tmp_path / "gone").mkdir(mode=0o700)
    keep(ring, 1.0, ["view"], 11.0)

    assert shown(tmp_path / "gone") == {1.0: (11.0, ["view"])}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda data: data[:50],
        lambda data: b"x" + data[1:],
        lambda data: data[:-1],
        lambda data: data[:-1] + b"x",
        lambda data: data[:68] + b"\xff\xff\xff\xff" + data[72:],
        lambda data: os.urandom(len(data)),
    ],
)
def test_what_is_no_whole_record_of_ours_is_not_shown(spoil: Any, tmp_path: Path) -> None:
    ring = StackRing(str(tmp_path))
    keep(ring, 1.0, ["view:1"], 1.0)
    file = tmp_path / "samples_0.ring"
    file.write_bytes(spoil(file.read_bytes()))
    (tmp_path / "samples_7.ring").mkdir()

    assert read_stacks(str(tmp_path)) == {}
    assert read_stacks(str(tmp_path / "nowhere")) == {}


@pytest.mark.parametrize("length", [4096 - 24 + 1, 4096 + 24])
def test_a_record_that_is_longer_than_its_place_is_not_shown(length: int, tmp_path: Path) -> None:
    """Whoever has written it knows the checksum."""
    keep(StackRing(str(tmp_path)), 1.0, ["view:1"], 1.0)
    body = struct.pack("<Idd", length, 2.0, 1.0) + b"x" * length
    with (tmp_path / "samples_0.ring").open("r+b") as file:
        file.seek(64)
        file.write(zlib.crc32(body).to_bytes(4, "little") + body)

    assert shown(tmp_path) == {}


def test_a_record_of_nothing_is_not_shown(tmp_path: Path) -> None:
    """The places that nobody has used yet are zeros."""
    ring = StackRing(str(tmp_path))
    for number in range(3):
        keep(ring, float(number), ["view"], 1.0)
    file = tmp_path / "samples_0.ring"
    data = file.read_bytes()
    file.write_bytes(data[:64] + bytes(4096) + data[64 + 4096 :])

    assert set(shown(tmp_path)) == {1.0, 2.0}
    assert stackring._LENGTH == 64 + RECORDS * 4096
