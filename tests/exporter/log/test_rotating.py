"""Files that rotate: no line is lost or mixed, however many write."""

from __future__ import annotations

import fcntl
import gc
import multiprocessing
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from exporter.log.requestlog import RequestLog
from exporter.log.rotating import RotatingFile, UnsharedFile
from exporter.settings import Settings
from tests.rig.descriptors import open_below
from tests.rig.requestlogs import written_lines

_processes = multiprocessing.get_context("fork")


def _write_numbers(path: Path, limit: int, backups: int, worker: int, count: int) -> None:
    to = RotatingFile(str(path), limit, backups)
    padding = b"." * 300
    for number in range(count):
        to.write(b"%d %d %s\n" % (worker, number, padding), 6)


def _rotate_under_four_workers(path: Path, lines: int, limit: int) -> list[int]:
    """The sizes of the files."""
    workers = [
        _processes.Process(target=_write_numbers, args=(path, limit, 1000, worker, lines // 4))
        for worker in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    found = written_lines(path)
    expected = {
        b"%d %d %s" % (worker, number, b"." * 300) for worker in range(4) for number in range(lines // 4)
    }
    assert len(found) == lines
    assert set(found) == expected
    return [file.stat().st_size for file in path.parent.iterdir()]


class TestRotation:
    @pytest.mark.parametrize(("lines", "limit"), [(20_000, 100_000), (200_000, 1_000_000)])
    def test_four_workers_lose_and_mix_no_line(
        self, path: Path, lines: int, limit: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nor grows a file, where nobody gives up because the one that rotates waits for a processor."""
        monkeypatch.setattr("exporter.log.rotating._PATIENCE", 60.0)
        sizes = _rotate_under_four_workers(path, lines, limit)

        assert len(sizes) > lines * 300 // limit // 2
        assert max(sizes) < limit + 4 * 320  # a line of each writer

    def test_four_workers_that_never_wait_lose_and_mix_no_line(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("exporter.log.rotating._PATIENCE", 0.0)
        _rotate_under_four_workers(path, lines=20_000, limit=100_000)

    def test_the_first_line_begins_the_file(self, path: Path) -> None:
        RotatingFile(str(path), 100, 2).write(b"one\n", 6)

        assert path.read_bytes() == b"one\n"

    def test_the_oldest_backup_goes(self, path: Path) -> None:
        to = RotatingFile(str(path), 10, 2)
        for number in range(5):
            to.write(b"%09d\n" % number, 6)
        to.close()

        names = {file.name: file.read_bytes() for file in path.parent.iterdir()}
        expected = {"requests.log": b"", "requests.log.1": b"000000004\n", "requests.log.2": b"000000003\n"}
        assert names == expected

    def test_it_leaves_no_descriptor_open(self, path: Path) -> None:
        to = RotatingFile(str(path), 10, 2)
        assert open_below(path.parent) == [str(path)]
        for number in range(20):
            to.write(b"%09d\n" % number, 6)
        command = ["ls", "-l", "/proc/self/fd"]
        inherited = subprocess.run(command, close_fds=False, capture_output=True, check=True)

        assert path.name.encode() not in inherited.stdout
        assert open_below(path.parent) == [str(path)]
        to.close()
        assert open_below(path.parent) == []

    def test_a_lock_whose_holder_has_removed_its_file_is_taken_anew(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = fcntl.flock
        removed: list[Path] = []

        def flock(file: int, operation: int) -> None:
            if not removed:
                removed.append(path.with_name(f".{path.name}.lock"))
                removed[0].unlink()
            real(file, operation)

        to = RotatingFile(str(path), 10, 2)
        monkeypatch.setattr(fcntl, "flock", flock)
        to.write(b"%09d\n" % 1, 6)

        assert (path.read_bytes(), path.with_name(f"{path.name}.1").read_bytes()) == (b"", b"000000001\n")
        assert open_below(path.parent) == [str(path)]
        to.close()

    def test_a_child_that_is_forked_during_a_rotation_holds_no_lock(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Nobody waits for it who has opened the lock by then."""
        reading, writing = os.pipe()
        real = os.unlink
        waiting: list[int] = []
        children: list[int] = []

        def fork_and_unlink(name: str) -> None:
            waiting.append(os.open(name, os.O_RDONLY))
            children.append(os.fork())
            if not children[-1]:
                os.close(writing)
                os.read(reading, 1)
                os._exit(0)
            real(name)

        to = RotatingFile(str(path), 10, 2)
        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", fork_and_unlink)
            to.write(b"%09d\n" % 1, 6)
        to.close()
        try:
            fcntl.flock(waiting[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            for descriptor in (reading, writing, *waiting):
                os.close(descriptor)
            os.waitpid(children[0], 0)

    def test_who_may_read_it_is_a_matter_of_the_umask(self, path: Path) -> None:
        before = os.umask(0o026)
        try:
            RotatingFile(str(path), 100, 1).close()
        finally:
            os.umask(before)

        assert stat.S_IMODE(path.stat().st_mode) == 0o640

    def test_its_descriptor_goes_with_the_last_who_knows_it(self, path: Path) -> None:
        """As a suite of tests that makes an application for each test."""
        applications = [RequestLog(Settings.load({}, request_log=str(path))) for _ in range(3)]
        assert open_below(path.parent) == [str(path)] * 3
        applications.clear()
        gc.collect()

        assert open_below(path.parent) == []

    def test_an_idle_worker_s_line_is_kept_though_its_file_was_rotated_out_of_existence(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(time, "monotonic", lambda: 100.0)  # nobody looks whether the file has moved
        idle, busy = RotatingFile(str(path), 20, 1), RotatingFile(str(path), 20, 1)
        for number in range(6):
            busy.write(b"%09d\n" % number, 6)
        idle.write(b"idle 1\n", 6)
        idle.write(b"idle 2\n", 6)

        assert written_lines(path) == [b"idle 1", b"idle 2", b"000000004", b"000000005"]

    @pytest.mark.parametrize("happening", ["moved", "removed"])
    def test_a_file_that_somebody_else_moves_is_made_anew_within_a_second(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, happening: str
    ) -> None:
        clock = [100.0]
        monkeypatch.setattr(time, "monotonic", lambda: clock[0])
        to = RotatingFile(str(path), 1000, 1)
        to.write(b"before\n", 6)
        if happening == "moved":
            path.rename(path.with_name("elsewhere"))
        else:
            path.unlink()
        clock[0] += 1.0
        to.write(b"after\n", 6)

        assert path.read_bytes() == b"after\n"

    def test_a_directory_that_was_removed_is_made_anew_and_no_line_is_lost(self, path: Path) -> None:
        """The line that went into a file without a name is written again."""
        (path.parent / "logs").mkdir()
        to = RotatingFile(str(path.parent / "logs" / "r.log"), 1_000_000, 1)
        for round_ in range(3):
            (path.parent / "logs" / "r.log").unlink()
            (path.parent / "logs").rmdir()
            for number in range(100):
                to.write(b"%d %d\n" % (round_, number), 6)
            written = (path.parent / "logs" / "r.log").read_bytes().splitlines()
            assert written == [b"%d %d" % (round_, number) for number in range(100)]
        to.close()

    @pytest.mark.parametrize("held", ["the directory", "the log", "the lock"])
    def test_a_lock_that_somebody_keeps_hangs_no_request(self, held: str, path: Path) -> None:
        """Whoever can read the directory can lock it: that stops nothing. Without the lock the file grows."""
        to = RotatingFile(str(path), 1000, 1000)
        target = {
            "the directory": path.parent,
            "the log": path,
            "the lock": path.parent / f".{path.name}.lock",
        }
        if held == "the lock":
            target[held].touch(0o600)
        descriptor = os.open(target[held], os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        start = time.monotonic()
        for number in range(500):
            to.write(b"%0100d\n" % number, 6)
        assert time.monotonic() - start < 10  # one wait of a fortieth of a second
        os.close(descriptor)
        to.write(b"last\n", 6)
        to.close()

        assert sorted(written_lines(path)) == sorted(
            [*(b"%0100d" % number for number in range(500)), b"last"]
        )

    def test_a_line_that_was_cut_short_spoils_no_other(self, path: Path) -> None:
        """A full disk takes a part of a line; a limit on file sizes stands in for it."""
        program = f"""
import resource
from exporter.log.rotating import RotatingFile

to = RotatingFile({str(path)!r}, 10_000, 1)
to.write(b"first\\n", 6)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))
for _ in range(2):
    try:
        to.write(b"cut short\\n", 6)
    except OSError as error:
        print(error.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
to.write(b"whole\\n", 6)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)

        assert (done.stdout.split(), done.stderr) == (["28", "27"], "")
        assert path.read_bytes() == b"first\ncut \nwhole\n"

    def test_threads_may_write_while_it_rotates(self, path: Path) -> None:
        to = RotatingFile(str(path), 2000, 1000)

        def write(worker: int) -> None:
            for number in range(2000):
                to.write(b"%d %d\n" % (worker, number), 6)

        threads = [threading.Thread(target=write, args=(worker,)) for worker in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        to.close()

        assert set(written_lines(path)) == {b"%d %d" % (w, n) for w in range(8) for n in range(2000)}
        assert len(written_lines(path)) == 16_000

    def test_a_file_that_cannot_be_shared_is_written_at_once_and_rotated_closed(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Windows renames no file that is open."""
        replace = os.replace
        open_then: list[list[str]] = []

        def look_and_replace(old: str, new: str) -> None:
            open_then.append(open_below(path.parent))
            replace(old, new)

        to = UnsharedFile(str(path), 20, 3)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", look_and_replace)
            for number in range(9):
                to.write(b"%09d\n" % number, 6)

            assert path.read_bytes() == b"000000008\n"
        to.close()

        assert not any(open_then)
        assert open_below(path.parent) == []
        assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == {
            "requests.log": b"000000008\n",
            "requests.log.1": b"000000006\n000000007\n",
            "requests.log.2": b"000000004\n000000005\n",
            "requests.log.3": b"000000002\n000000003\n",
        }
