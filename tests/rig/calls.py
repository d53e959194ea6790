"""Every call to the system goes wrong once: `python -m tests.rig.calls DIRECTORY [SCENARIO …]`.

strace kills a child at the N-th call of each name, or lets that call fail, for every name and N. It attaches
after the imports of the child, so that it counts only the exporter's calls. The child notes its certain
counts in shared memory. Needs strace, and the right to trace.
"""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import count as count_from
from itertools import product
from pathlib import Path

from exporter.log.rotating import RotatingFile
from exporter.settings import SettingsError
from exporter.store.directory import WorkerDirectory
from exporter.store.workerfile import WorkerFile
from exporter.worker.slots import Slots
from tests.rig.deadline import eventually
from tests.rig.workerfiles import NOBODY, dead, histogram, samples, total

# The calls that touch files, memory and locks.
CALLS = (
    "openat,open,fstat,newfstatat,stat,lstat,statx,flock,fallocate,ftruncate,pread64,pwrite64,read,write,mmap,"
    "unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat,getdents64,lseek,close,fchmod,fchown,dup2,dup3"
)
KILL = "signal=KILL"
FAULTS = (KILL, "error=ENOSPC", "error=EIO", "error=EINTR", "error=EMFILE")


def count(counts: mmap.mmap, number: int) -> None:
    """Note a certain count."""
    counts[:8] = number.to_bytes(8, "little")


# The actions during which calls go wrong; each suppresses the OSErrors that the exporter's callers suppress.


def slot_write(directory: Path, counts: mmap.mmap) -> None:
    """A worker begins, counts and grows its files."""
    slots = None
    with suppress(OSError):
        slots = Slots(str(directory))
    file = WorkerFile(str(directory / f"counter_{NOBODY}.db"))
    for number in range(1, 6):
        file.write_value(total(), float(number), 0.0)
        file.write_value(total(path="x" * 20_000 * number), 1.0, 0.0)
        if total() in file._positions and file._m is not None:
            count(counts, number)
    if slots is not None:
        with suppress(OSError):
            slots.entry("/" + "x" * 70_000)
    file.close()


def fold(directory: Path, counts: mmap.mmap) -> None:
    """A master folds a worker that has ended."""
    count(counts, 3)
    with suppress(OSError):
        WorkerDirectory(directory).fold(NOBODY)


def merge(directory: Path, counts: mmap.mmap) -> None:
    """A scrape meets dead files."""
    count(counts, 3)
    with suppress(OSError):
        for _, values in WorkerDirectory(directory).merge():
            assert all(value in (0.0, 1.0, 2.0, 3.0, 0.5) for value in values), values


def start(directory: Path, counts: mmap.mmap) -> None:
    """A server starts, which forgets the counts of an earlier run."""
    count(counts, 0)
    with suppress(OSError, RuntimeError, SettingsError):
        WorkerDirectory(directory).prepare()


def stop(directory: Path, counts: mmap.mmap) -> None:
    """A worker closes its files and the master lets go of the directory."""
    count(counts, 3)
    workers = WorkerDirectory(directory)
    with suppress(OSError, RuntimeError, SettingsError):
        workers.prepare(keep=True)
    with suppress(OSError):
        workers.fold(NOBODY)
        workers.release()


def rotate(directory: Path, counts: mmap.mmap) -> None:
    """A log file is full again and again."""
    log = None
    with suppress(OSError):
        log = RotatingFile(str(directory / "log" / "requests.log"), 100, 100)
    for number in range(1, 8):
        with suppress(OSError):
            if log is not None:
                log.write(b"%060d\n" % number, 6)
                counts[8 + number] = 1


SCENARIOS: dict[str, Callable[[Path, mmap.mmap], None]] = {
    action.__name__: action for action in (slot_write, fold, merge, start, stop, rotate)
}


def prepare(scenario: str, directory: Path) -> None:
    """Create the files that exist before the scenario."""
    directory.mkdir(mode=0o700)
    if scenario == "rotate":
        (directory / "log").mkdir()
    elif scenario != "slot_write":
        dead(directory, "counter", NOBODY, {total(): 3.0})
        dead(directory, "histogram", NOBODY, histogram("took", {"0.1": 1.0, "+Inf": 1.0}, 0.5))


def check(scenario: str, directory: Path, counts: mmap.mmap) -> None:
    """Check the invariants after a process that met a fault."""
    if scenario == "rotate":
        _check_log(directory / "log", counts)
        return
    for path in directory.glob("*.db"):
        os.utime(path, (0, 0))  # a writer killed before its first byte would pass for a new one for a moment
    certain = int.from_bytes(counts[:8], "little")
    workers = WorkerDirectory(directory)
    hits = samples(workers).get("hits_total", 0.0)
    if scenario == "start":
        assert hits in (0.0, 3.0), hits
    else:
        assert certain <= hits <= certain + 1, (hits, certain)
    dead(directory, "counter", NOBODY + 1, {total(): 0.0})
    assert workers.sweep()
    assert samples(workers).get("hits_total", 0.0) == hits
    names = {path.name for path in directory.iterdir() if not path.name.endswith(".ring")}
    remains = {name for name in names if not name.startswith("archive-corrupt-")}
    assert remains <= {"archive.json", "archive.lock", "archive.master"}, remains
    workers.prepare()
    workers.release()
    assert samples(workers) == {}
    assert {path.name for path in directory.iterdir()} == {"archive.lock", "archive.master"}


def _check_log(directory: Path, counts: mmap.mmap) -> None:
    """Each line that was certainly written is there once, and the log still takes lines."""
    with suppress(OSError):
        RotatingFile(str(directory / "requests.log"), 100, 100).close()
    lines = [line for path in directory.glob("requests*") for line in path.read_bytes().split()]
    certain = [b"%060d" % number for number in range(1, 8) if counts[8 + number]]
    assert [line for line in certain if lines.count(line) != 1] == [], lines
    log = RotatingFile(str(directory / "requests.log"), 100, 100)
    for number in range(100, 104):
        log.write(b"%060d\n" % number, 6)
    log.close()
    assert list(directory.glob(".*")) == []


def trial(scenario: str, scratch: Path, inject: str = "") -> tuple[str, bool]:
    """The trace of a scenario in which `inject` goes wrong, and whether it did."""
    directory, trace, counts = scratch / "directory", scratch / "trace", mmap.mmap(-1, 4096)
    prepare(scenario, directory)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.sigwait([signal.SIGUSR1])
            SCENARIOS[scenario](directory, counts)
            status = 0
        finally:
            os._exit(status)
    command = ["strace", "--quiet=all", f"--trace={CALLS}", f"--output={trace}", f"--attach={child}"]
    if inject:
        command.append(f"--inject={inject}")
    with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
        eventually(lambda: _is_traced(child) or tracer.poll() is not None, "strace to attach", 30)
        os.kill(child, signal.SIGUSR1)
        _, status = os.waitpid(child, 0)
        assert tracer.stderr is not None
        tracer.wait(30)
        assert tracer.returncode in (0, -9, 137), tracer.stderr.read()
    text = trace.read_text("utf-8", "replace")
    try:
        assert status in ((0, signal.SIGKILL) if KILL in inject else (0,)), f"it ended with status {status}"
        check(scenario, directory, counts)
    except BaseException as error:
        raise AssertionError(f"{scenario}: {inject}: {error}\n{text[-2000:]}") from error
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return text, "INJECTED" in text or status == signal.SIGKILL


def _is_traced(pid: int) -> bool:
    return "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text()


def run(scenario: str, scratch: Path) -> int:
    """Try every fault at every call of a scenario, and return their number."""
    text, _ = trial(scenario, scratch)
    names = sorted({line.partition("(")[0] for line in text.splitlines() if "(" in line})
    trials = 0
    for name, fault in product(names, FAULTS):
        for number in count_from(1):
            if not trial(scenario, scratch, f"{name}:{fault}:when={number}")[1]:
                break
            trials += 1
    return trials


if __name__ == "__main__":
    for name in sys.argv[2:] or SCENARIOS:
        print(f"{name}: {run(name, Path(sys.argv[1]))} calls went wrong, 0 violations", flush=True)
