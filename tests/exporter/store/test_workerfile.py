"""The file of one process: space is reserved, locks show life, other processes' files are left alone."""

from __future__ import annotations

import errno
import fcntl
import gc
import mmap
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict

from exporter import client, guard
from exporter.merge.format import LENGTH, CorruptFileError, head, promises_lock, split
from exporter.settings import SettingsError
from exporter.store import workerfile
from exporter.store.workerfile import WorkerFile, install, place
from tests.rig.descriptors import open_below
from tests.rig.disk import small_disk
from tests.rig.workerfiles import NOBODY, dead, living, plain, total
from tests.rig.wsgi import Raises


def open_and_read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return workerfile.read(descriptor)
    finally:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return workerfile.is_locked(descriptor)
    finally:
        os.close(descriptor)


def test_prometheus_client_reads_what_is_written(tmp_path: Path) -> None:
    """The format is prometheus_client's own, with values, timestamps and growth beyond the first 64 KB."""
    written = {total(path=f"/{number:0100}"): float(number) for number in range(1000)}
    living(tmp_path, "gauge_mostrecent", NOBODY, written, timestamp=7.0).close()

    file = tmp_path / f"gauge_mostrecent_{NOBODY}.db"
    read = MmapedDict.read_all_values_from_file(file)  # type: ignore[no-untyped-call]

    assert {key: (value, timestamp) for key, value, timestamp, _ in read} == {
        key: (value, 7.0) for key, value in written.items()
    }


def test_a_reader_never_sees_half_an_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each write to the memory, where a kill may stop it, the file has whole entries only."""
    seen: list[list[bytes]] = []

    class Watched(mmap.mmap):
        def __setitem__(self, at: Any, value: Any) -> None:
            super().__setitem__(at, value)
            seen.append(split(open_and_read(tmp_path / f"counter_{NOBODY}.db")))

    monkeypatch.setattr(mmap, "mmap", Watched)
    keys = [total(path="/" + "x" * length) for length in range(12)]
    living(tmp_path, "counter", NOBODY, dict.fromkeys(keys, 1.0)).close()

    heads = [head(key.encode()) for key in keys]
    assert all(entries == heads[: len(entries)] for entries in seen)
    assert seen[-1] == heads


def test_space_is_reserved_and_not_only_promised(tmp_path: Path) -> None:
    """Every byte of the file has a block on disk, so that writing into it needs no space."""
    file = living(tmp_path, "counter", NOBODY, {total(path=f"/{number:0100}"): 1.0 for number in range(1000)})
    status = os.stat(tmp_path / f"counter_{NOBODY}.db")
    file.close()

    assert status.st_blocks * 512 >= status.st_size == 262144


def test_a_lock_shows_life(tmp_path: Path) -> None:
    """The file is locked while it is open, and free as soon as it is closed."""
    file = living(tmp_path, "counter", NOBODY, {})
    path = tmp_path / f"counter_{NOBODY}.db"

    assert is_locked(path)
    file.close()
    assert not is_locked(path)


def test_who_asks_for_a_lock_does_not_keep_it(tmp_path: Path) -> None:
    """A process that makes its file waits for no reader."""
    path = dead(tmp_path, "counter", NOBODY, {})
    with path.open() as reader, path.open() as writer:
        assert not workerfile.is_locked(reader.fileno())
        fcntl.flock(writer, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert workerfile.is_locked(reader.fileno())


def test_a_child_does_not_keep_its_parent_alive(tmp_path: Path) -> None:
    """A forked child that outlives its parent does not hold the lock on the parent's file."""
    script = f"""
import os, sys
from exporter.store.workerfile import WorkerFile
file = WorkerFile({str(tmp_path / "counter_1.db")!r})
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, b"running")
    os.read(int(sys.argv[1]), 1)
    os._exit(0)
os.read(reading, 7)
os.kill(os.getpid(), 9)
"""
    ours, theirs = os.pipe()
    subprocess.run([sys.executable, "-c", script, str(ours)], pass_fds=[ours], check=False)

    try:
        assert not is_locked(tmp_path / "counter_1.db")
    finally:
        os.close(theirs)
        os.close(ours)


def test_an_existing_file_is_never_opened(tmp_path: Path) -> None:
    """A reused process id starts a file of its own beside the dead one's, whose counts stay as they are."""
    path = dead(tmp_path, "counter", 77, {total(): 5.0})
    before = path.read_bytes()
    file = living(tmp_path, "counter", 77, {total(): 1.0})
    file.close()

    assert path.read_bytes() == before
    assert Path(file._fname).name == "counter_10000077.db"


@pytest.mark.parametrize("stem", ["counter", "gauge_mostrecent"])
@pytest.mark.parametrize("identifier", ["web", "web_3"])
def test_a_process_that_has_a_name_of_its_own_writes_a_file_that_is_read(
    stem: str, identifier: str, tmp_path: Path
) -> None:
    """Under its number: prometheus_client lets applications name their processes."""
    WorkerFile(str(tmp_path / f"{stem}_{identifier}.db")).close()

    assert os.listdir(tmp_path) == [f"{stem}_{os.getpid()}.db"]


def test_closing_with_a_view_of_the_memory_is_no_error(tmp_path: Path) -> None:
    """The recorder keeps views of the memory; closing a file under them leaves them readable."""
    file = living(tmp_path, "counter", NOBODY, {total(): 3.0})
    held = place(file, total())
    file.close()

    assert held is not None
    view, at = held
    assert view[at] == 3.0
    view.release()
    del held, view
    gc.collect()
    assert open_below(tmp_path) == []


def test_all_places_are_in_one_view_of_the_memory(tmp_path: Path) -> None:
    """A view needs more memory than the value that it shows."""
    keys = [total(path=path) for path in ("/a", "/b")]
    file = living(tmp_path, "counter", NOBODY, dict.fromkeys(keys, 1.0))
    places = [found for key in keys if (found := place(file, key))]
    file.close()

    assert len(places) == 2
    assert places[0][0] is places[1][0]


def test_install_makes_prometheus_client_use_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After install(), values of prometheus_client lie in our files."""
    monkeypatch.setattr(values, "MmapedDict", MmapedDict)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    install()
    value_class = values.MultiProcessValue()  # type: ignore[no-untyped-call]
    value = value_class("counter", "hits", "hits_total", (), (), "help")
    value.inc(2)

    assert type(value._file) is WorkerFile
    assert promises_lock(open_and_read(tmp_path / f"counter_{os.getpid()}.db"))
    value._file.close()


def test_install_uses_no_prometheus_client_that_lacks_something(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(values, "MmapedDict", MmapedDict)
    monkeypatch.setattr(client, "check", Raises(ImportError("no mmap_key")))

    with pytest.raises(ImportError, match="no mmap_key"):
        install()
    assert values.MmapedDict is MmapedDict  # type: ignore[attr-defined]


def test_files_are_shared_by_the_class_of_prometheus_client_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by the one for a single process, nor by one of the application's own."""
    several = values.MultiProcessValue()  # type: ignore[no-untyped-call]
    shares = []
    for value_class in (several, values.MutexValue, object):
        monkeypatch.setattr(values, "ValueClass", value_class)
        shares.append(workerfile.shares_files())

    assert shares == [True, False, False]


def test_a_plain_file_promises_no_lock(tmp_path: Path) -> None:
    """prometheus_client leaves the spare bytes of the header at zero."""
    plain(tmp_path, "counter", NOBODY, {total(): 1.0}).close()

    assert not promises_lock(open_and_read(tmp_path / f"counter_{NOBODY}.db"))


def test_a_full_disk_is_counted_and_no_crash(tmp_path: Path) -> None:
    """What finds no place is kept in the process; once there is space it is there to the last count."""
    with small_disk(tmp_path, "256k"):
        ballast = tmp_path / "ballast"
        ballast.write_bytes(bytes(192 * 1024))
        refusals = workerfile.refusals()
        file = WorkerFile(str(tmp_path / f"counter_{NOBODY}.db"))
        for number in range(1000):
            assert file.read_value(total(path=f"/{number}"))[0] == 0.0
            file.write_value(total(path=f"/{number}"), 1.0, 0.0)
        fitted = len(file._positions)

        assert 0 < fitted < 1000
        assert workerfile.refusals() == refusals + 2 * (1000 - fitted)

        ballast.unlink()
        for number in range(1000):
            file.write_value(total(path=f"/{number}"), 2.0, 0.0)
        file.close()
        read = MmapedDict.read_all_values_from_file(file._fname)  # type: ignore[no-untyped-call]
        assert {key: value for key, value, _, _ in read} == {total(path=f"/{n}"): 2.0 for n in range(1000)}


def test_a_file_that_cannot_even_be_made_is_made_later(tmp_path: Path) -> None:
    """On a disk that is full from the start nothing raises; the file comes with the first write that fits."""
    with small_disk(tmp_path, "64k"):
        ballast = tmp_path / "ballast"
        ballast.write_bytes(bytes(48 * 1024))
        file = WorkerFile(str(tmp_path / f"counter_{NOBODY}.db"))
        file.write_value(total(), 1.0, 0.0)
        assert [path.name for path in tmp_path.iterdir()] == ["ballast"]

        ballast.unlink()
        file.write_value(total(), 2.0, 0.0)
        file.close()
        read = MmapedDict.read_all_values_from_file(file._fname)  # type: ignore[no-untyped-call]
        assert [value for _, value, _, _ in read] == [2.0]


def test_a_directory_that_is_not_there_is_made_for_this_user_alone(tmp_path: Path) -> None:
    directory = tmp_path / "missing" / "workers"
    WorkerFile(str(directory / "counter_1.db")).close()

    assert [path.name for path in directory.iterdir()] == ["counter_1.db"]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("number", "raised"),
    [(errno.ENOSPC, OSError), (errno.EDQUOT, OSError), (errno.EROFS, SettingsError)],
)
def test_a_full_disk_is_no_fault_of_the_settings(
    number: int, raised: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is a quota that is used up."""
    monkeypatch.setattr(os, "makedirs", Raises(OSError(number, os.strerror(number))))

    with pytest.raises(raised, match=os.strerror(number)) as error:
        workerfile.ready(str(tmp_path / "made"))
    assert type(error.value) is raised


def test_a_file_of_zeros_is_one_that_begins(tmp_path: Path) -> None:
    """Its space is reserved, and nothing is in it yet."""
    for size in (0, 8, 4096, 1 << 16):
        (tmp_path / "counter_1.db").write_bytes(bytes(size))

        assert open_and_read(tmp_path / "counter_1.db") == bytes(8)


def test_a_file_may_have_nothing_but_its_header(tmp_path: Path) -> None:
    header = LENGTH.pack(8) + bytes(4)
    (tmp_path / "counter_1.db").write_bytes(header)

    assert open_and_read(tmp_path / "counter_1.db") == header


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"\x10\0\0", "shorter than its header"),
        (LENGTH.pack(9) + bytes(100), "its header says 9 bytes"),
        (LENGTH.pack(-8) + bytes(100), "its header says -8 bytes"),
        (LENGTH.pack(112) + bytes(100), "shorter than the 112 bytes that its header says"),
    ],
)
def test_a_file_that_is_shorter_than_it_says_is_corrupt(
    content: bytes, complaint: str, tmp_path: Path
) -> None:
    (tmp_path / "counter_1.db").write_bytes(content)

    with pytest.raises(CorruptFileError, match=complaint):
        open_and_read(tmp_path / "counter_1.db")


def test_a_file_that_is_cut_while_it_is_read_is_corrupt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = dead(tmp_path, "counter", NOBODY, {total(path="/" + "x" * 5000): 1.0})
    parts = iter([path.read_bytes()[:4096], b""])
    monkeypatch.setattr(os, "pread", lambda *_: next(parts))

    with pytest.raises(CorruptFileError, match="4096 bytes of 5080"):
        open_and_read(path)


@pytest.mark.parametrize(
    ("length", "size", "refused"),
    [
        (65_507, 65_536, 0),
        (65_508, 131_072, 0),
        (131_043, 131_072, 0),
        (131_044, 262_144, 0),
        (262_115, 262_144, 0),
        (262_116, 65_536, 1),
    ],
)
def test_a_file_doubles_when_it_is_full(
    length: int, size: int, refused: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Header, length and values take 29 bytes or more beside a key; no file grows beyond what is read."""
    monkeypatch.setattr(guard, "LIMIT", 262_144)
    before = workerfile.refusals()
    path = dead(tmp_path, "counter", NOBODY, {"x" * length: 1.0})

    assert path.stat().st_size == size
    assert workerfile.refusals() == before + refused
    assert len(open_and_read(path)) == (8 if refused else (length + 36) // 8 * 8)


def test_other_errors_are_not_hidden(tmp_path: Path) -> None:
    """They name the variable and the remedy."""
    (tmp_path / "file").touch()
    for path, reason in (
        (tmp_path / "file", "this is no directory"),
        (tmp_path / "file/x", "Not a directory"),
    ):
        with pytest.raises(
            SettingsError, match=f"PROMETHEUS_MULTIPROC_DIR='{path}': {reason}; give a directory"
        ):
            WorkerFile(str(path / "counter_1.db"))


def test_a_compactor_that_takes_the_new_file_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that vanishes between its creation and its lock is not written into; another is made."""
    real = fcntl.flock
    taken: list[Path] = []

    def flock(file: int, operation: int) -> None:
        if not taken:
            taken.append((tmp_path / "counter_1.db").rename(tmp_path / "taken"))
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    file = living(tmp_path, "counter", 1, {total(): 1.0})
    assert open_below(tmp_path) == [file._fname] * 2
    file.close()

    assert (tmp_path / "taken").stat().st_size == 0
    assert Path(file._fname).name == "counter_10000001.db"


def test_a_file_that_somebody_has_replaced_is_not_written_into(tmp_path: Path) -> None:
    """It would grow into it; what finds no place is counted."""
    file = living(tmp_path, "counter", NOBODY, {total(): 1.0})
    path = tmp_path / f"counter_{NOBODY}.db"
    path.unlink()
    path.write_bytes(b"precious")
    before = workerfile.refusals()
    file.write_value("x" * 65_536, 1.0, 0.0)

    assert workerfile.refusals() == before + 1
    assert isinstance(workerfile.error(), FileNotFoundError)
    assert path.read_bytes() == b"precious"
    file.close()


def test_a_process_is_shut_out_if_none_of_its_files_has_a_place(tmp_path: Path) -> None:
    """One that has no files is not; nor is one that has written one of them."""
    script = f"""
import os
from exporter.store import workerfile
path = {str(tmp_path / "workers")!r}
workerfile.ready(path)
os.rmdir(path)
open(path, "w").close()
print(workerfile.refusals(), workerfile.is_shut_out())
files = [workerfile.WorkerFile(path + name) for name in ("/counter_1.db", "/gauge_all_1.db")]
print(workerfile.refusals(), workerfile.is_shut_out())
os.unlink(path)
files[1].write_value("key", 1.0, 0.0)
print(workerfile.refusals(), workerfile.is_shut_out())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "0 False\n2 True\n2 False\n"


@pytest.mark.parametrize("place", ["a file", "a link", "a mode"])
def test_no_error_of_the_system_reaches_who_writes(place: str, tmp_path: Path) -> None:
    """Each write that finds no place is counted; with the first one that does, the value is there whole."""
    directory = tmp_path / "workers"
    workerfile.ready(str(directory))  # what is wrong from the start is said at the start
    directory.rmdir()
    if place == "a file":
        directory.touch()
    elif place == "a link":
        directory.symlink_to(tmp_path)
    else:
        directory.mkdir(mode=0o777)
        directory.chmod(0o777)
    before = workerfile.refusals()
    file = WorkerFile(str(directory / f"counter_{NOBODY}.db"))
    assert file.read_value(total()) == (0.0, 0.0)
    file.write_value(total(), 1.0, 0.0)
    assert workerfile.refusals() == before + 3
    assert isinstance(workerfile.error(), OSError)

    if place == "a mode":
        directory.chmod(0o700)
    else:
        directory.unlink()
    file.write_value(total(), 2.0, 0.0)
    file.close()

    read = MmapedDict.read_all_values_from_file(file._fname)  # type: ignore[no-untyped-call]
    assert [value for _, value, _, _ in read] == [2.0]


def test_a_file_that_was_removed_is_written_anew_with_all_values(tmp_path: Path) -> None:
    """Also in a directory that is gone, and however large it was; it can grow again."""
    path = tmp_path / "workers" / f"counter_{NOBODY}.db"
    file = WorkerFile(str(path))
    written = {total(path=f"/{number:0100}"): float(number) for number in range(1000)}
    for key, value in written.items():
        file.write_value(key, value, 0.0)
    assert not file.renew()
    path.unlink()
    path.parent.rmdir()

    assert workerfile.renew()  # all files of this process
    assert not workerfile.renew()
    assert open_below(tmp_path) == [str(path)] * 2
    written |= {total(path=f"/more/{number:0100}"): 1.0 for number in range(1000)}
    for key, value in written.items():
        file.write_value(key, value, 0.0)
    assert is_locked(path)
    file.close()
    read = MmapedDict.read_all_values_from_file(path)  # type: ignore[no-untyped-call]
    assert {key: value for key, value, _, _ in read} == written


def test_a_reader_that_keeps_a_lock_on_a_new_file_costs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one who writes does not wait for it, and leaves no file behind."""

    def busy(file: int, operation: int) -> None:  # noqa: ARG001
        raise BlockingIOError

    monkeypatch.setattr(fcntl, "flock", busy)
    file = WorkerFile(str(tmp_path / "counter_1.db"))
    monkeypatch.undo()
    assert os.listdir(tmp_path) == open_below(tmp_path) == []

    file.write_value(total(), 1.0, 0.0)
    assert os.listdir(tmp_path) == ["counter_1.db"]
    file.close()


def test_a_file_costs_two_descriptors(tmp_path: Path) -> None:
    """That of its lock, and that which its memory keeps; also after it has grown."""
    file = living(tmp_path, "counter", NOBODY, {total(path=f"/{number:0100}"): 1.0 for number in range(1000)})

    assert open_below(tmp_path) == [file._fname] * 2
    file.close()
    assert open_below(tmp_path) == []


def test_a_directory_that_may_not_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere

    with pytest.raises(SettingsError, match="Permission denied; give a directory"):
        workerfile.ready(str(tmp_path))


def test_a_directory_that_others_may_write_is_an_error_from_the_start(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)

    with pytest.raises(SettingsError, match="mode 777, so others could forge"):
        workerfile.ready(str(tmp_path))
