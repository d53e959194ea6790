"""Samples: where a request's time has gone, to the last second of it."""

from __future__ import annotations

import pytest

from exporter.worker.samples import Samples, delay, unsampled_seconds
from exporter.worker.spots import NOWHERE, Spot

QUERY = Spot("orders:load", 7, "sqlite3", "execute")
LOCK = Spot("orders:refresh", 12, "", "")
ELSEWHERE = Spot("orders:load", 9, "", "time.sleep")
NO_OWN = Spot("", 0, "threading:Condition.wait", "")


def seen(*stands: tuple[Spot, float]) -> Samples:
    samples = Samples(100.0)
    for spot, after in stands:
        samples.add(spot, 100.0 + after)
    return samples


@pytest.mark.parametrize(
    ("stands", "seconds"),
    [
        ([(QUERY, 0.1)], {QUERY: 2.0}),
        ([(QUERY, 0.1), (LOCK, 0.2)], {QUERY: 0.1, LOCK: 1.9}),
        # What held the interpreter until then, and kept the sampler from looking.
        ([(QUERY, 0.1), (LOCK, 1.5), (QUERY, 1.6)], {QUERY: 0.6, LOCK: 1.4}),
        ([(QUERY, 0.1), (QUERY, 0.5), (QUERY, 2.5)], {QUERY: 2.0}),  # looked at after its end
    ],
)
def test_a_sample_has_all_the_time_since_the_one_before(
    stands: list[tuple[Spot, float]], seconds: dict[Spot, float]
) -> None:
    assert seen(*stands).total(2.0) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("age", "due"), [(0.1, 0.111), (0.5, 0.556), (1.0, 1.111), (10.0, 11.11), (3600.0, 4000.0)]
)
def test_the_longer_it_takes_the_less_often_it_is_looked_at(age: float, due: float) -> None:
    samples = seen((LOCK, age))

    assert [samples.is_due(100.0 + age + part * (due - age)) for part in (0.9, 1.1)] == [False, True]


def test_it_is_due_as_soon_as_a_tenth_of_its_age_has_passed() -> None:
    assert seen((LOCK, 9.0)).is_due(110.0)


def test_a_request_that_ends_before_its_first_sample_was_nowhere() -> None:
    assert seen().total(2.0) == {NOWHERE: 2.0}


def test_many_spots_are_the_first_64_and_others() -> None:
    spots = [Spot(f"orders:f{number}", 1, "", "") for number in range(1000)]

    seconds = seen(*((spot, 0.01 * number) for number, spot in enumerate(spots, 1))).total(20.0)

    assert list(seconds)[:64] == spots[:64]
    assert [(spot.where, spot.line) for spot in seconds][64:] == [("_other", 0)]
    assert sum(seconds.values()) == pytest.approx(20.0)


def test_a_place_is_judged_by_all_its_spots_and_shown_by_the_longest() -> None:
    cause = delay({LOCK: 0.9, QUERY: 0.5, ELSEWHERE: 0.7}, "orders:view")

    assert (cause.where, cause.line, cause.library, cause.call) == ("orders:load", 9, "", "time.sleep")
    assert list(cause.shares.items()) == [("orders:load", 0.5714), ("orders:refresh", 0.4286)]


def test_what_was_at_no_own_place_is_the_view() -> None:
    cause = delay({NO_OWN: 1.0, LOCK: 0.25}, "orders:view")

    assert (cause.where, cause.library, cause.shares) == (
        "orders:view",
        "threading:Condition.wait",
        {"orders:view": 0.8, "orders:refresh": 0.2},
    )


@pytest.mark.parametrize(
    ("blocked", "where", "library"), [(True, "-", "interpreter blocked"), (False, "orders:view", "")]
)
def test_a_request_that_nobody_saw(blocked: bool, where: str, library: str) -> None:
    cause = delay(unsampled_seconds(2.0, blocked), "orders:view")

    assert (cause.where, cause.line, cause.library, cause.shares) == (where, 0, library, {where: 1.0})
