"""Native buckets: where a process counts them."""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from pathlib import Path

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.mmap_dict import MmapedDict

from exporter.buckets import BOUNDS
from exporter.measure.native import Natives
from exporter.worker.failures import Failures
from tests.rig.users import as_child


def test_a_forked_child_counts_in_a_file_of_its_own(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    natives = Natives(str(tmp_path), Failures(registry))
    family = Histogram("seconds", "Seconds.", ["path"], registry=registry)

    def count() -> float:
        doubles, at = natives.buckets(family, {"path": "/"})[7]
        doubles[at] += 1.0
        return float(doubles[at])

    def count_in_the_child() -> None:
        assert count() == 1.0
        assert len(list(tmp_path.glob(f"native_{os.getpid()}*"))) == 1

    assert count() == 1.0
    as_child(count_in_the_child)
    assert count() == 2.0
    assert len(list(tmp_path.glob("native_*"))) == 2


def test_a_bucket_has_its_index_in_memory_and_in_a_file(tmp_path: Path) -> None:
    """That of schema 3: 0.3 s lie between 2 ** (-14 / 8) and 2 ** (-13 / 8) s."""
    registry = CollectorRegistry()
    family = Histogram("seconds", "Seconds.", ["path"], registry=registry)
    failures = Failures(registry)
    memory, file = (Natives(directory, failures) for directory in (None, str(tmp_path)))
    for natives in memory, file:
        doubles, at = natives.buckets(family, {"path": "/"})[bisect_left(BOUNDS, 0.3)]
        doubles[at] += 1.0
    (path,) = tmp_path.glob("native_*")
    values = MmapedDict.read_all_values_from_file(str(path))  # type: ignore[no-untyped-call]

    assert memory.counts("seconds") == {(("path", "/"),): {-13: 1.0}}
    assert [(json.loads(key)[1], value) for key, value, *_ in values] == [("seconds:-13", 1.0)]
