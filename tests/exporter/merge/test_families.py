"""Families: when their groups began."""

from __future__ import annotations

import json
import math

import pytest

from exporter.merge.families import Group
from exporter.merge.series import Entry, parse

NAMES = ("took_count", "took_sum")


@pytest.mark.parametrize(
    ("times", "created"), [([5.0, 3.0], 3.0), ([math.inf, 3.0], 3.0), ([math.inf, math.inf], 0.0)]
)
def test_a_group_began_with_its_first_series(times: list[float], created: float) -> None:
    """0.0 says that no time is known."""
    entries = [Entry(*parse("summary", json.dumps(["took", name, {}, "help"]).encode())) for name in NAMES]
    for entry, time in zip(entries, times, strict=True):
        entry.created = time

    assert Group.of([entry.series for entry in entries], entries).created == created


def test_a_bucket_alone_has_its_count() -> None:
    """As a histogram has that a worker has only begun."""
    bucket, _ = parse(
        "histogram", json.dumps(["took", "took_bucket", {"le": "0.5", "a": "b"}, "help"]).encode()
    )

    assert Group.of([bucket]).lines == (("took_bucket", {"a": "b", "le": "0.5"}), ("took_count", {"a": "b"}))
