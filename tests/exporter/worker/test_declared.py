"""The metrics that a process has declared: whether its registry still has them."""

from __future__ import annotations

from typing import cast

from prometheus_client import CollectorRegistry, Gauge

from exporter.worker.declared import Declared


def test_a_metric_that_was_taken_back_is_not_missed_and_one_that_a_test_removed_is() -> None:
    registry = CollectorRegistry()
    declared = Declared(registry)
    first, second = (
        Gauge(name, "help", registry=cast("CollectorRegistry", declared)) for name in ("first", "second")
    )
    declared.unregister(first)
    assert declared.complete

    registry.unregister(second)
    assert not declared.complete
