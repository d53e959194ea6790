"""Error groups: exact over workers that come and go, within a file and a cap; foreign bytes cost nothing."""

from __future__ import annotations

import os
import signal
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from exporter.observation import Fingerprint
from exporter.worker import errorslots
from exporter.worker.errorgroups import OTHERS, ErrorGroups
from exporter.worker.errorslots import Group
from tests.rig.exchanges import exchange

DAY = 86_400.0


class Wall:
    """Stands in for both clocks, in seconds since the epoch."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_767_225_600.0
        monkeypatch.setattr("exporter.worker.errorgroups.time", lambda: self.now)
        monkeypatch.setattr("exporter.worker.errorgroups.monotonic", lambda: self.now)

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    return Wall(monkeypatch)


def kind(number: int, error_type: str = "ValueError") -> Fingerprint:
    """One bug of many."""
    return Fingerprint(f"{number:012x}", error_type, f"shop.views:view{number}")


def fail(groups: ErrorGroups, number: int, times: int = 1, **fields: Any) -> Fingerprint:
    """Count errors of this bug, and return what the last of them was counted as."""
    for _ in range(times):
        counted = groups.count(exchange(traceback=f"bug {number}\n", **fields), kind(number))
    return counted


def counts(groups: ErrorGroups) -> dict[str, int]:
    return {group.fingerprint.error_group.lstrip("0"): group.count for group in groups.read()}


def test_a_group_tells_how_often_since_when_in_which_version_and_for_whom(wall: Wall) -> None:
    groups = ErrorGroups(version="1.4.2")
    for number in range(6):
        fail(groups, 7, request_id=f"id-{number}")
        wall.advance(1.0)

    start = wall.now - 6
    assert groups.read() == [
        Group(
            kind(7),
            count=6,
            first=start,
            requests=tuple((start + number, f"id-{number}") for number in (5, 4, 3, 2)),
            url_rule="/orders/<int:id>",
            first_version="1.4.2",
            version="1.4.2",
            traceback="bug 7\n",
        )
    ]


def test_groups_of_all_workers_are_one_list_the_latest_first(wall: Wall, tmp_path: Path) -> None:
    one, other = (ErrorGroups(str(tmp_path), version) for version in ("1", "2"))
    fail(one, 1, request_id="a")
    wall.advance(1)
    fail(other, 2, request_id="b")
    wall.advance(1)
    fail(other, 1, 2, request_id="c", rule="/other")
    fail(one, 1, request_id="d")

    first, second = one.read()
    assert one.read() == other.read()
    assert (first.fingerprint, first.count, first.first, first.last) == (kind(1), 4, wall.now - 2, wall.now)
    assert [request_id for _, request_id in first.requests] == ["d", "c", "c", "a"]
    assert (first.url_rule, first.first_version) == ("/orders/<int:id>", "1")
    assert (second.fingerprint, second.count) == (kind(2), 1)


def test_the_version_is_that_of_the_latest_error(wall: Wall, tmp_path: Path) -> None:
    """Also where a worker of another version has taken over the file."""
    old = ErrorGroups(str(tmp_path), "1")
    fail(old, 1)
    old.move()
    wall.advance(1)
    fail(ErrorGroups(str(tmp_path), "2"), 1, 2)

    (group,) = ErrorGroups(str(tmp_path)).read()
    assert (group.count, group.first_version, group.version) == (3, "1", "2")
    assert [path.name for path in tmp_path.iterdir()] == ["errors_0.groups"]


def test_nothing_is_opened_before_the_first_error(tmp_path: Path) -> None:
    groups = ErrorGroups(str(tmp_path))

    assert (groups.read(), list(tmp_path.iterdir())) == ([], [])


def test_a_traceback_is_wanted_once(tmp_path: Path) -> None:
    groups = ErrorGroups(str(tmp_path))

    before = groups.lacks(kind(1))
    fail(groups, 1)
    assert (before, groups.lacks(kind(1)), groups.lacks(kind(2))) == (True, False, True)


def in_child(work: Callable[[], object]) -> int:
    """Run this in a process that is killed at its end, and return its exit status."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    return os.waitpid(child, 0)[1]


def test_killed_workers_and_their_heirs_lose_no_error(tmp_path: Path) -> None:
    """The second worker finds the number of the first one free, the third one is beside a living one."""
    master = ErrorGroups(str(tmp_path))

    for times in (3, 5, 7):
        in_child(lambda times=times: fail(master, 1, times))  # type: ignore[misc]
    fail(master, 1, 11)
    in_child(lambda: (fail(master, 1, 13), fail(master, 2)))

    assert counts(master) == {"1": 39, "2": 1}
    assert len(list(tmp_path.iterdir())) == 2


def test_threads_lose_no_error(tmp_path: Path) -> None:
    groups = ErrorGroups(str(tmp_path))
    threads = [
        threading.Thread(target=lambda: [fail(groups, number) for number in (1, 2, 3) * 200])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert counts(groups) == {"1": 800, "2": 800, "3": 800}


def test_the_64th_group_is_that_of_all_others(tmp_path: Path) -> None:
    groups = ErrorGroups(str(tmp_path))

    counted = {fail(groups, number, 2) for number in range(100)}

    assert counted == {kind(number) for number in range(63)} | {OTHERS}
    assert counts(groups)["_other"] == 2 * (100 - 63)
    assert sum(counts(groups).values()) == 200
    (others,) = (group for group in groups.read() if group.fingerprint == OTHERS)
    assert others.traceback == ""


def test_many_workers_have_no_more_groups_than_one(wall: Wall, tmp_path: Path) -> None:
    """What another worker has is admitted by all, what nobody has by none."""
    workers = [ErrorGroups(str(tmp_path)) for _ in range(4)]
    for number in range(80):
        fail(workers[number % 4], number)
    wall.advance(2)
    for worker in workers:
        fail(worker, 5)
        fail(worker, 99)

    assert len(counts(workers[0])) == 64
    assert counts(workers[0])["5"] == 5
    assert counts(workers[0])["_other"] == 80 - 63 + 4


def test_a_group_makes_room_a_day_after_its_last_error(wall: Wall, tmp_path: Path) -> None:
    groups = ErrorGroups(str(tmp_path))
    for number in range(63):
        fail(groups, number)
        wall.advance(1)
    wall.advance(DAY - 62)

    assert [fail(groups, number) for number in (100, 101, 102)] == [kind(100), kind(101), OTHERS]
    assert [f"{number:x}" in counts(groups) for number in (0, 1, 2)] == [False, False, True]


def test_room_is_looked_for_again_a_second_after_there_was_none(wall: Wall, tmp_path: Path) -> None:
    groups = ErrorGroups(str(tmp_path))
    for number in range(63):
        fail(groups, number)
    wall.advance(DAY - 0.5)
    assert fail(groups, 100) == OTHERS

    for seconds, counted in ((0.5, OTHERS), (0.5, kind(100))):
        wall.advance(seconds)
        assert groups.lacks(kind(100)) == (counted != OTHERS)
        assert fail(groups, 100) == counted


def test_a_machine_that_has_just_been_started_counts_its_first_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.worker.errorgroups.monotonic", lambda: 0.0)
    groups = ErrorGroups(str(tmp_path))

    assert groups.lacks(kind(1))
    assert fail(groups, 1) == kind(1)
    assert counts(ErrorGroups(str(tmp_path))) == {"1": 1}


def test_a_group_that_another_worker_has_met_today_stays(wall: Wall, tmp_path: Path) -> None:
    one, other = ErrorGroups(str(tmp_path)), ErrorGroups(str(tmp_path))
    for number in range(63):
        fail(one, number)
    wall.advance(DAY - 1)
    for number in range(1, 63):
        fail(other, number)
    wall.advance(1)

    assert [fail(one, number) for number in (100, 101)] == [kind(100), OTHERS]
    wall.advance(2)
    assert counts(one)["1"] == 2


def test_without_room_for_a_file_errors_are_counted_in_memory_and_moved_later(
    wall: Wall, tmp_path: Path
) -> None:
    """Into the file of a dead worker that has met the same, in an older version and at other places."""
    failures: list[BaseException] = []
    shared = str(tmp_path / "shared")
    dead = ErrorGroups(shared, "1")
    groups = ErrorGroups(shared, "2", on_failure=failures.append)
    fail(groups, 3, 2)  # there is no such directory
    fail(groups, 1, 2)
    before = counts_or_none(groups)
    wall.advance(1)
    (tmp_path / "shared").mkdir(mode=0o700)
    fail(dead, 2, 8)
    fail(dead, 1, 4)
    dead.move()
    fail(groups, 3)
    fail(groups, 1)

    assert (before, [type(error) for error in failures]) == (None, [FileNotFoundError])
    assert counts(groups) == counts(dead) == {"1": 7, "2": 8, "3": 3}
    versions = {group.fingerprint: (group.first_version, group.version) for group in groups.read()}
    assert versions == {kind(1): ("2", "2"), kind(2): ("1", "1"), kind(3): ("2", "2")}


def test_what_finds_no_room_among_the_groups_of_a_dead_worker_is_moved_to_the_others(
    wall: Wall, tmp_path: Path
) -> None:
    dead, groups = (ErrorGroups(str(tmp_path / "shared")) for _ in range(2))
    fail(groups, 100, 2)
    (tmp_path / "shared").mkdir(mode=0o700)
    for number in range(64):
        fail(dead, number)
    dead.move()
    wall.advance(1)

    assert fail(groups, 100) == OTHERS
    assert counts(groups) == {f"{number:x}".lstrip("0"): 1 for number in range(63)} | {"_other": 4}
    (others,) = (group for group in groups.read() if group.fingerprint == OTHERS)
    assert others.traceback == ""


def counts_or_none(groups: ErrorGroups) -> dict[str, int] | None:
    try:
        return counts(groups)
    except OSError:
        return None


# Foreign bytes


def group(number: int = 1, **changes: Any) -> Group:
    fields: dict[str, Any] = {
        "fingerprint": kind(number),
        "count": 3,
        "first": 5.0,
        "requests": ((7.0, "c"), (6.0, "b"), (5.0, "a")),
        "url_rule": "/",
        "first_version": "1",
        "version": "2",
        "traceback": "E\n",
    }
    return Group(**{**fields, **changes})


def file_of(*slots: bytes) -> bytes:
    return (errorslots.START + b"".join(slots)).ljust(errorslots.SIZE, b"\0")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"traceback": ""},
        {"fingerprint": Fingerprint("0" * 12, "Größe", "laden:öffnen")},
        {"version": "", "first_version": ""},
        {"count": 1, "first": 1.0, "requests": ((1.0, "a"),)},
        {"count": (1 << 53) - 1, "requests": ((9.0, ""),)},
        {"requests": ()},
    ],
)
def test_a_slot_is_read_as_it_was_written(changes: dict[str, Any]) -> None:
    written = group(**changes)

    assert list(errorslots.unpack(file_of(errorslots.pack(written)))) == [(0, written)]


def test_the_bytes_of_a_file_are_those_of_other_releases() -> None:
    """During an update workers of two releases share the directory, and later ones inherit the file."""
    texts = b"000000000001\0ValueError\0shop.views:view1\0/\x001\0E\n"
    slot = bytearray(4096)
    struct.pack_into("=IId", slot, 0, crc32(texts, crc32(struct.pack("=d", 5.0))), len(texts), 5.0)
    slot[16 : 16 + len(texts)] = texts
    for place, (at, request_id) in enumerate([(5.0, b"a"), (6.0, b"b"), (7.0, b"c")]):
        struct.pack_into("=d64s", slot, 3664 + 72 * place, at, request_id)
    struct.pack_into("=64sQ", slot, 4024, b"2", 3)
    header = struct.pack("=8sII48x", b"errors01", 4096, 64)

    assert errorslots.pack(group()) == slot
    assert list(errorslots.unpack((header + slot).ljust(64 + 64 * 4096, b"\0"))) == [(0, group())]


@pytest.mark.parametrize(
    ("count", "requests", "shown"),
    [
        (2, ((7.0, "c"), (6.0, "b"), (5.0, "a")), ((7.0, "c"), (6.0, "b"))),
        (9, ((9.0, ""),) * 5, ((9.0, ""),) * 4),
        (3, ((7.0, "not ours"), (6.0, "b"), (5.0, "a")), ((6.0, "b"), (5.0, "a"))),
        (3, ((7.0, "c"), (float("nan"), "b"), (5.0, "a")), ((7.0, "c"), (5.0, "a"))),
    ],
)
def test_a_request_that_cannot_be_costs_itself(
    count: int, requests: tuple[tuple[float, str], ...], shown: tuple[tuple[float, str], ...]
) -> None:
    """There are no more of them than errors, and four at most: the fifth may be half written."""
    content = file_of(errorslots.pack(group(count=count, requests=requests)))

    assert [group.requests for _, group in errorslots.unpack(content)] == [shown]


ROOM = 3648 - len("000000000001\0ValueError\0shop.views:view1\0/\x001\0")
"""For the traceback beside the names of `group`, in bytes."""


@pytest.mark.parametrize(
    ("traceback", "shown"),
    [
        ("x" * (ROOM - 1) + "\n", "x" * (ROOM - 1) + "\n"),
        ("x" * 5 + "\n" + "y" * (ROOM - 6) + "\n", "...\n" + "y" * (ROOM - 6) + "\n"),
        ("x" * 4 + "\n" + "y" * (ROOM - 5) + "\n", "...\n"),
    ],
    ids=["fits", "is a byte too long", "has a last line that is too long"],
)
def test_a_traceback_is_as_long_as_there_is_room(traceback: str, shown: str) -> None:
    content = file_of(errorslots.pack(group(traceback=traceback)))

    assert [group.traceback for _, group in errorslots.unpack(content)] == [shown]


def test_long_texts_are_cut_and_of_a_traceback_its_beginning() -> None:
    lines = [f"line {number}\n" for number in range(1000)]
    packed = errorslots.pack(
        group(fingerprint=Fingerprint("0" * 12, "E", "ö" * 900), traceback="".join(lines))
    )

    ((_, read),) = errorslots.unpack(file_of(packed))
    assert len(packed) == errorslots.SLOT
    assert read.fingerprint.where == "ö" * 250
    shown = read.traceback.splitlines(keepends=True)
    assert shown == ["...\n", *lines[-len(shown) + 1 :]]
    assert len(shown) > 200


@pytest.mark.parametrize(
    ("at", "change"),
    [
        (0, b"\0"),  # the checksum
        (20, b"x"),  # a text
        (errorslots.COUNT_AT, bytes(8)),
        (errorslots.COUNT_AT, b"\xff" * 8),
    ],
)
def test_a_slot_that_is_not_whole_is_left_out_and_the_others_are_not(at: int, change: bytes) -> None:
    spoilt = bytearray(errorslots.pack(group()))
    spoilt[at : at + len(change)] = change

    content = file_of(bytes(spoilt), errorslots.pack(group(2)))
    assert list(errorslots.unpack(content)) == [(1, group(2))]


@pytest.mark.parametrize(
    "changes",
    [
        {"fingerprint": Fingerprint("../etc/passw", "E", "w")},
        {"fingerprint": Fingerprint("", "E", "w")},
        {"first": -1.0},
        {"first": float("nan")},
        {"first": 1e11},
        {"count": 0, "requests": ()},
        {"count": 1 << 53},
    ],
)
def test_what_no_worker_writes_is_left_out(changes: dict[str, Any]) -> None:
    assert list(errorslots.unpack(file_of(errorslots.pack(group(**changes))))) == []


@pytest.mark.parametrize("change", [(b"errors01", b"errors02"), (b"E\n\0", b"E\n")], ids=["name", "size"])
def test_a_file_of_another_kind_or_size_has_no_groups(change: tuple[bytes, bytes]) -> None:
    content = file_of(errorslots.pack(group()))
    assert list(errorslots.unpack(content)) == [(0, group())]

    assert list(errorslots.unpack(content.replace(*change, 1))) == []


@pytest.mark.parametrize(
    "content", [b"", b"errors01", bytes(errorslots.SIZE), file_of()[:-1], file_of() + b"x"]
)
def test_a_file_that_is_none_of_ours_is_taken_over_empty(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "errors_0.groups").write_bytes(content)
    groups = ErrorGroups(str(tmp_path))

    fail(groups, 1, 2)
    assert counts(groups) == {"1": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["errors_0.groups"]


def test_a_heir_counts_no_slot_that_it_cannot_tell(tmp_path: Path) -> None:
    """A group in two slots, one in the slot of the others, and one that is spoilt."""
    last = errorslots.SLOTS - 1
    slots = {0: group(1), 1: group(1, count=4), 2: group(2), last: group(3)}
    packed = [
        errorslots.pack(slots[number]) if number in slots else bytes(errorslots.SLOT)
        for number in range(errorslots.SLOTS)
    ]
    packed[5] = b"x" * errorslots.SLOT
    (tmp_path / "errors_0.groups").write_bytes(file_of(*packed))
    groups = ErrorGroups(str(tmp_path))

    for number in range(1, 9):
        fail(groups, number)
    assert counts(groups) == {"1": 4, "2": 4} | {str(number): 1 for number in range(3, 9)}


@pytest.mark.parametrize("name", ["a directory", "a link", "a pipe"])
def test_what_is_no_file_is_passed_over(name: str, tmp_path: Path) -> None:
    path = tmp_path / "errors_0.groups"
    if name == "a directory":
        path.mkdir()
    elif name == "a link":
        path.symlink_to("/etc/passwd")
    else:
        os.mkfifo(path)

    groups = ErrorGroups(str(tmp_path))
    fail(groups, 1)
    assert counts(groups) == {"1": 1}
    assert (tmp_path / "errors_1.groups").is_file()
