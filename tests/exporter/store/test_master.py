"""The directory itself: which master has it, and that nobody else gets a file in or out."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from exporter import guard
from exporter.settings import SettingsError
from exporter.store.directory import WorkerDirectory
from exporter.store.master import DirectoryInUseError
from tests.rig.descriptors import open_below
from tests.rig.users import STRANGER, as_child, needs_root
from tests.rig.workerfiles import NOBODY, dead, histogram, key, living, plain, samples, total
from tests.rig.wsgi import Raises


@pytest.mark.parametrize("exists", [False, True])
def test_prepare_makes_a_private_directory(exists: bool, tmp_path: Path) -> None:
    """It is created for the owner alone, or taken from all others."""
    path = tmp_path / "made" / "here"
    if exists:
        path.mkdir(parents=True, mode=0o755)
    directory = WorkerDirectory(path)
    directory.prepare()
    directory.release()

    assert path.stat().st_mode & 0o777 == 0o700
    assert open_below(tmp_path) == []


def test_prepare_removes_an_earlier_run_and_nothing_else(tmp_path: Path, directory: WorkerDirectory) -> None:
    """Files of the dead, free rings and archives go; the living, error groups and strangers stay."""
    dead(tmp_path, "counter", NOBODY, {total(): 1.0})
    directory.sweep()
    dead(tmp_path, "counter", NOBODY, {total(): 1.0})
    dead(tmp_path, "counter", os.getpid(), {total(): 1.0})  # another process had this number
    plain(tmp_path, "gauge_all", NOBODY, {}).close()
    file = living(tmp_path, "counter", NOBODY + 1, {total(): 1.0})
    (tmp_path / "precious.db").touch()
    (tmp_path / "recent_0.ring").touch()
    (tmp_path / "errors_0.groups").touch()
    (tmp_path / "archive-corrupt-00000000000000000001-archive.json").touch()
    (tmp_path / "recent_1.ring").touch()
    os.mkfifo(tmp_path / "recent_2.ring")
    with open(tmp_path / "recent_1.ring") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        directory.prepare()
    seen = samples(directory)
    file.close()
    directory.release()

    assert seen == {"hits_total": 1.0}
    assert sorted(os.listdir(tmp_path)) == [
        "archive.lock",
        "archive.master",
        f"counter_{NOBODY + 1}.db",
        "errors_0.groups",
        "precious.db",
        "recent_1.ring",
    ]


def test_prepare_keeps_what_this_process_has_written(tmp_path: Path, directory: WorkerDirectory) -> None:
    """A master that loads the application first has files already, locked or plain."""
    plain(tmp_path, "counter", os.getpid(), {total(): 1.0}).close()
    directory.prepare()
    directory.release()

    assert samples(directory) == {"hits_total": 1.0}


def test_the_master_writes_its_process_id_and_nothing_else(
    tmp_path: Path, directory: WorkerDirectory
) -> None:
    """The one before had a longer one."""
    (tmp_path / "archive.master").write_text("99999999999999999999\n")
    directory.prepare()
    directory.release()

    assert (tmp_path / "archive.master").read_text() == f"{os.getpid()}\n"


def test_a_master_that_cannot_write_holds_nothing(
    tmp_path: Path, directory: WorkerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwrite", Raises(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    with pytest.raises(OSError, match="No space left"):
        directory.prepare()

    assert open_below(tmp_path) == []
    assert not directory.is_held()


def test_a_directory_in_use_is_refused(tmp_path: Path, directory: WorkerDirectory) -> None:
    """A second master is told who has the directory; its own upgrade may share it; the end frees it."""
    directory.prepare()
    dead(tmp_path, "counter", NOBODY, {total(): 1.0})
    second = WorkerDirectory(tmp_path)
    upgrade = "from exporter.store.directory import WorkerDirectory; "
    upgrade += f"WorkerDirectory({str(tmp_path)!r}).prepare(keep=True)"
    with pytest.raises(DirectoryInUseError, match=f"master process {os.getpid()} is using .*{tmp_path}"):
        second.prepare()
    assert open_below(tmp_path).count(f"{tmp_path}/archive.master") == 1
    subprocess.run([sys.executable, "-c", upgrade], check=True)
    assert samples(second) == {"hits_total": 1.0}

    directory.release()
    second.prepare()
    second.release()
    assert samples(second) == {}


def test_what_the_dead_have_left_is_told_apart_from_what_the_living_write(
    tmp_path: Path, directory: WorkerDirectory
) -> None:
    assert not directory.is_left_over()
    with (
        closing(living(tmp_path, "gauge_livesum", os.getpid(), {})),
        closing(living(tmp_path, "gauge_livesum", NOBODY + 1, {})),  # begun later
    ):
        assert not directory.is_left_over()
        dead(tmp_path, "counter", NOBODY, {total(): 1.0})
        assert directory.is_left_over()
        with closing(living(tmp_path, "counter", 1, {total(): 1.0})):
            assert not directory.is_left_over()
        directory.sweep()
        assert directory.is_left_over()  # in the archive

    assert not directory.is_held()
    directory.prepare()
    assert (directory.is_held(), directory.is_left_over()) == (True, False)
    directory.release()
    assert not directory.is_held()


def test_a_directory_is_younger_than_the_processes_that_began_before_it(
    tmp_path: Path, directory: WorkerDirectory
) -> None:
    """As its lock file tells, which the first reader makes."""
    assert not directory.is_younger_than(os.getpid())
    directory.sweep()
    assert directory.is_younger_than(os.getpid())
    assert not directory.is_younger_than(NOBODY)

    os.utime(tmp_path / "archive.lock", (1, 1))
    assert not directory.is_younger_than(os.getpid())


@pytest.mark.parametrize("first", ["worker", "master"])
def test_a_directory_that_vanishes_is_made_anew(
    first: str, tmp_path: Path, directory: WorkerDirectory
) -> None:
    """By a worker or the master, whoever comes first, as private as before; until then a scrape says so."""
    directory.prepare()
    shutil.rmtree(tmp_path)
    with pytest.raises(FileNotFoundError):
        directory.merge()
    if first == "master":
        directory.fold(NOBODY + 1)
    dead(tmp_path, "counter", NOBODY, {total(): 1.0})
    directory.fold(NOBODY + 1)

    assert samples(directory) == {"hits_total": 1.0}
    assert tmp_path.stat().st_mode & 0o777 == 0o700
    with pytest.raises(DirectoryInUseError):
        WorkerDirectory(tmp_path).prepare()
    directory.release()
    assert open_below(tmp_path) == []


def test_a_directory_that_cannot_be_made_is_a_setting_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SettingsError, match="Not a directory; give a directory that the service may make"):
        WorkerDirectory(tmp_path / "file/x").prepare()


@pytest.mark.parametrize(
    ("call", "replacement", "reason"),
    [
        ("makedirs", Raises(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))), "No space left on device"),
        ("access", lambda *_: False, "Permission denied"),
    ],
)
def test_a_directory_that_cannot_be_written_is_one_too(
    call: str, replacement: Any, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, call, replacement)

    with pytest.raises(SettingsError, match=f"{reason}; give a directory that the service may make"):
        WorkerDirectory(tmp_path if call == "access" else tmp_path / "made").prepare()


def test_a_scraper_does_not_make_a_missing_directory(tmp_path: Path) -> None:
    """It is left to the next worker, or to the master."""
    with pytest.raises(FileNotFoundError):
        WorkerDirectory(tmp_path / "workers").sweep()

    assert os.listdir(tmp_path) == []


@needs_root
def test_a_directory_that_somebody_else_made_first_is_refused(
    tmp_path: Path, directory: WorkerDirectory
) -> None:
    os.chown(tmp_path, *STRANGER)

    with pytest.raises(SettingsError, match="name a directory that is not there yet"):
        directory.prepare()


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that must stay as it is."""
    path = tmp_path.with_name(tmp_path.name + "-victim")
    path.write_text("precious")
    return path


@pytest.mark.parametrize("name", ["archive.json", "archive.json.tmp", "archive.lock", "archive.master"])
@pytest.mark.parametrize("kind", ["link", "second name", "pipe"])
def test_nothing_is_written_through_a_planted_name(
    name: str, kind: str, tmp_path: Path, victim: Path, directory: WorkerDirectory
) -> None:
    """Neither at the start, nor by a fold or a scrape; and nobody waits for the end of a pipe."""
    dead(tmp_path, "counter", NOBODY, {total(): 1.0})
    if kind == "pipe":
        os.mkfifo(tmp_path / name)
    elif kind == "link":
        (tmp_path / name).symlink_to(victim)
    else:
        (tmp_path / name).hardlink_to(victim)

    for action in (directory.sweep, directory.merge, directory.prepare):
        with suppress(OSError):
            action()
    directory.release()

    assert victim.read_text() == "precious"


@needs_root
def test_root_writes_as_the_owner_of_the_directory(tmp_path: Path, victim: Path) -> None:
    """A worker cannot have root's files replaced, truncated or given away."""
    victim.chmod(0o600)
    path = Path("/dev/shm", tmp_path.name)  # the stranger must be able to get there
    directory = WorkerDirectory(path)
    owner = STRANGER[0], STRANGER[1] - 1

    def fold() -> None:
        directory.prepare(owner=owner)
        dead(path, "counter", NOBODY, {total(): 1.0})
        (path / "archive.json.tmp").symlink_to(victim)
        assert directory.fold(NOBODY)

    try:
        as_child(fold)
        assert {entry.stat().st_uid for entry in [path, *path.iterdir()]} == {owner[0]}
        assert path.stat().st_mode & 0o777 == 0o700
        assert samples_as(owner, path) == {"hits_total": 1.0}
    finally:
        shutil.rmtree(path, ignore_errors=True)
    assert victim.read_text() == "precious"


def samples_as(owner: tuple[int, int], path: Path) -> dict[str, float]:
    with guard.rights_of(owner):
        return samples(WorkerDirectory(path))


@needs_root
@pytest.mark.parametrize("stem", ["counter", "histogram", "gauge_max"])
def test_files_of_somebody_else_are_not_believed(
    stem: str, tmp_path: Path, directory: WorkerDirectory
) -> None:
    """A neighbour who gets a file into the directory forges no count."""
    file = living(tmp_path, "counter", NOBODY, {total(): 3.0})
    forged = {"counter": {total(): 1e6}, "histogram": histogram("took", {"+Inf": 1e6}, 1.0)}
    os.chown(dead(tmp_path, stem, NOBODY + 1, forged.get(stem, {key("g", ""): 1e6})), *STRANGER)
    seen = samples(directory)
    file.close()

    assert seen == {"hits_total": 3.0}
