"""Scrapes and folds side by side: nobody reads half of a fold, and nobody hangs."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest

from exporter.store.directory import WorkerDirectory
from exporter.store.files import Files, LockedError
from tests.rig.deadline import eventually
from tests.rig.descriptors import open_below
from tests.rig.switches import quick_switches
from tests.rig.workerfiles import NOBODY, dead, living, samples, total


def test_a_scrape_of_the_living_keeps_nobody_out(
    tmp_path: Path, directory: WorkerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a fold has the directory for itself."""
    operations = []
    flock = fcntl.flock

    def watched(file: int, operation: int) -> None:
        operations.append(operation & ~fcntl.LOCK_NB)
        flock(file, operation)

    file = living(tmp_path, "counter", NOBODY, {total(): 1.0})
    monkeypatch.setattr(fcntl, "flock", watched)

    assert samples(directory) == {"hits_total": 1.0}
    assert fcntl.LOCK_SH in operations
    assert fcntl.LOCK_EX not in operations
    file.close()


def test_a_scrape_does_not_wait_for_a_fold(tmp_path: Path, directory: WorkerDirectory) -> None:
    """Another one reads at the same time, and keeps the compactor out."""
    dead(tmp_path, "counter", NOBODY, {total(): 1.0})
    waits: list[float] = []
    with Files(str(tmp_path)).lock(fcntl.LOCK_SH), pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", waits.append)
        assert samples(directory) == {"hits_total": 1.0}

    assert waits == []


@pytest.mark.parametrize("shared", [False, True])
def test_simultaneous_scrapes_and_folds_agree(shared: bool, tmp_path: Path) -> None:
    """Four threads scrape and fold while workers come and go: every scrape sees a total that was true.

    They are as four processes, or share one directory as the pages of a service do.
    """
    common = WorkerDirectory(tmp_path)
    stop = threading.Event()
    shown: list[list[float]] = [[] for _ in range(4)]
    errors: list[BaseException] = []
    dead(tmp_path, "counter", NOBODY, {total(): 1.0})

    def scrape(into: list[float]) -> None:
        directory = common if shared else WorkerDirectory(tmp_path)
        try:
            while not stop.is_set():
                with suppress(LockedError):  # whoever holds the lock may wait for a processor as long
                    into.append(samples(directory)["hits_total"])
                    directory.sweep()
                    directory.merge_with_natives()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=scrape, args=[into]) for into in shown]
    with quick_switches() if shared else nullcontext():
        for thread in threads:
            thread.start()
        for worker in range(1, 60):
            dead(tmp_path, "counter", NOBODY + worker, {total(): 1.0})
        stop.set()
        for thread in threads:
            thread.join()

    assert errors == []
    for one in shown:
        assert one == sorted(one)
    assert samples(WorkerDirectory(tmp_path)) == {"hits_total": 60.0}


@pytest.mark.parametrize(
    "read", [WorkerDirectory.merge, WorkerDirectory.merge_with_natives, WorkerDirectory.counts]
)
def test_nobody_reads_while_another_thread_folds(
    read: Callable[[WorkerDirectory], object], tmp_path: Path, directory: WorkerDirectory
) -> None:
    fold = threading.Thread(target=directory.sweep, kwargs={"wait": 30.0})
    reader = threading.Thread(target=read, args=[directory])
    with WorkerDirectory(tmp_path)._files.lock(fcntl.LOCK_SH):
        fold.start()
        eventually(lambda: open_below(tmp_path).count(f"{tmp_path}/archive.lock") == 2, "the fold waits")
        reader.start()
        reader.join(0.2)

        assert reader.is_alive()
    fold.join()
    reader.join()


def test_a_reader_that_hangs_does_not_hang_the_master(tmp_path: Path, directory: WorkerDirectory) -> None:
    """A fold gives up while somebody reads, and says so; the next one succeeds."""
    dead(tmp_path, "counter", NOBODY, {total(): 1.0})
    with directory._files.lock(fcntl.LOCK_SH):
        assert WorkerDirectory(tmp_path).sweep(wait=0.05) is False
    assert WorkerDirectory(tmp_path).sweep() is True

    assert directory.counts() == {"live": 0, "archive": 1, "corrupt": 0}
    assert samples(directory) == {"hits_total": 1.0}


def test_a_child_that_is_forked_during_a_scrape_holds_no_lock(tmp_path: Path) -> None:
    """It may live for long; folds go on."""
    script = f"""
import fcntl, os
from exporter.store.directory import WorkerDirectory
directory = WorkerDirectory({str(tmp_path)!r})
reading, writing = os.pipe()
with directory._files.lock(fcntl.LOCK_SH):
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
print(directory.sweep(wait=0.5))
os.close(writing)
os.waitpid(child, 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "True\n"


@pytest.mark.parametrize("held", [fcntl.LOCK_EX, fcntl.LOCK_SH])
def test_a_lock_that_is_never_given_back_hangs_nobody(
    held: int, tmp_path: Path, directory: WorkerDirectory
) -> None:
    """One of twelve folds waits, and one of twelve scrapes where it has to; all say what is wrong."""
    dead(tmp_path, "counter", NOBODY, {total(): 1.0})
    other = WorkerDirectory(tmp_path)
    with other._files.lock(held):
        start = time.monotonic()
        assert not any(directory.fold(NOBODY + number) for number in range(12))
        if held == fcntl.LOCK_SH:
            assert samples(directory) == {"hits_total": 1.0}
        else:
            for _ in range(12):
                with pytest.raises(LockedError, match="another process has locked"):
                    directory.merge()
        assert time.monotonic() - start < 6.0  # one wait of a second

    assert samples(directory) == {"hits_total": 1.0}
    assert directory.counts() == {"live": 0, "archive": 1, "corrupt": 0}
