"""Families that are computed at a scrape: applications that share a registry share them."""

from __future__ import annotations

import gc
from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from exporter.worker.declared import Declared
from exporter.worker.live import Live


class Stock:
    """An application's part of a family: its goods by name."""

    def __init__(self, family: str, **goods: float) -> None:
        self._family = family
        self._goods = goods

    def describe(self) -> Iterable[Metric]:
        return [GaugeMetricFamily(self._family, "help", labels=["good"])]

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self._family, "help", labels=["good"])
        for good, number in self._goods.items():
            family.add_metric([good], number)
        return [family]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def samples(registry: CollectorRegistry) -> dict[str, dict[str, float]]:
    """The values of each family by the values of its label, in the order of the registry."""
    return {
        family.name: {",".join(sample.labels.values()): sample.value for sample in family.samples}
        for family in registry.collect()
    }


def test_of_two_that_have_a_series_the_first_one_counts(registry: CollectorRegistry) -> None:
    live = Live(Declared(registry))
    first, second = Stock("stock", apples=1.0, pears=2.0), Stock("stock", pears=3.0, plums=4.0)
    live.add(first, second)
    (family,) = registry.collect()

    assert [(sample.labels["good"], sample.value) for sample in family.samples] == [
        ("apples", 1.0),
        ("pears", 2.0),
        ("plums", 4.0),
    ]


def test_the_families_of_an_application_go_with_it_and_others_stay_in_their_place(
    registry: CollectorRegistry,
) -> None:
    live = Live(Declared(registry))
    first = Stock("stock", apples=1.0)
    live.add(first)
    Gauge("temperature", "help", registry=registry)
    second = Stock("stock", plums=4.0)
    live.add(second)
    assert list(samples(registry).items()) == [
        ("stock", {"apples": 1.0, "plums": 4.0}),
        ("temperature", {"": 0.0}),
    ]

    del first
    gc.collect()
    assert samples(registry)["stock"] == {"plums": 4.0}


@pytest.mark.parametrize("goods", [{}, {"apples": 1.0}], ids=["the only one", "the second one"])
def test_an_application_that_is_refused_costs_others_nothing(
    goods: dict[str, float], registry: CollectorRegistry
) -> None:
    """Somebody else has one of its families; another application can be added afterwards."""
    declared = Declared(registry)
    live = Live(declared)
    first, refused, last = Stock("stock", **goods), Stock("temperature"), Stock("rooms", one=1.0)
    Gauge("temperature", "help", registry=registry)
    if goods:
        live.add(first)
    with pytest.raises(ValueError, match="temperature"):
        live.add(refused)

    assert declared.complete
    stock = {"stock": goods} if goods else {}
    assert samples(registry) == {"temperature": {"": 0.0}, **stock}
    live.add(last)
    assert samples(registry) == {"temperature": {"": 0.0}, **stock, "rooms": {"one": 1.0}}
