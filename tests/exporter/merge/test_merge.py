"""Merge: buckets in the order of their bounds, and how long series are remembered that are gone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from exporter.merge.format import head
from exporter.merge.merge import Merge
from exporter.merge.plan import Content
from exporter.store.directory import WorkerDirectory
from tests.rig.workerfiles import NOBODY, histogram, key, lines, living, samples, their_lines, total


def test_buckets_of_any_bounds_are_merged_as_by_prometheus_client(tmp_path: Path) -> None:
    """Also those at and below zero."""
    counts = {"0.5": 4.0, "0.0": 2.0, "-1.0": 1.0, "+Inf": 8.0}
    file = living(tmp_path, "histogram", NOBODY, histogram("level", counts, 1.5))
    seen = lines(WorkerDirectory(tmp_path))
    file.close()

    assert seen == their_lines(tmp_path)


def test_a_histogram_that_has_only_begun_is_shown_as_far_as_it_is_there(tmp_path: Path) -> None:
    """prometheus_client writes the sum first, and then one bucket after the other."""
    file = living(tmp_path, "histogram", NOBODY, {key("took", "_sum"): 0.5})
    begun = samples(WorkerDirectory(tmp_path))
    file.write_value(key("took", "_bucket", le="0.1"), 2.0, 0.0)
    more = samples(WorkerDirectory(tmp_path))
    file.close()

    assert begun == {"took_sum": 0.5}
    assert more == {"took_sum": 0.5, 'took_bucket{le="0.1"}': 2.0, "took_count": 2.0}


def test_a_file_whose_time_may_hide_a_change_is_looked_at_again(tmp_path: Path) -> None:
    """Its clock ticks every few milliseconds: while a time is new, more may change at the same one."""
    file = living(tmp_path, "counter", NOBODY, {total(path="/a"): 2.0})
    path, soon = Path(file._fname), time.time_ns() + 3600 * 10**9
    directory = WorkerDirectory(tmp_path)
    seen = []
    for name in (b"/a", b"/b"):
        with path.open("r+b") as content:
            whole = content.read()
            content.seek(0)
            content.write(whole.replace(b"/a", name))
        os.utime(path, ns=(soon, soon))
        seen.append(samples(directory))
    file.close()

    assert seen == [{'hits_total{path="/a"}': 2.0}, {'hits_total{path="/b"}': 2.0}]


@pytest.mark.parametrize(("stem", "suffix"), [("counter", "_total"), ("gauge_sum", ""), ("native", ":3")])
@pytest.mark.parametrize(
    ("there", "known", "overgrown"), [(0, 1000, False), (0, 1001, True), (5, 1010, False), (5, 1011, True)]
)
def test_series_that_are_gone_are_forgotten_when_they_are_many(
    stem: str, suffix: str, there: int, known: int, overgrown: bool
) -> None:
    """More than those that are there, by more than a thousand."""
    merge = Merge()
    heads = [head(key("hits", suffix, at=str(number)).encode()) for number in range(known)]
    merge.layout(stem, heads)
    layout = merge.layout(stem, heads[:there])
    row = (1.0,) * there * (2 if stem.startswith("gauge") else 1)
    merge([Content(layout, [row], str(NOBODY), alive=True)])

    assert merge.is_overgrown is overgrown
