"""Losses: when a worker looks for dead ones, and what its counters have before there are any."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from exporter.labels import UNMATCHED
from exporter.worker import deaths
from exporter.worker.losses import Losses
from tests.rig.exchanges import exchange, opened
from tests.rig.users import as_child
from tests.rig.wsgi import Clock


def die_answering(directory: Path) -> None:
    """A worker ends with one request in progress."""
    as_child(lambda: opened(10, str(directory)).enter(exchange()))


def test_the_common_causes_are_there_before_the_first_death(tmp_path: Path) -> None:
    """An increase needs a 0 to begin with."""
    registry = CollectorRegistry()
    Losses(registry, str(tmp_path)).declare(registry)

    for cause in ("SIGKILL", "SIGSEGV", "SIGABRT", "timeout"):
        lost = {"url_rule": UNMATCHED, "cause": cause}
        assert registry.get_sample_value("flask_worker_deaths_total", {"cause": cause}) == 0.0
        assert registry.get_sample_value("flask_http_requests_lost_total", lost) == 0.0


def test_the_dead_are_buried_five_seconds_after_they_were_first_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their master, which knows the cause, has so much time to do it."""
    clock = Clock(monkeypatch)
    losses = Losses(CollectorRegistry(), str(tmp_path))
    die_answering(tmp_path)
    losses.refresh()

    clock.advance(4.75)
    losses.refresh()
    assert deaths.latest(str(tmp_path)) == []

    clock.advance(0.25)
    losses.refresh()
    assert [death.cause for death in deaths.latest(str(tmp_path))] == ["unknown"]


def test_the_dead_are_looked_for_every_five_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a directory that is gone is a failure every five seconds, not every second."""
    clock = Clock(monkeypatch)
    losses = Losses(CollectorRegistry(), str(tmp_path / "gone"))
    failures = []
    for second in range(12):
        try:
            losses.refresh()
        except FileNotFoundError:
            failures.append(second)
        clock.advance(1.0)

    assert failures == [0, 5, 10]


def test_a_file_without_new_deaths_is_not_waited_for(tmp_path: Path) -> None:
    """Whoever holds it, a worker that has counted all of them goes on."""
    registry = CollectorRegistry()
    losses = Losses(registry, str(tmp_path))
    deaths.bury(str(tmp_path), 7, "SIGKILL")
    losses.refresh()
    losses.refresh()
    with (tmp_path / deaths.FILE).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        losses.refresh()

    assert registry.get_sample_value("flask_worker_deaths_total", {"cause": "SIGKILL"}) == 1.0
