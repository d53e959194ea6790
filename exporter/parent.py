"""prometheus_flask_exporter's class, with the types that it lacks and support for async views."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from flask import current_app, request
from prometheus_flask_exporter import NO_PREFIX, PrometheusMetrics

from exporter import client

__all__ = ["NO_PREFIX", "Parent"]

if TYPE_CHECKING:
    from flask import Flask
    from prometheus_client import CollectorRegistry, Gauge

View = TypeVar("View", bound=Callable[..., Any])
Labels = Mapping[str, Any]
"""Values of labels by their names: constants, or functions of nothing or of the response."""


class Decorator(Protocol):
    """Returns a view of the same type."""

    def __call__(self, view: View, /) -> View: ...


client.require(
    "prometheus-flask-exporter",
    "0.22.4 to 0.23",
    {
        PrometheusMetrics: "_export_defaults _metrics_decorator _defaults_prefix "
        "_default_latency_as_histogram _get_combined_labels"
    },
)


class Parent(PrometheusMetrics):  # type: ignore[misc]
    """`PrometheusMetrics` with the types of its public methods."""

    @staticmethod
    def do_not_track() -> Decorator:
        """Leave a view out of every metric but those of its own decorators."""
        return partial(_with_mark, "prom_do_not_track")

    @staticmethod
    def exclude_all_metrics() -> Decorator:
        """Leave a view out of every metric."""
        return partial(_with_mark, "prom_exclude_all")

    def _track(self, *args: Any, **kwargs: Any) -> Decorator:
        """The common part of all metric decorators; on an excluded path the parent awaits no view."""
        track: Decorator = super()._track(*args, **kwargs)
        return lambda view: track(_synchronous(view) if iscoroutinefunction(view) else view)

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
            """Count the calls of a view that are in progress."""

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

        def info(
            self,
            name: str,
            description: str,
            labelnames: Any = None,
            labelvalues: Any = None,
            **labels: Any,
        ) -> Gauge:
            """Expose constant facts as a gauge of 1."""


def _synchronous(view: Any) -> Any:
    @wraps(view)
    def call(*args: Any, **kwargs: Any) -> Any:
        return current_app.ensure_sync(view)(*args, **kwargs)

    return call


def _with_mark(mark: str, view: Any) -> Any:
    """The view, which marks its request first; unlike in the parent, an async view stays async."""
    if iscoroutinefunction(view):

        @wraps(view)
        async def mark_and_await(*args: Any, **kwargs: Any) -> Any:
            setattr(request, mark, True)
            return await view(*args, **kwargs)

        return mark_and_await

    @wraps(view)
    def mark_and_call(*args: Any, **kwargs: Any) -> Any:
        setattr(request, mark, True)
        return view(*args, **kwargs)

    return mark_and_call
