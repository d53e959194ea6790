"""Broken, foreign and odd files cost their own samples, and a disk that takes no archive costs none."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from exporter.merge.format import LENGTH
from exporter.store.directory import WorkerDirectory
from tests.rig.disk import small_disk
from tests.rig.users import as_child
from tests.rig.workerfiles import NOBODY, dead, histogram, key, living, samples, total

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
    whole = dead(
        tmp_path,
        "histogram",
        NOBODY,
        histogram("took", dict.fromkeys(("0.1", "0.5", "1.0", "+Inf"), 1.0), 0.5),
    )
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


def test_an_archive_with_a_key_of_nobody_is_set_aside(tmp_path: Path, directory: WorkerDirectory) -> None:
    """A whole archive whose keys mean nothing is corrupt too."""
    (tmp_path / "archive.json").write_text(
        '{"version": 1, "folded": [], "series": {"counter": {"x": [1.0]}}}'
    )

    assert samples(directory) == {}
    assert directory.counts() == {"live": 0, "archive": 0, "corrupt": 1}


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
