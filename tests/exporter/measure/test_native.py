"""Native buckets: where a process counts them."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Histogram

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
