"""Processes that are killed at every step: `python -m tests.rig.crash steps|rounds DIRECTORY [COUNT]`.

Run as a process of its own, because it forks. Prints a summary; ends with an AssertionError if a count was
lost or doubled, or fell.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from mmap import mmap
from pathlib import Path

from exporter.store.directory import WorkerDirectory
from exporter.store.files import LockedError
from exporter.store.workerfile import WorkerFile
from tests.rig.workerfiles import NOBODY, dead, histogram, key, samples, total

WORKERS = 4
COMPACTORS = 2


def child(action: Callable[[], object]) -> int:
    """The id of a forked process that runs the action and ends."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        action()
        status = 0
    finally:
        os._exit(status)


def kill(pid: int) -> None:
    """Kill a child, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def scrape(reader: WorkerDirectory, patience: float = 60.0) -> dict[str, float]:
    """What a scrape shows. Compactors that never rest can keep it from the lock for longer than it waits."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return samples(reader)
        except LockedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.001)


def kill_at(step: int, action: Callable[[], object]) -> bool:
    """Run the action in a process that is killed before its n-th call; whether it came that far."""
    countdown = step

    def hook(event: str, _: object) -> None:
        nonlocal countdown
        if event.startswith(("os.", "open", "fcntl.")):
            countdown -= 1
            if countdown == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def run() -> None:
        sys.addaudithook(hook)
        action()

    _, status = os.waitpid(child(run), 0)
    assert status in (0, signal.SIGKILL), status
    return status != 0


def values_in(path: Path) -> dict[str, float]:
    """The values for a reader who changes nothing."""
    directory = WorkerDirectory(path)
    contents = directory._contents.read().contents
    return {
        name + str(sorted(labels.items())): value
        for family, values in directory._merge(contents)
        for (name, labels), value in zip(
            (line for group in family.groups for line in group.lines), values, strict=True
        )
    }


def steps(scratch: Path) -> None:
    """Kill a compactor before each of its calls to the system; nothing that a scrape shows may change."""
    template = scratch / "template"
    template.mkdir()
    for worker in range(3):
        counts = histogram("took", {"0.1": 1.0, "+Inf": 2.0}, 0.1 * (worker + 1), path="/")
        dead(template, "counter", NOBODY + worker, {total(): 1.0 + worker})
        dead(template, "histogram", NOBODY + worker, counts)
        dead(template, "gauge_sum", NOBODY + worker, {key("g", ""): 0.7})
        dead(template, "gauge_livesum", NOBODY + worker, {key("alive", ""): 1.0})
        if worker == 0:
            WorkerDirectory(template).sweep()
    (template / f"counter_{NOBODY + 7}.db").write_bytes(b"garbage")
    expected = values_in(template)
    directory = scratch / "killed"
    step, was_killed = 0, True
    while was_killed:
        step += 1
        shutil.copytree(template, directory)
        was_killed = kill_at(step, WorkerDirectory(directory).sweep)
        assert values_in(directory) == expected, f"killed at step {step}, before the next fold"
        dead(directory, "counter", NOBODY + 8, {total(): 0.5})
        after = samples(WorkerDirectory(directory))
        assert after["hits_total"] == expected["hits_total[]"] + 0.5, f"killed at step {step}, after a fold"
        remains = sorted(path.name for path in directory.iterdir() if "corrupt" not in path.name)
        assert remains == ["archive.json", "archive.lock"], f"killed at step {step}: {remains}"
        shutil.rmtree(directory)
    assert step > 30, step
    print(f"killed before each of {step - 1} steps")


def rounds(scratch: Path, count: int) -> None:
    """Kill workers and compactors at random while others read: no count is lost, doubled or ever falls.

    Each worker notes its certain count in shared memory; its file may be one ahead.
    """
    chance = random.Random(count)
    directory = scratch / "rounds"
    directory.mkdir()
    reader = WorkerDirectory(directory)
    certain, kills, before = 0.0, 0, {"hits_total": 0.0, "took_sum": 0.0}

    def work(ledger: mmap) -> None:
        seed = random.Random(os.getpid())
        counter = WorkerFile(str(directory / f"counter_{os.getpid()}.db"))
        took = WorkerFile(str(directory / f"histogram_{os.getpid()}.db"))
        hits, seconds = 0, 0.0
        while True:
            hits, seconds = hits + 1, seconds + seed.random()
            counter.write_value(total(), float(hits), 0.0)
            took.write_value(key("took", "_sum"), seconds, 0.0)
            ledger[:8] = hits.to_bytes(8, "little")

    def compact() -> None:
        while True:
            WorkerDirectory(directory).sweep()

    for number in range(count):
        ledgers = [mmap(-1, 8) for _ in range(WORKERS)]
        living = [child(partial(work, ledger)) for ledger in ledgers]
        living += [child(compact) for _ in range(COMPACTORS)]
        chance.shuffle(living)
        try:
            while living:
                # The moment is random, not a condition to wait for: the kills must fall anywhere.
                time.sleep(chance.random() / 200)
                kill(living.pop())
                now = {**before, **scrape(reader)}
                for name, value in before.items():
                    assert now[name] >= value, f"round {number}: {name} fell from {value!r} to {now[name]!r}"
                before = now
        finally:
            for pid in living:
                kill(pid)
        certain += sum(int.from_bytes(ledger[:8], "little") for ledger in ledgers)
        kills += WORKERS
        assert certain <= before["hits_total"] <= certain + kills, (
            f"round {number}: {before}, {certain}, {kills}"
        )
    for path in directory.glob("*.db"):
        os.utime(path, (0, 0))  # files without a first byte would pass for new ones for a moment
    dead(directory, "counter", NOBODY, {total(): 0.0})
    reader.sweep()
    remains = sorted(path.name for path in directory.iterdir() if "corrupt" not in path.name)
    print(f"{count} rounds, {kills} workers and {count * COMPACTORS} compactors killed, {certain:.0f} counts")
    assert remains == ["archive.json", "archive.lock"], remains


if __name__ == "__main__":
    command, scratch, *number = sys.argv[1:]
    if command == "steps":
        steps(Path(scratch))
    else:
        rounds(Path(scratch), int(number[0]))
