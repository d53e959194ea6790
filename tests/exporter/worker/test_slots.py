"""One-second slots of the last minute, over all processes, in memory or in files."""

from __future__ import annotations

import errno
import os
import struct
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter import guard
from exporter.worker.extremes import Extremes
from exporter.worker.slots import SLOT, WINDOW, Slots, _walk
from tests.rig.descriptors import open_below
from tests.rig.wsgi import Raises


def write(slots: Slots, group: str, second: int, low: float, high: float, some: int, wrong: int = 0) -> None:
    """What a recorder writes for a second."""
    start = slots.entry(group) + SLOT * (second % WINDOW)
    slots.view[start : start + SLOT] = array("d", [second, low, high, some, wrong])


@pytest.fixture(params=["memory", "files"])
def slots(request: pytest.FixtureRequest, tmp_path: Path) -> Slots:
    return Slots(None if request.param == "memory" else str(tmp_path))


def test_totals_and_extremes_are_those_of_the_last_sixty_seconds(slots: Slots) -> None:
    write(slots, "/a", 940, 0.1, 9.0, 100, 100)
    write(slots, "/a", 941, 0.2, 0.5, 3, 1)
    write(slots, "/a", 1000, 0.3, 0.4, 2)
    write(slots, "/b", 970, 0.01, 0.02, 5, 5)
    write(slots, "/c", 900, 0.01, 0.02, 5, 5)

    assert slots.totals(1000.9) == (10, 6)
    assert slots.extremes(1000.9) == {"/a": (0.2, 0.5), "/b": (0.01, 0.02)}
    assert slots.totals(1001.0) == (7, 5)
    assert slots.extremes(1060.0) == {}


def test_the_extremes_are_two_families(slots: Slots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 1000.5)
    write(slots, "/a", 990, 0.2, 0.5, 3)
    write(slots, "/b", 1000, 0.01, 0.02, 1)

    families = Extremes(lambda: slots, "duration", "url_rule").collect()
    assert {
        family.name: [(sample.labels, sample.value) for sample in family.samples] for family in families
    } == {
        "duration_min_seconds": [({"url_rule": "/a"}, 0.2), ({"url_rule": "/b"}, 0.01)],
        "duration_max_seconds": [({"url_rule": "/a"}, 0.5), ({"url_rule": "/b"}, 0.02)],
    }


def test_a_slot_of_the_future_is_not_of_the_last_minute(slots: Slots) -> None:
    """The machine was started anew, and the file is on a disk."""
    write(slots, "/a", 50_000, 0.1, 0.2, 7)

    assert slots.totals(1000.0) == (0, 0)


def test_a_group_has_one_place_however_many_there_are(slots: Slots) -> None:
    """The memory grows by doubling; what was written before is still there."""
    names = [f"/{number}" + "é" * (number % 9) for number in range(300)]
    for number, name in enumerate(names):
        write(slots, name, 1000, number, number + 0.5, 1)

    assert [slots.entry(name) for name in names] == [slots.entry(name) for name in names]
    assert slots.extremes(1000.0) == {name: (number, number + 0.5) for number, name in enumerate(names)}
    assert slots.totals(1000.0) == (300, 0)


@pytest.mark.parametrize("name", ["", "/", "x" * 10_000, "/\udcff", "/ü/<path:p>"])
def test_any_name_can_be_a_group(name: str, slots: Slots) -> None:
    write(slots, name, 1000, 0.25, 0.5, 1)

    assert slots.extremes(1000.0) == {name: (0.25, 0.5)}


def test_workers_see_each_other(tmp_path: Path) -> None:
    first, second = Slots(str(tmp_path)), Slots(str(tmp_path))
    write(first, "/a", 1000, 0.2, 0.5, 3, 1)
    write(second, "/a", 1001, 0.1, 0.4, 2)

    for one in (first, second):
        assert one.totals(1001.0) == (5, 1)
        assert one.extremes(1001.0) == {"/a": (0.1, 0.5)}
    assert sorted(os.listdir(tmp_path)) == ["slots_0.ring", "slots_1.ring"]


def test_the_next_worker_inherits_the_file_of_a_dead_one_with_its_last_minute(tmp_path: Path) -> None:
    first, now = Slots(str(tmp_path)), int(time.monotonic())
    write(first, "/a", now, 0.2, 0.5, 3, 1)
    write(first, "/older", now - 70, 0.2, 0.5, 3, 1)
    first.close()

    heir = Slots(str(tmp_path))
    assert heir.entry("/a") == first.entry("/a")
    write(heir, "/a", now + 1, 0.1, 0.1, 1)
    write(heir, "/b", now + 1, 0.3, 0.3, 1)

    assert os.listdir(tmp_path) == ["slots_0.ring"]
    assert heir.totals(now + 1) == (5, 1)
    assert heir.extremes(now + 1) == {"/a": (0.1, 0.5), "/b": (0.3, 0.3)}
    assert heir.extremes(now - 70) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 8,
        b"garbage",
        b"\xff" * 64,
        struct.pack("qq", 1 << 40, 5),
        struct.pack("qq", 24, -1) + b"x" * 8,
    ],
)
def test_a_file_that_is_garbage_costs_its_own_slots_only(content: bytes, tmp_path: Path) -> None:
    good = Slots(str(tmp_path))
    write(good, "/a", 1000, 0.2, 0.5, 3)
    (tmp_path / "slots_7.ring").write_bytes(content)

    assert good.totals(1000.0) == (3, 0)


@pytest.mark.parametrize(
    "content",
    [
        b"garbage",
        b"\xff" * 64,
        b"\x40" + b"\x00" * 7 + b"\xff" * 200,
        struct.pack("qq10d", 96, 0, *[5.0] * 10),  # an entry that ends within its slots
    ],
)
def test_a_worker_that_inherits_garbage_begins_anew(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "slots_0.ring").write_bytes(content)

    slots = Slots(str(tmp_path))
    write(slots, "/a", 1000, 0.2, 0.5, 3)

    assert slots.totals(1000.0) == (3, 0)
    assert [name for name, _ in _walk((tmp_path / "slots_0.ring").read_bytes()[: slots._end])] == ["/a"]


def test_where_no_file_can_be_had_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Slots(str(tmp_path / "missing"))


@pytest.mark.parametrize("seen", [False, True])
def test_groups_that_clients_make_up_do_not_outlive_their_workers(seen: bool, tmp_path: Path) -> None:
    """30 workers in a row, each with 1,000 groups of its own, have the room that two of them need."""
    for generation in range(30):
        slots = Slots(str(tmp_path))
        for number in range(1000):
            name = f"/made-up/{generation}/{number}"
            if seen:
                write(slots, name, generation, 0.1, 0.2, 1)
            else:
                slots.entry(name)
        slots.close()

    assert os.path.getsize(tmp_path / "slots_0.ring") <= 8 << 20
    heir = Slots(str(tmp_path))
    assert heir.totals(29.0) == ((1000, 0) if seen else (0, 0))
    assert (os.path.getsize(tmp_path / "slots_0.ring") > 1 << 20) is seen


def test_of_too_many_groups_the_latest_are_inherited(tmp_path: Path) -> None:
    """Whatever their order in the file."""
    first = Slots(str(tmp_path))
    for number in range(1, 1101):
        write(first, f"/{number}", 30 if number <= 100 else 20, 0.1, 0.2, 1)
    first.close()

    heir = Slots(str(tmp_path))
    assert heir.totals(30.0) == (1000, 0)
    assert {f"/{number}" for number in range(1, 101)} < heir.extremes(30.0).keys()


def test_it_grows_to_the_most_that_is_read_of_a_file(slots: Slots, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in it by then stays."""
    monkeypatch.setattr(guard, "LIMIT", 1 << 17)
    fitting = ((1 << 17) - 8) // (8 + 8 + 2400)
    for number in range(fitting):
        write(slots, f"/{number}", 1000, 0.1, 0.2, 1)
    with pytest.raises(OSError, match="File too large"):
        slots.entry("/one more")

    assert slots.totals(1000.0) == (fitting, 0)


def test_a_group_of_before_the_last_restart_of_the_machine_is_forgotten(tmp_path: Path) -> None:
    """Its seconds lie in the future, and must not pass for the latest."""
    first = Slots(str(tmp_path))
    write(first, "/old", int(time.monotonic()) + 50_000, 0.1, 0.2, 7)
    write(first, "/new", int(time.monotonic()), 0.1, 0.2, 1)
    first.close()

    heir = Slots(str(tmp_path))
    assert heir.extremes(time.monotonic()) == {"/new": (0.1, 0.2)}
    assert "/old" not in heir._entries


def pipe(path: Path) -> None:
    os.mkfifo(path)


def terabyte(path: Path) -> None:
    with open(path, "wb") as file:
        file.write(struct.pack("q", 1 << 39))
        file.truncate(1 << 40)


@pytest.mark.parametrize("make", [pipe, terabyte, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_ring_of_ours_costs_nobody_anything(make: Callable[[Path], None], tmp_path: Path) -> None:
    """Neither those who read it, nor a worker that would have had its number."""
    make(tmp_path / "slots_0.ring")
    first = Slots(str(tmp_path))
    write(first, "/a", 1000, 0.2, 0.5, 3)
    second = Slots(str(tmp_path))

    assert second.totals(1000.0) == (3, 0)


def test_slots_move_into_a_directory_with_all_places(tmp_path: Path) -> None:
    """As soon as there is room, or where their file was removed."""
    slots = Slots(None)
    write(slots, "/a", 1000, 0.2, 0.5, 3)
    place = slots.entry("/a")
    assert not slots.is_shared

    for _ in range(2):
        slots.move(str(tmp_path))
        (tmp_path / "slots_0.ring").unlink()
    slots.move(str(tmp_path))

    assert slots.is_shared
    assert slots.entry("/a") == place
    assert Slots(str(tmp_path)).totals(1000.0) == (3, 0)


def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = Slots(None)
    write(slots, "/a", 1000, 0.2, 0.5, 3)
    monkeypatch.setattr("exporter.posix.reserve", Raises(OSError(errno.ENOSPC, "No space left on device")))

    with pytest.raises(OSError, match="No space left"):
        slots.move(str(tmp_path))

    assert (slots.totals(1000.0), open_below(tmp_path)) == ((3, 0), [])


def test_slots_that_are_closed_twice_close_no_file_of_others(tmp_path: Path) -> None:
    slots = Slots(str(tmp_path))
    slots.close()
    others = [os.dup(0) for _ in range(10)]
    slots.close()

    for other in others:
        os.close(other)  # raises where it is closed already


def test_slots_cost_two_descriptors(tmp_path: Path) -> None:
    """Their own, and that which their memory keeps; also when they have moved and read."""
    slots = Slots(str(tmp_path))
    for _ in range(5):
        slots.move(str(tmp_path))
        slots.totals(1000.0)

    assert len(open_below(tmp_path)) == 2
    slots.close()
    assert open_below(tmp_path) == []
