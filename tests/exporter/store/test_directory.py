"""The worker directory: one truth out of many files, whatever happens to them."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from exporter import guard
from exporter.merge.format import LENGTH
from exporter.merge.merge import Merge
from exporter.settings import SettingsError
from exporter.store import archive
from exporter.store.contents import Contents
from exporter.store.directory import WorkerDirectory
from exporter.store.files import Files, LockedError
from exporter.store.master import DirectoryInUseError
from exporter.store.workerfile import WorkerFile
from tests.rig.deadline import eventually
from tests.rig.descriptors import open_below
from tests.rig.disk import small_disk
from tests.rig.switches import quick_switches
from tests.rig.users import STRANGER, as_child, needs_root
from tests.rig.workerfiles import (
    NOBODY,
    dead,
    histogram,
    key,
    lines,
    living,
    plain,
    samples,
    their_lines,
    total,
)
from tests.rig.wsgi import Raises

BOUNDS = ("0.1", "0.5", "1.0", "+Inf")
MODES = (
    "all",
    "liveall",
    "min",
    "livemin",
    "max",
    "livemax",
    "sum",
    "livesum",
    "mostrecent",
    "livemostrecent",
)


@pytest.fixture
def directory(tmp_path: Path) -> WorkerDirectory:
    return WorkerDirectory(tmp_path)


def every_type(directory: Path, pid: int, seed: int) -> list[WorkerFile]:
    """One living worker's files: each type and mode, label sets of its own, values that add up exactly."""
    chance = random.Random(seed)

    def number() -> float:
        return chance.randrange(-4096, 4096) / 1024

    paths = chance.sample(["/", "/orders/<int:id>", '/quo"te', "/ünï", "/back\\slash", "/new\nline"], 4)
    counts = {bound: float(chance.randrange(9)) for bound in BOUNDS}
    files = {
        "counter": {total(path=path): abs(number()) for path in paths} | {total("bare"): 1.0},
        "histogram": {
            one: value
            for path in paths
            for one, value in histogram("took_seconds", counts, abs(number()), path=path).items()
        },
        "summary": {
            key("size", suffix, path=path): abs(number()) for path in paths for suffix in ("_count", "_sum")
        },
    }
    files |= {
        f"gauge_{mode}": {key(f"g_{mode}", "", path=path): number() for path in paths} for mode in MODES
    }
    return [living(directory, stem, pid, content, chance.random()) for stem, content in files.items()]


def test_a_series_began_when_its_dead_worker_began_it(tmp_path: Path) -> None:
    """Also to a process that has read no file but the archive."""
    before = time.time()
    dead(tmp_path, "counter", NOBODY, {total(): 1.0})
    after = time.time()
    WorkerDirectory(tmp_path).sweep()
    ((family, _),) = WorkerDirectory(tmp_path).merge()

    assert before <= family.groups[0].created <= after


def test_every_type_and_mode_is_merged_as_by_prometheus_client(
    tmp_path: Path, directory: WorkerDirectory
) -> None:
    """Line by line what MultiProcessCollector shows of the living, and again after values have changed."""
    files = [file for worker in range(3) for file in every_type(tmp_path, NOBODY + worker, seed=worker)]

    assert lines(directory) == their_lines(tmp_path)

    for file in files:
        for one in [*file._positions][::2]:
            file.write_value(one, 512.0, 99.0)
    files[0].write_value(total("late", path="/"), 1.0, 0.0)
    assert lines(directory) == their_lines(tmp_path)
    names = [family.name for family, _ in directory.merge()]
    assert names == sorted(names)
    for file in files:
        file.close()


@pytest.mark.parametrize("mode", MODES)
def test_gauges_of_the_dead_keep_their_meaning(mode: str, tmp_path: Path, directory: WorkerDirectory) -> None:
    """Gauges that speak of the living forget the dead at once; the others remember them, folded or not."""
    stem, one = f"gauge_{mode}", key("g", "")
    dead(tmp_path, stem, NOBODY, {one: 1.0}, timestamp=30.0)
    dead(tmp_path, stem, NOBODY + 1, {one: 5.0}, timestamp=20.0)
    file = living(tmp_path, stem, NOBODY + 2, {one: 3.0}, timestamp=10.0)
    shown = {"min": 1.0, "max": 5.0, "sum": 9.0, "mostrecent": 1.0}.get(mode, 3.0)
    name = f'g{{pid="{NOBODY + 2}"}}' if mode.endswith("all") else "g"

    before, after = samples(directory), samples(directory)
    file.close()

    assert before == after == {name: shown}


def test_counts_of_the_dead_stay(tmp_path: Path, directory: WorkerDirectory) -> None:
    """Folding changes nothing that a scrape shows of counters, histograms and summaries."""
    files = [file for worker in range(4) for file in every_type(tmp_path, NOBODY + worker, seed=worker)]
    lasting = ("hits", "bare", "took", "size", "g_min", "g_max", "g_sum", "g_mostrecent")
    before = {name: value for name, value in samples(directory).items() if name.startswith(lasting)}
    for file in files:
        file.close()
    after = samples(directory)

    assert after == before
    assert directory.counts() == {"live": 0, "archive": 1, "corrupt": 0}


def test_files_are_bounded_by_the_living(tmp_path: Path, directory: WorkerDirectory) -> None:
    """After 200 workers have died two at a time there is one archive, the lock, and nothing else."""
    for generation in range(100):
        for worker in range(2):
            dead(tmp_path, "counter", NOBODY + worker, {total(): 1.0})
            dead(tmp_path, "gauge_livesum", NOBODY + worker, {key("g", ""): 1.0})
        assert samples(directory) == {"hits_total": 2.0 * (generation + 1)}

    assert sorted(os.listdir(tmp_path)) == ["archive.json", "archive.lock"]


def test_a_reused_pid_counts_once(tmp_path: Path, directory: WorkerDirectory) -> None:
    """Counts of the dead and of the living of the same process id add up, before, during and after a fold."""
    dead(tmp_path, "counter", 4321, {total(): 5.0})
    file = living(tmp_path, "counter", 4321, {total(): 1.0})
    seen = [samples(directory)]
    directory.fold(4321)
    seen.append(samples(directory))
    file.write_value(total(), 2.0, 0.0)
    file.close()
    directory.fold(4321)
    seen.append(samples(directory))

    assert [one["hits_total"] for one in seen] == [6.0, 6.0, 7.0]


def test_a_running_plain_process_is_left_alone(tmp_path: Path, directory: WorkerDirectory) -> None:
    """The file of a living process without our lock is served and not folded, until the process has ended."""
    file = plain(tmp_path, "counter", os.getpid(), {total(): 5.0})
    directory.sweep()
    assert directory.counts() == {"live": 1, "archive": 0, "corrupt": 0}

    file.write_value(total(), 6.0, 0.0)
    file.close()
    assert samples(directory) == {"hits_total": 6.0}
    directory.fold(os.getpid())

    assert samples(directory) == {"hits_total": 6.0}
    assert directory.counts() == {"live": 0, "archive": 1, "corrupt": 0}


def test_a_dead_plain_process_is_folded(tmp_path: Path, directory: WorkerDirectory) -> None:
    """A plain file whose process is gone is folded by the scrape that comes upon it."""
    plain(tmp_path, "counter", NOBODY, {total(): 5.0}).close()

    assert samples(directory) == {"hits_total": 5.0}
    assert directory.counts() == {"live": 0, "archive": 1, "corrupt": 0}


def test_a_fold_that_ends_before_it_has_removed_its_files_doubles_no_count(
    tmp_path: Path, directory: WorkerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one removes what the archive contains."""
    unlink = os.unlink

    def refuse(name: str, **at: int) -> None:
        if name.startswith("archive-dead-"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)
        unlink(name, **at)

    dead(tmp_path, "counter", NOBODY, {total(): 1.0})
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        with pytest.raises(OSError, match="Input/output error"):
            directory.sweep()
    assert directory.counts() == {"live": 0, "archive": 2, "corrupt": 0}
    assert samples(directory) == {"hits_total": 1.0}
    dead(tmp_path, "counter", NOBODY, {total(): 1.0})

    assert samples(directory) == {"hits_total": 2.0}
    assert sorted(os.listdir(tmp_path)) == ["archive.json", "archive.lock"]


def test_files_of_another_exporter_are_left_alone(tmp_path: Path, directory: WorkerDirectory) -> None:
    """It reads those of the dead itself; the next run of a server asks anew whose they are."""
    path = dead(tmp_path, "counter", NOBODY, {total(): 2})
    directory.leave_alone()

    assert directory.fold(NOBODY)
    assert path.exists()
    assert samples(directory) == {"hits_total": 2}
    directory.prepare()
    path = dead(tmp_path, "counter", NOBODY, {total(): 3})
    assert directory.fold(NOBODY)
    assert not path.exists()


def test_a_dead_worker_whose_pid_lives_again_is_folded(tmp_path: Path, directory: WorkerDirectory) -> None:
    """Its lock is gone, and the process of that number is another one."""
    dead(tmp_path, "counter", os.getpid(), {total(): 1.0})
    dead(tmp_path, "gauge_livesum", os.getpid(), {key("g", ""): 1.0})

    assert samples(directory) == {"hits_total": 1.0}
    assert sorted(os.listdir(tmp_path)) == ["archive.json", "archive.lock"]


def test_a_plain_file_that_was_named_dead_stays_so_when_its_pid_lives_again(
    tmp_path: Path, directory: WorkerDirectory
) -> None:
    """A compactor was killed before it had folded the file."""
    plain(tmp_path, "counter", os.getpid(), {total(): 1.0}).close()
    name = f"counter_{os.getpid()}.db"
    os.rename(tmp_path / name, tmp_path / f"archive-dead-{name}~1")

    assert samples(directory) == {"hits_total": 1.0}
    assert sorted(os.listdir(tmp_path)) == ["archive.json", "archive.lock"]


@pytest.mark.parametrize(
    ("error", "names"),
    [
        (PermissionError, [f"counter_{NOBODY}.db"]),
        (ProcessLookupError, ["archive.json"]),
        (OverflowError, ["archive.json"]),
    ],
)
def test_a_plain_process_of_somebody_else_is_alive(
    error: type[BaseException],
    names: list[str],
    tmp_path: Path,
    directory: WorkerDirectory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The system lets nobody signal it, which says that there is one."""
    file = plain(tmp_path, "counter", NOBODY, {total(): 1.0})

    def kill(pid: int, number: int) -> None:
        assert (pid, number) == (NOBODY, 0)  # 0 is no signal
        raise error

    monkeypatch.setattr(os, "kill", kill)

    assert samples(directory) == {"hits_total": 1.0}
    assert sorted(os.listdir(tmp_path)) == sorted([*names, "archive.lock"])
    file.close()


@pytest.mark.parametrize("stamps", [(0.0, 0.0), (0.0, 7.0)])
def test_a_most_recent_gauge_that_nobody_has_set_is_not_there(
    stamps: tuple[float, ...], tmp_path: Path, directory: WorkerDirectory
) -> None:
    files = [
        living(tmp_path, "gauge_mostrecent", NOBODY + at, {key("g", ""): stamp} if stamp else {}, stamp)
        for at, stamp in enumerate(stamps)
    ]
    files[0].read_value(key("g", ""))  # as prometheus_client does when a gauge is declared

    assert samples(directory) == ({"g": 7.0} if any(stamps) else {})
    for file in files:
        file.close()


def test_keys_that_differ_in_help_are_one_series(tmp_path: Path, directory: WorkerDirectory) -> None:
    """The same series from two libraries of one process, with other help texts, is added up."""
    written = {key("hits", "_total", "one", path="/"): 1.0, key("hits", "_total", "two", path="/"): 2.0}
    file = living(tmp_path, "counter", NOBODY, written)
    seen = samples(directory)
    file.close()

    assert seen == samples(directory) == {'hits_total{path="/"}': 3.0}


GOOD = {'hits_total{path="/"}': 3.0}


def broken_files() -> dict[str, bytes]:
    entry = LENGTH
    good = b"[" + b'"x","x_total",{},"h"]' + b" " * 6
    return {
        "empty": b"",
        "zeros": bytes(65536),
        "header cut": b"\x10\0\0",
        "negative": entry.pack(-8) + bytes(100),
        "huge": entry.pack(2**31 - 8) + bytes(100),
        "odd": entry.pack(9) + bytes(100),
        "shorter than its header": entry.pack(4096) + bytes(100),
        "negative key": entry.pack(64) + bytes(4) + entry.pack(-1) + bytes(52),
        "key beyond the end": entry.pack(64) + bytes(4) + entry.pack(100) + bytes(52),
        "key is no JSON": entry.pack(48) + bytes(4) + entry.pack(16) + b"x" * 16 + bytes(4 + 16),
        "key is no UTF-8": entry.pack(48) + bytes(4) + entry.pack(16) + b"\xff" * 16 + bytes(4 + 16),
        "text": b"this is no worker file at all, it is a text of some length",
        "name of another family": entry.pack(8 + 4 + len(good) + 16 + 1) + bytes(4) + good,
    }


@pytest.mark.parametrize("stem", ["counter", "histogram", "summary", "gauge_livesum"])
@pytest.mark.parametrize("what", broken_files())
def test_a_broken_file_costs_its_own_samples_only(
    what: str, stem: str, tmp_path: Path, directory: WorkerDirectory
) -> None:
    """It is set aside and counted; what the others say is shown as if it were not there."""
    file = living(tmp_path, "counter", NOBODY, {total(path="/"): 3.0})
    path = tmp_path / f"{stem}_{NOBODY + 1}.db"
    path.write_bytes(broken_files()[what])
    os.utime(path, (0, 0))
    seen = samples(directory)
    file.close()

    assert seen == GOOD
    assert directory.counts() == {"live": 1, "archive": 0, "corrupt": 1}


def test_a_file_cut_at_any_byte_costs_its_samples_only(tmp_path: Path, directory: WorkerDirectory) -> None:
    """Every shorter version of a good file is set aside; the archive and the living stay as they are."""
    whole = dead(tmp_path, "histogram", NOBODY, histogram("took", dict.fromkeys(BOUNDS, 1.0), 0.5))
    content = whole.read_bytes()[: LENGTH.unpack(whole.read_bytes()[:4])[0]]
    whole.unlink()
    file = living(tmp_path, "counter", NOBODY + 1, {total(path="/"): 3.0})
    path = tmp_path / f"histogram_{NOBODY}.db"

    for length in range(len(content)):
        path.write_bytes(content[:length])
        os.utime(path, (0, 0))
        assert samples(directory) == GOOD
        assert not path.exists()
    path.write_bytes(content)
    assert samples(directory)["took_count"] == 4.0
    assert directory.counts()["corrupt"] == 10
    file.close()


def test_a_new_file_has_a_moment_to_be_written(tmp_path: Path, directory: WorkerDirectory) -> None:
    """A plain process creates its file empty and fills it microseconds later: not corrupt yet."""
    (tmp_path / f"counter_{os.getpid()}.db").touch()
    assert samples(directory) == {}
    assert directory.counts() == {"live": 1, "archive": 0, "corrupt": 0}

    os.utime(tmp_path / f"counter_{os.getpid()}.db", (0, 0))
    assert samples(directory) == {}
    assert directory.counts() == {"live": 0, "archive": 0, "corrupt": 1}


def test_a_corrupt_archive_is_set_aside(tmp_path: Path, directory: WorkerDirectory) -> None:
    """Garbage in the place of the archive costs the counts of the dead, not those of the living."""
    file = living(tmp_path, "counter", NOBODY, {total(path="/"): 3.0})
    (tmp_path / "archive.json").write_text('{"version": 0}')
    seen = samples(directory)
    file.close()

    assert seen == GOOD
    assert directory.counts() == {"live": 1, "archive": 0, "corrupt": 1}


def test_what_a_killed_compactor_has_left_is_removed(tmp_path: Path, directory: WorkerDirectory) -> None:
    """The archive that it was writing, and the files that the last one contains."""
    dead(tmp_path, "counter", NOBODY, {total(): 1.0})
    directory.sweep()
    (folded,) = json.loads((tmp_path / "archive.json").read_bytes())["folded"]
    for name in (folded, "archive.json.tmp"):
        (tmp_path / name).write_bytes(b"half")
    assert samples(directory) == {"hits_total": 1.0}
    directory.sweep()

    assert sorted(os.listdir(tmp_path)) == ["archive.json", "archive.lock"]


def test_a_link_is_no_worker_file(tmp_path: Path) -> None:
    (tmp_path / "workers").mkdir(mode=0o700)
    file = dead(tmp_path, "counter", NOBODY, {total(): 1.0})
    (tmp_path / "workers" / file.name).symlink_to(file)
    directory = WorkerDirectory(tmp_path / "workers")

    assert samples(directory) == {}
    assert sorted(os.listdir(tmp_path / "workers")) == ["archive.lock", file.name]


def test_an_archive_with_a_key_of_nobody_is_set_aside(tmp_path: Path, directory: WorkerDirectory) -> None:
    """A whole archive whose keys mean nothing is corrupt too."""
    (tmp_path / "archive.json").write_text(
        '{"version": 1, "folded": [], "series": {"counter": {"x": [1.0]}}}'
    )

    assert samples(directory) == {}
    assert directory.counts() == {"live": 0, "archive": 0, "corrupt": 1}


@pytest.mark.parametrize("name", ["notes.txt", "counter_x.db", "gauge_1.db", "counter_1.db.bak"])
def test_strange_names_are_nobodys(name: str, tmp_path: Path, directory: WorkerDirectory) -> None:
    """Files of other names are neither read nor moved nor removed."""
    (tmp_path / name).write_text("something")
    assert samples(directory) == {}
    directory.prepare()
    directory.release()

    assert (tmp_path / name).read_text() == "something"


def test_what_is_no_file_is_left_alone(tmp_path: Path, directory: WorkerDirectory) -> None:
    """A directory, a pipe and a link with a worker file's name do not stop a scrape."""
    os.mkfifo(tmp_path / "counter_1.db")
    (tmp_path / "counter_2.db").mkdir()
    (tmp_path / "counter_3.db").symlink_to("/etc/passwd")

    assert samples(directory) == {}


def test_a_replaced_file_is_read_anew(tmp_path: Path, directory: WorkerDirectory) -> None:
    """Other keys under the same name, and even in the same inode, are never taken for the old ones."""
    file = living(tmp_path, "counter", NOBODY, {total(path="/aa"): 1.0})
    other = living(tmp_path, "counter", NOBODY + 1, {total(path="/bb"): 7.0})
    assert samples(directory) == {'hits_total{path="/aa"}': 1.0, 'hits_total{path="/bb"}': 7.0}
    time_of_file = os.stat(file._fname)
    with open(file._fname, "r+b") as rewritten:
        rewritten.write(Path(other._fname).read_bytes())
    assert samples(directory) == {'hits_total{path="/bb"}': 14.0}

    os.utime(file._fname, ns=(time_of_file.st_atime_ns, time_of_file.st_mtime_ns))
    os.replace(other._fname, file._fname)
    assert samples(directory) == {'hits_total{path="/bb"}': 7.0}
    file.close()
    other.close()


@pytest.mark.parametrize("age", [100.0, -3600.0])
def test_new_keys_are_read_though_the_time_of_their_file_stays(
    age: float, tmp_path: Path, directory: WorkerDirectory
) -> None:
    """Writing through memory does not touch it on tmpfs, and a clock may have been set."""
    stamp = (time.time() - age,) * 2
    file = living(tmp_path, "counter", NOBODY, {total(path="/a"): 1.0})
    os.utime(file._fname, stamp)
    assert samples(directory) == {'hits_total{path="/a"}': 1.0}

    file.write_value(total(path="/b"), 2.0, 0.0)
    os.utime(file._fname, stamp)
    assert samples(directory) == {'hits_total{path="/a"}': 1.0, 'hits_total{path="/b"}': 2.0}
    file.close()


def test_other_keys_are_read_though_a_fresh_file_keeps_its_length_and_time(
    tmp_path: Path, directory: WorkerDirectory
) -> None:
    """The clock of files ticks every few ms: the time of a new one may hide a second change."""
    stamp = (time.time() + 3600,) * 2
    file = living(tmp_path, "counter", NOBODY, {total(path="/a"): 1.0})
    os.utime(file._fname, stamp)
    assert samples(directory) == {'hits_total{path="/a"}': 1.0}

    content = Path(file._fname).read_bytes()
    with open(file._fname, "r+b") as rewritten:
        rewritten.write(content.replace(b'"/a"', b'"/b"'))
    os.utime(file._fname, stamp)
    assert samples(directory) == {'hits_total{path="/b"}': 1.0}
    file.close()


@pytest.mark.parametrize("order", [1, -1])
def test_buckets_of_workers_with_other_bounds_add_up_in_order(
    order: int, tmp_path: Path, directory: WorkerDirectory
) -> None:
    """A rolling deploy may change them: each count is that of all observations up to its bound."""
    counts = [{"0.1": 1.0, "1.0": 2.0, "+Inf": 4.0}, {"0.1": 8.0, "0.5": 16.0, "+Inf": 32.0}][::order]
    files = [
        living(tmp_path, "histogram", NOBODY + at, histogram("took", of_worker, 1.0))
        for at, of_worker in enumerate(counts)
    ]

    assert samples(directory) == {
        'took_bucket{le="0.1"}': 9.0,
        'took_bucket{le="0.5"}': 25.0,
        'took_bucket{le="1.0"}': 27.0,
        'took_bucket{le="+Inf"}': 63.0,
        "took_count": 63.0,
        "took_sum": 2.0,
    }
    for file in files:
        file.close()


@pytest.mark.parametrize(
    ("values", "sum_of_them"),
    [((math.inf, -math.inf), math.nan), ((1e308, 1e308), math.inf), ((math.nan, 1.0), math.nan)],
)
@pytest.mark.parametrize("stem", ["counter", "gauge_livesum"])
def test_values_without_a_sum_cost_themselves_only(
    stem: str, values: tuple[float, ...], sum_of_them: float, tmp_path: Path, directory: WorkerDirectory
) -> None:
    files = [
        living(tmp_path, "counter", NOBODY + at, {total(): 1.0, total("odd"): value})
        if stem == "counter"
        else living(tmp_path, stem, NOBODY + at, {key("odd_total", ""): value, key("hits_total", ""): 1.0})
        for at, value in enumerate(values)
    ]

    seen = samples(directory)
    assert seen["hits_total"] == 2.0
    assert repr(seen["odd_total"]) == repr(sum_of_them)
    for file in files:
        file.close()


def test_sums_never_fall_by_a_bit(tmp_path: Path, directory: WorkerDirectory) -> None:
    """Through 300 folds of random durations a sum stays what it was to the last bit."""
    chance = random.Random(3)
    durations = [sum(chance.random() for _ in range(50)) for _ in range(300)]
    files = [
        living(tmp_path, "histogram", NOBODY + at, histogram("took", {"+Inf": 50.0}, duration))
        for at, duration in enumerate(durations)
    ]
    shown = samples(directory)["took_sum"]
    assert shown == math.fsum(durations)
    for file in files:
        file.close()
        assert samples(directory)["took_sum"] == shown


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


def test_prepare_keeps_what_this_process_has_written(tmp_path: Path, directory: WorkerDirectory) -> None:
    """A master that loads the application first has files already, locked or plain."""
    plain(tmp_path, "counter", os.getpid(), {total(): 1.0}).close()
    directory.prepare()
    directory.release()

    assert samples(directory) == {"hits_total": 1.0}


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


def test_a_full_disk_loses_no_count(tmp_path: Path) -> None:
    """Where the archive finds no space the files of the dead are served one by one, and folded later."""
    with small_disk(tmp_path, "512k"):
        failed: list[BaseException] = []
        directory = WorkerDirectory(tmp_path, on_failure=failed.append)
        expected = {f'hits_total{{path="/{number}"}}': 1.0 for number in range(400)}
        dead(tmp_path, "counter", NOBODY, {total(path=f"/{number}"): 1.0 for number in range(400)})
        with open(tmp_path / "ballast", "wb", buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(bytes(4096))
        with pytest.raises(OSError, match="No space left"):
            directory.sweep()
        assert samples(directory) == expected
        assert directory.counts() == {"live": 0, "archive": 1, "corrupt": 0}
        assert [type(error) for error in failed] == [OSError]

        (tmp_path / "ballast").unlink()
        assert samples(directory) == expected
        assert sorted(os.listdir(tmp_path)) == ["archive.json", "archive.lock"]


@pytest.mark.parametrize("series", [1, 400])
def test_an_archive_that_cannot_be_written_leaves_the_last_one(
    series: int, tmp_path: Path, directory: WorkerDirectory
) -> None:
    """Neither a file that fails at its first byte nor one that fails when it is closed takes its place."""
    counts = {total(path=f"/{number}"): 1.0 for number in range(series)}
    dead(tmp_path, "counter", NOBODY, counts)
    directory.sweep()
    archive = (tmp_path / "archive.json").read_bytes()
    dead(tmp_path, "counter", NOBODY, counts)

    def fold() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        with pytest.raises(OSError, match="File too large"):
            directory.sweep()

    as_child(fold)
    assert (tmp_path / "archive.json").read_bytes() == archive
    assert not (tmp_path / "archive.json.tmp").exists()
    assert set(samples(directory).values()) == {2.0}


def test_a_file_that_cannot_be_folded_is_counted_once(
    tmp_path: Path, directory: WorkerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is immutable: it stays, and is served beside the archive."""
    first, second = (dead(tmp_path, "counter", pid, {total(): 1.0}) for pid in (NOBODY, NOBODY + 1))
    rename = os.rename

    def refuse(old: str, new: str, **directories: int) -> None:
        if old == second.name:
            raise PermissionError(errno.EPERM, "immutable", old)
        rename(old, new, **directories)

    monkeypatch.setattr(os, "rename", refuse)
    for _ in range(2):
        assert directory.sweep()
        assert set(samples(directory).values()) == {2.0}
    assert (first.exists(), second.exists()) == (False, True)


@pytest.mark.parametrize("same", ["inode", "time"])
def test_another_archive_is_read_anew(same: str, tmp_path: Path, directory: WorkerDirectory) -> None:
    """Whether only its inode tells it from the last one, or only its time."""
    for count in (1.0, 2.0):
        (tmp_path / f"{count}").mkdir()
        dead(tmp_path / f"{count}", "counter", NOBODY, {total(): count})
        WorkerDirectory(tmp_path / f"{count}").sweep()
        os.utime(tmp_path / f"{count}/archive.json", (1, 1))
    archive, other = tmp_path / "archive.json", tmp_path / "2.0/archive.json"
    os.replace(tmp_path / "1.0/archive.json", archive)
    assert samples(directory) == {"hits_total": 1.0}

    if same == "time":
        os.replace(other, archive)
    else:
        archive.write_bytes(other.read_bytes())
    assert samples(directory) == {"hits_total": 2.0}


def test_an_archive_is_read_once_for_as_long_as_it_stays(
    tmp_path: Path, directory: WorkerDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scrape costs by the living workers, however many have died."""
    dead(tmp_path, "counter", NOBODY, {total(): 1.0})
    assert samples(directory) == samples(directory) == {"hits_total": 1.0}

    monkeypatch.setattr(archive, "load", Raises())
    assert samples(directory) == {"hits_total": 1.0}


def test_scrapes_and_folds_leave_no_descriptor_open(tmp_path: Path, directory: WorkerDirectory) -> None:
    file = living(tmp_path, "counter", NOBODY, {total(): 1.0})
    before = open_below(tmp_path)
    for number in range(3):
        dead(tmp_path, "counter", NOBODY + 1 + number, {total(): 1.0})
        assert samples(directory) == {"hits_total": number + 2.0}
        directory.counts()
    directory.prepare(keep=True)
    directory.release()

    assert open_below(tmp_path) == before
    file.close()


def test_layouts_of_gone_files_are_dropped(tmp_path: Path) -> None:
    """Workers come and go for months; what a scraper keeps of them goes with their files."""
    files, merge = Files(str(tmp_path)), Merge()
    contents = Contents(files, merge)
    file = living(tmp_path, "counter", NOBODY, {total(): 1.0})
    assert not contents.read().untidy
    status = os.stat(file._fname)
    assert merge.likely_size(status) > 0

    file.close()
    os.unlink(file._fname)
    contents.read()
    assert merge.likely_size(status) == 0


def test_layouts_of_gone_series_are_dropped(tmp_path: Path, directory: WorkerDirectory) -> None:
    """A gauge whose labels change with every generation of workers does not grow the scraper's memory."""
    for generation in range(8):
        written = {key("g", "", at=f"{generation}-{number}"): 1.0 for number in range(500)}
        file = living(tmp_path, "gauge_livesum", NOBODY + generation, written)
        extra = living(tmp_path, "counter", NOBODY + generation, {total(at=str(generation)): 1.0})
        seen = samples(directory)
        assert len(seen) == 500 + generation + 1
        file.close()
        extra.close()

    assert len(directory._merge._entries) < 2500


# What others have put into it


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


# Locks that somebody keeps


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


# What is not as it was


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


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/etc/passwd")])
def test_something_in_the_place_of_the_archive_is_set_aside(
    make: Callable[[Path], None], tmp_path: Path, directory: WorkerDirectory
) -> None:
    file = living(tmp_path, "counter", NOBODY, {total(path="/"): 3.0})
    make(tmp_path / "archive.json")
    seen = samples(directory)
    file.close()

    assert seen == GOOD
    assert directory.counts() == {"live": 1, "archive": 0, "corrupt": 1}


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ude00\ud83d"])
def test_a_text_that_cannot_be_written_costs_itself_only(
    text: str, tmp_path: Path, directory: WorkerDirectory
) -> None:
    """Half of a surrogate pair in a label is replaced; nothing is set aside, before and after a fold."""
    shown = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    file = living(tmp_path, "counter", NOBODY, {total(path="/"): 3.0, total(path=text): 1.0})
    before = samples(directory)
    file.close()

    expected = {'hits_total{path="/"}': 3.0, f'hits_total{{path="{shown}"}}': 1.0}
    assert before == samples(directory) == expected
    assert directory.counts()["corrupt"] == 0
