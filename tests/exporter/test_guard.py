"""Files and locks that hostile neighbours reach: nothing is followed, waited for or believed."""

from __future__ import annotations

import fcntl
import itertools
import os
import resource
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter import guard
from exporter.guard import Patience, UntrustedError
from tests.rig.descriptors import open_below
from tests.rig.users import STRANGER, as_child, needs_root
from tests.rig.wsgi import Raises


def opened(path: Path) -> None:
    os.close(guard.directory(str(path)))


@pytest.mark.parametrize("mode", [0o700, 0o701, 0o755])
def test_a_directory_of_ones_own_is_opened(mode: int, tmp_path: Path) -> None:
    tmp_path.chmod(mode)

    opened(tmp_path)


def test_a_directory_that_is_not_there_is_made_for_who_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For this user alone; another process may do it at the same time."""
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    os.close(guard.directory(str(tmp_path / "new"), make=True))
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700

    make = os.makedirs

    def make_after_another(path: str, mode: int, exist_ok: bool) -> None:
        os.mkdir(path, 0o700)
        make(path, mode, exist_ok)

    monkeypatch.setattr(os, "makedirs", make_after_another)
    os.close(guard.directory(str(tmp_path / "newer"), make=True))


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o775])
def test_a_directory_that_others_may_write_is_refused(mode: int, tmp_path: Path) -> None:
    """The message has the mode and the remedy."""
    tmp_path.chmod(mode)

    with pytest.raises(UntrustedError, match=f"mode {mode:o}.*name a directory that is not there yet"):
        opened(tmp_path)
    assert open_below(tmp_path) == []


@needs_root
def test_a_directory_of_somebody_else_is_refused_unless_they_are_trusted(tmp_path: Path) -> None:
    os.chown(tmp_path, *STRANGER)
    with pytest.raises(UntrustedError, match=f"belongs to user {STRANGER[0]}"):
        opened(tmp_path)

    def trust() -> None:
        guard.trust(STRANGER[0])
        opened(tmp_path)

    as_child(trust)


@pytest.mark.parametrize("end", ["", "/", "//", "/."])
def test_a_link_to_a_directory_is_not_followed(end: str, tmp_path: Path) -> None:
    """Nor with a slash behind its name, where the system would follow it."""
    (tmp_path / "link").symlink_to(tmp_path)

    with pytest.raises(OSError, match="Not a directory"):
        os.close(guard.directory(f"{tmp_path}/link{end}"))


def test_a_new_tmpfs_is_taken_over(tmp_path: Path) -> None:
    """It is everybody's and sticky at first; afterwards it is ours alone."""
    tmp_path.chmod(0o1777)
    descriptor = guard.directory(str(tmp_path))
    guard.take_over(descriptor, None)
    os.close(descriptor)

    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_a_private_directory_is_taken_over_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root without the right to change the modes of others' files cannot do more."""
    tmp_path.chmod(0o700)
    monkeypatch.setattr(os, "fchmod", Raises(PermissionError()))
    descriptor = guard.directory(str(tmp_path))
    guard.take_over(descriptor, None)
    os.close(descriptor)


@needs_root
def test_root_gives_a_directory_and_its_new_files_to_the_workers(tmp_path: Path) -> None:
    """But no group gets them, and an old file is left as it is."""
    (tmp_path / "old").touch()

    def give() -> None:
        guard.trust(STRANGER[0])
        descriptor = guard.directory(str(tmp_path))
        guard.take_over(descriptor, STRANGER)
        os.close(guard.regular("new", os.O_RDWR | os.O_CREAT | os.O_EXCL, descriptor))
        os.close(guard.regular("old", os.O_RDWR | os.O_CREAT, descriptor))

    as_child(give)
    owners = [(path.stat().st_uid, path.stat().st_gid) for path in (tmp_path, tmp_path / "new")]
    assert owners == [STRANGER, (STRANGER[0], os.getegid())]
    assert (tmp_path / "old").stat().st_uid == os.geteuid()


@needs_root
@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("/etc/passwd")])
def test_what_somebody_else_has_put_into_it_is_refused(make: Callable[[Path], None], tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    make(tmp_path / "planted")
    os.chown(tmp_path / "planted", *STRANGER, follow_symlinks=False)
    descriptor = guard.directory(str(tmp_path))
    try:
        with pytest.raises(UntrustedError, match="planted"):
            guard.take_over(descriptor, None)
    finally:
        os.close(descriptor)


def link(path: Path) -> None:
    path.with_name("victim").write_text("precious")
    path.symlink_to("victim")


def second_name(path: Path) -> None:
    path.with_name("victim").write_text("precious")
    path.hardlink_to(path.with_name("victim"))


def socket_file(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, link, second_name, socket_file])
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR | os.O_CREAT])
def test_only_a_regular_file_with_one_name_is_opened(
    make: Callable[[Path], None], flags: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once, without waiting for the other end of a pipe."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "file")
    directory = guard.directory(str(tmp_path))
    try:
        with pytest.raises(OSError, match="file"):
            guard.regular("file", flags, directory)
    finally:
        os.close(directory)
    assert open_below(tmp_path) == []


@needs_root
def test_a_file_of_somebody_else_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", *STRANGER)

    with pytest.raises(UntrustedError, match=f"user {STRANGER[0]}"):
        guard.regular(str(tmp_path / "file"), os.O_RDONLY)


@needs_root
def test_a_file_of_root_is_opened_by_others(tmp_path: Path) -> None:
    """A master that runs as root has made it."""
    (tmp_path / "file").touch(0o644)
    tmp_path.chmod(0o755)
    at = guard.directory(str(tmp_path))

    def read() -> None:
        os.setuid(STRANGER[0])
        os.close(guard.regular("file", os.O_RDONLY, at))

    try:
        as_child(read)
    finally:
        os.close(at)


def test_a_new_file_is_its_owners_alone(tmp_path: Path) -> None:
    os.close(guard.regular(str(tmp_path / "file"), os.O_RDWR | os.O_CREAT))

    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_a_file_of_a_terabyte_is_not_read(tmp_path: Path) -> None:
    with open(tmp_path / "file", "wb") as file:
        file.truncate(1 << 40)
    descriptor = os.open(tmp_path / "file", os.O_RDONLY)
    try:
        assert len(guard.content(descriptor)) == guard.LIMIT + 1
    finally:
        os.close(descriptor)


def test_the_last_descriptors_are_left_to_the_application(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def fill() -> None:
        limit = max(map(int, os.listdir("/proc/self/fd"))) + 20  # higher than all that other tests left
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        with pytest.raises(OSError, match="Too many open files: 'file'"):
            all(guard.regular("file", os.O_RDONLY, at) for _ in range(limit))
        for _ in range(2):
            os.open(tmp_path / "file", os.O_RDONLY)
        with pytest.raises(OSError, match="Too many open files"):
            os.open(tmp_path / "file", os.O_RDONLY)

    at = guard.directory(str(tmp_path))
    try:
        as_child(fill)
    finally:
        os.close(at)


@pytest.mark.parametrize("held", [fcntl.LOCK_EX, fcntl.LOCK_SH])
def test_a_lock_is_waited_for_once(held: int, tmp_path: Path) -> None:
    """After a wait in vain nobody waits any more, until the lock has been free."""
    (tmp_path / "lock").touch()
    patience = Patience()
    with open(tmp_path / "lock") as theirs, open(tmp_path / "lock") as ours:
        fcntl.flock(theirs, held)
        start = time.monotonic()
        assert not patience.lock(ours.fileno(), fcntl.LOCK_EX, 0.2)
        waited = time.monotonic() - start
        assert waited >= 0.2

        start = time.monotonic()
        assert not any(patience.lock(ours.fileno(), fcntl.LOCK_EX, 60.0) for _ in range(100))
        assert time.monotonic() - start < 60.0

        fcntl.flock(theirs, fcntl.LOCK_UN)
        assert patience.lock(ours.fileno(), fcntl.LOCK_EX, 0.0)


@pytest.mark.parametrize(("seconds", "pauses"), [((), 0), ((0.5,), 1), ((0.75,), 2)])
def test_a_lock_is_asked_for_until_the_time_is_over_with_a_pause_between(
    seconds: tuple[float, ...], pauses: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default once; here a quarter of a second is over at each look at the clock."""
    clock = itertools.count(100.0, 0.25)
    taken: list[float] = []
    (tmp_path / "lock").touch()
    with open(tmp_path / "lock") as theirs, open(tmp_path / "lock") as ours:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with monkeypatch.context() as patch:
            patch.setattr(time, "monotonic", lambda: next(clock))
            patch.setattr(time, "sleep", taken.append)
            assert not guard.lock(ours.fileno(), fcntl.LOCK_EX, *seconds)

    assert len(taken) == pauses


OWNERS = [STRANGER, (STRANGER[0], 0), (1, 1)]
"""A user, one in root's group as in many containers, and the first one."""


@needs_root
@pytest.mark.parametrize("owner", OWNERS)
def test_root_that_acts_for_somebody_can_do_no_more_than_they(owner: tuple[int, int], tmp_path: Path) -> None:
    """Their files, their groups; afterwards it is root again."""
    tmp_path.chmod(0o711)
    (tmp_path / "secret").write_text("precious")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", *owner)
    before = os.geteuid(), os.getegid(), os.getgroups()

    def act() -> None:
        with guard.rights_of(owner):
            (tmp_path / "theirs" / "file").touch()
            assert (os.geteuid(), os.getegid(), os.getgroups()) == (*owner, [owner[1]])
            with pytest.raises(PermissionError):
                (tmp_path / "secret").read_text()
        assert (os.geteuid(), os.getegid(), os.getgroups()) == before

    for path in (tmp_path, *tmp_path.parents):
        if not path.stat().st_mode & 0o001:
            path.chmod(path.stat().st_mode | 0o011)
    as_child(act)
    assert (tmp_path / "theirs" / "file").stat().st_uid == owner[0]


@needs_root
@pytest.mark.parametrize("owner", OWNERS)
def test_rights_are_given_up_for_good(owner: tuple[int, int]) -> None:
    def give_up() -> None:
        os.setgroups([0, 4])
        guard.become(owner)
        assert os.getgroups() == [owner[1]]
        assert os.getresuid() == (owner[0],) * 3
        assert os.getresgid() == (owner[1],) * 3
        with pytest.raises(PermissionError):
            os.seteuid(0)

    as_child(give_up)


@needs_root
@pytest.mark.parametrize("owner", [None, (0, 0)])
def test_root_that_acts_for_nobody_or_for_itself_keeps_its_rights(owner: tuple[int, int] | None) -> None:
    def act() -> None:
        os.setgroups([0, 4])
        with guard.rights_of(owner):
            assert os.getgroups() == [0, 4]
        guard.become(owner)
        assert (os.geteuid(), os.getgroups()) == (0, [0, 4])

    as_child(act)
