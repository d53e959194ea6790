"""The archive adds exactly: no fold can make a total fall, whatever the order."""

from __future__ import annotations

import json
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.merge.format import CorruptFileError
from exporter.store import archive
from exporter.store.archive import Archive, add

finite = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300)


@settings(max_examples=500)
@given(st.lists(finite))
def test_partials_hold_the_exact_sum(numbers: list[float]) -> None:
    """The partials add up to what the numbers add up to, as fractions do."""
    partials: list[float] = []
    for number in numbers:
        add(partials, number)

    assert sum(map(Fraction, partials)) == sum(map(Fraction, numbers))


@pytest.mark.parametrize("value", [1.0, 0.1, 1e-300])
def test_an_archive_does_not_grow_with_the_number_of_folds(value: float) -> None:
    partials: list[float] = []
    for _ in range(2000):
        add(partials, value)

    assert len(partials) < 10


def test_a_scrape_shows_the_same_before_and_after_every_fold() -> None:
    """2,000 folds of random durations: where plain floats fall by a bit, what a scrape shows does not."""
    chance = random.Random(1)
    living = [sum(chance.random() for _ in range(100)) for _ in range(2000)]
    partials: list[float] = []
    shown = math.fsum(living)
    plain, plain_sums = 0.0, {sum(living)}
    while living:
        folded = living.pop(chance.randrange(len(living)))
        add(partials, folded)
        plain += folded
        plain_sums.add(sum(living, plain))

        assert math.fsum([*partials, *living]) == shown
    assert len(plain_sums) > 1


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([math.inf, 1.0], math.inf),
        ([1.0, math.inf, 2.0], math.inf),
        ([1e308, 1e308, 1.0], math.inf),
        ([math.inf, -math.inf], math.nan),
        ([math.nan, 1.0], math.nan),
    ],
)
def test_what_is_not_finite_stays_so(numbers: list[float], expected: float) -> None:
    """Infinity and not-a-number swallow the rest, as in any sum."""
    partials: list[float] = []
    for number in numbers:
        add(partials, number)

    assert partials == pytest.approx([expected], nan_ok=True)


def test_an_archive_is_read_as_it_was_written() -> None:
    """Every kind of series, infinity included, survives the way through the file."""
    written = Archive(["archive-dead-counter_1.db~0"])
    written.fold("counter", ["a", "b"], [(0.1, 0.0), (math.inf, 0.0)])
    written.fold("counter", ["a"], [(0.2, 0.0)])
    written.fold("gauge_max", ["c"], [(3.0, 0.0)])
    written.fold("gauge_max", ["c"], [(2.0, 0.0)])
    written.fold("gauge_min", ["c"], [(3.0, 0.0)])
    written.fold("gauge_min", ["c"], [(2.0, 0.0)])
    written.fold("gauge_mostrecent", ["d"], [(3.0, 20.0)])
    written.fold("gauge_mostrecent", ["d"], [(2.0, 10.0)])
    written.fold("gauge_mostrecent", ["d"], [(5.0, 20.0)])  # of the same time the first one stays
    written.fold("gauge_liveall", ["e"], [(2.0, 10.0)])
    read = archive.load(written.dump())

    assert read == written
    assert read.series == {
        "counter": {"a": [-2.7755575615628914e-17, 0.30000000000000004], "b": [math.inf]},
        "gauge_max": {"c": [3.0]},
        "gauge_min": {"c": [2.0]},
        "gauge_mostrecent": {"d": [3.0, 20.0]},
    }


GOOD = {"version": 1, "folded": [], "series": {"counter": {"a": [1.0]}}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b"null",
        json.dumps({**GOOD, "version": 2}).encode(),
        json.dumps({**GOOD, "folded": [1]}).encode(),
        json.dumps({**GOOD, "folded": 1}).encode(),
        json.dumps({**GOOD, "series": []}).encode(),
        json.dumps({**GOOD, "series": {"counter": {"a": 1.0}}}).encode(),
        json.dumps({**GOOD, "series": {"counter": {"a": ["1"]}}}).encode(),
        json.dumps({**GOOD, "series": {"gauge_max": {"a": []}}}).encode(),
        json.dumps({**GOOD, "series": {"gauge_all": {"a": [1.0]}}}).encode(),
        json.dumps({**GOOD, "series": {"gauge_mostrecent": {"a": [1.0]}}}).encode(),
        json.dumps({**GOOD, "created": {"counter": {"a": 5}}}).encode(),
        json.dumps({**GOOD, "created": {"counter": {"a": math.inf}}}).encode(),
    ],
)
def test_an_archive_that_cannot_be_ours_is_corrupt(content: bytes) -> None:
    """Cut short, of another version, or of another shape: one error, never another exception."""
    with pytest.raises(CorruptFileError):
        archive.load(content)
