"""prometheus_flask_exporter's class with the types that it lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from prometheus_flask_exporter import NO_PREFIX, PrometheusMetrics

__all__ = ["NO_PREFIX", "Parent"]

if TYPE_CHECKING:
    from flask import Flask
    from prometheus_client import CollectorRegistry, Gauge

View = TypeVar("View", bound=Callable[..., Any])
Labels = Mapping[str, Any]
"""Values of labels by their names: constants, or functions of nothing or of the response."""


class Decorator(Protocol):
    """Gives a view back as it is typed."""

    def __call__(self, view: View, /) -> View: ...


class Parent(PrometheusMetrics):  # type: ignore[misc, unused-ignore]
    """`PrometheusMetrics` as its users call it."""

    if TYPE_CHECKING:
        app: Flask | None
        path: str | None
        registry: CollectorRegistry
        buckets: tuple[float, ...]
        group_by: str | Callable[..., Any]

        def counter(
            self,
            name: str,
            description: str,
            labels: Labels | None = None,
            initial_value_when_only_static_labels: bool = True,
            **kwargs: Any,
        ) -> Decorator:
            """Count the calls of a view."""

        def gauge(
            self,
            name: str,
            description: str,
            labels: Labels | None = None,
            initial_value_when_only_static_labels: bool = True,
            **kwargs: Any,
        ) -> Decorator:
            """Tell how many calls of a view are in progress."""

        def histogram(
            self,
            name: str,
            description: str,
            labels: Labels | None = None,
            initial_value_when_only_static_labels: bool = True,
            **kwargs: Any,
        ) -> Decorator:
            """Observe the seconds that the calls of a view take."""

        def summary(
            self,
            name: str,
            description: str,
            labels: Labels | None = None,
            initial_value_when_only_static_labels: bool = True,
            **kwargs: Any,
        ) -> Decorator:
            """Observe the seconds that the calls of a view take, without buckets."""

        @staticmethod
        def do_not_track() -> Decorator:
            """Leave a view out of every metric but those of its own decorators."""

        @staticmethod
        def exclude_all_metrics() -> Decorator:
            """Leave a view out of every metric."""

        def info(
            self,
            name: str,
            description: str,
            labelnames: Any = None,
            labelvalues: Any = None,
            **labels: Any,
        ) -> Gauge:
            """Expose constant facts as a gauge of 1."""
