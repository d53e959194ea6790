"""The worker directory: one truth out of many files."""

from __future__ import annotations

import errno
import math
import os
import random
import time
from pathlib import Path

import pytest

from exporter.merge.merge import Merge
from exporter.store import archive
from exporter.store.contents import Contents
from exporter.store.directory import WorkerDirectory
from exporter.store.files import Files
from exporter.store.workerfile import WorkerFile
from tests.rig.descriptors import open_below
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
