"""prometheus_flask_exporter's class with the types that it lacks, and for async views."""

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
    """Gives a view back as it is typed."""

    def __call__(self, view: View, /) -> View: ...


client.require(
    "prometheus-flask-exporter",
    "0.22.4 to 0.23",
    {
        PrometheusMetrics: "_export_defaults _metrics_decorator _defaults_prefix "
        "_default_latency_as_histogram _get_combined_labels"
    },
)


class Parent(PrometheusMetrics):  # type: ignore[misc, unused-ignore]
    """`PrometheusMetrics` as its users call it."""

    @staticmethod
    def do_not_track() -> Decorator:
        """Leave a view out of every metric but those of its own decorators."""
        return partial(_marked, "prom_do_not_track")

    @staticmethod
    def exclude_all_metrics() -> Decorator:
        """Leave a view out of every metric."""
        return partial(_marked, "prom_exclude_all")

    def _track(self, *args: Any, **kwargs: Any) -> Decorator:
        """What the decorators of metrics have in common; on an excluded path the parent awaits no view."""
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
    def awaited(*args: Any, **kwargs: Any) -> Any:
        return current_app.ensure_sync(view)(*args, **kwargs)

    return awaited


def _marked(mark: str, view: Any) -> Any:
    """The view with a mark on its request; unlike the parent's, an async view stays one."""
    if iscoroutinefunction(view):

        @wraps(view)
        async def marked_later(*args: Any, **kwargs: Any) -> Any:
            setattr(request, mark, True)
            return await view(*args, **kwargs)

        return marked_later

    @wraps(view)
    def marked(*args: Any, **kwargs: Any) -> Any:
        setattr(request, mark, True)
        return view(*args, **kwargs)

    return marked
