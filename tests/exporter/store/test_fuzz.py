"""Whatever a worker file or the archive contains, a scrape answers, and the others' samples stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.merge.format import LENGTH
from exporter.store.archive import Archive
from exporter.store.directory import WorkerDirectory
from tests.rig.workerfiles import NOBODY, dead, histogram, living, samples, total

BOUNDS = ("0.1", "0.5", "1.0", "+Inf")
ARCHIVE = Archive(["archive-dead-x"], {"counter": {total("folded"): [0.25, 1.0]}}).dump()

Fuzzed = tuple[WorkerDirectory, Path, bytes]
Case = tuple[str, bytes | None, list[tuple[int, bytes]], int | None]


def damaged(content: bytes, edits: list[tuple[int, bytes]], cut: int | None) -> bytes:
    """A content with bytes overwritten at some places, and cut."""
    changed = bytearray(content)
    for at, new in edits:
        at %= len(changed) + 1
        changed[at : at + len(new)] = new
    return bytes(changed[:cut])


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Fuzzed:
    path = tmp_path_factory.mktemp("fuzzed")
    content = dead(path, "histogram", 1, histogram("mine", dict.fromkeys(BOUNDS, 1.0), 0.5, path="/"))
    data = content.read_bytes()[: LENGTH.unpack(content.read_bytes()[:4])[0]]
    content.unlink()
    return WorkerDirectory(path), path, data


edits = st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=12)), max_size=4)
stems = st.sampled_from(
    ["counter", "histogram", "summary", "gauge_all", "gauge_livesum", "gauge_mostrecent", "archive"]
)


def hurts_nobody(fuzzed: Fuzzed, case: Case) -> None:
    """Put the case's file beside a good one, scrape, and see that the good one's sample is what it was."""
    directory, path, good = fuzzed
    stem, garbage, changes, cut = case
    for leftover in path.glob("archive*"):
        leftover.unlink()
    if stem == "archive":
        victim = path / "archive.json"
        good = ARCHIVE
    else:
        victim = path / f"{stem}_{NOBODY}.db"
    victim.write_bytes(damaged(good, changes, cut) if garbage is None else garbage)
    file = living(path, "counter", NOBODY + 1, {total(path="/"): 3.0})
    try:
        seen = samples_of(directory)
    finally:
        file.close()
        for used in {*path.glob("*.db"), *path.glob("archive-*")}:
            used.unlink()

    assert seen['hits_total{path="/"}'] == 3.0


def samples_of(directory: WorkerDirectory) -> dict[str, float]:
    """The samples of the family `hits` by their text; the rest must be readable too."""
    return {name if name.startswith("hits") else "": value for name, value in samples(directory).items()}


cases = st.tuples(stems, st.none() | st.binary(max_size=200), edits, st.none() | st.integers(0, 500))
fuzz = settings(deadline=None, database=None)


@settings(fuzz, max_examples=1_000)
@given(case=cases)
def test_no_content_breaks_a_scrape(fuzzed: Fuzzed, case: Case) -> None:
    """1,000 contents: garbage, and good files and archives that are overwritten in places and cut."""
    hurts_nobody(fuzzed, case)


@pytest.mark.soak
@settings(fuzz, max_examples=30_000)
@given(case=cases)
def test_no_content_breaks_a_scrape_for_long(fuzzed: Fuzzed, case: Case) -> None:
    """The same with 30,000 contents; tests.fuzz tries more, led by coverage, of one file at a time."""
    hurts_nobody(fuzzed, case)
