"""The metric families of requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, Summary

from exporter.observation import Fingerprint

# Sizes span from an empty answer to an upload: people ask for powers of ten.
SIZE_BUCKETS = (1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The names, labels and buckets of the families under one prefix."""

    prefix: str
    """With its underscore, or ""."""
    group: str
    """The label that requests are grouped by."""
    extra: tuple[str, ...]
    """The names of the default labels."""
    buckets: Sequence[float]
    """Upper bounds of durations, in seconds."""
    as_histogram: bool
    """Whether durations are a histogram; else they are a summary."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of durations."""
        return ("method", self.group, "status", *self.extra)


class Metrics:
    """The families that prometheus_flask_exporter has too."""

    def __init__(self, registry: CollectorRegistry, shape: Shape) -> None:
        """Raises ValueError if the registry has one of the names already."""
        self.shape = shape
        name = f"{shape.prefix}http_request_duration_seconds"
        text = "Flask HTTP request duration in seconds"
        self.duration: Histogram | Summary = (
            Histogram(name, text, shape.labels, buckets=shape.buckets, registry=registry)
            if shape.as_histogram
            else Summary(name, text, shape.labels, registry=registry)
        )
        self.total = Counter(
            f"{shape.prefix}http_request_total",
            "Total number of HTTP requests",
            ("method", "status", *shape.extra),
            registry=registry,
        )
        self.exceptions = Counter(
            f"{shape.prefix}http_request_exceptions_total",
            "Total number of HTTP requests which resulted in an exception",
            ("method", "status", *shape.extra),
            registry=registry,
        )

    def when_cleared(self, tell: Callable[[], None]) -> None:
        """Call `tell` whenever somebody, as tests do, removes series of these families."""
        for family in vars(self).values():
            for name in ("clear", "remove", "remove_by_labels"):
                if hasattr(family, name):
                    setattr(family, name, partial(_remove_and_tell, getattr(family, name), tell))


def _remove_and_tell(remove: Callable[..., None], tell: Callable[[], None], *labels: Any) -> None:
    remove(*labels)
    tell()


class ExtendedMetrics(Metrics):
    """The families that prometheus_flask_exporter has, and ours."""

    def __init__(self, registry: CollectorRegistry, shape: Shape) -> None:
        """Raises ValueError if the registry has one of the names already."""
        super().__init__(registry, shape)
        prefix, group = shape.prefix, shape.group
        sizes = partial(
            Histogram, labelnames=("method", group, *shape.extra), buckets=SIZE_BUCKETS, registry=registry
        )
        self.errors = Counter(
            f"{prefix}http_request_errors_total",
            "Responses of 400 or more and exceptions, handled or not, by the error's type",
            ("method", group, "status", "error_type", *shape.extra),
            registry=registry,
        )
        self.error_groups = Counter(
            f"{prefix}http_request_error_group_total",
            "Requests in which the application's code failed, by the group of the exception",
            Fingerprint._fields,
            registry=registry,
        )
        self.request_size = sizes(f"{prefix}http_request_size_bytes", "Size of request bodies")
        self.response_size = sizes(f"{prefix}http_response_size_bytes", "Size of response bodies")
        self.queue = Histogram(
            f"{prefix}http_request_queue_seconds",
            "Time from a declared proxy's X-Request-Start until the application took the request",
            buckets=shape.buckets,
            registry=registry,
        )
        self.slow = Counter(
            f"{prefix}http_request_slow_seconds_total",
            "Seconds of slow requests, by the place in the application's own code where they waited",
            (group, "where"),
            registry=registry,
        )
        self.disconnects = Counter(
            f"{prefix}http_client_disconnects_total",
            "Responses that the client or server gave up before the body had been handed over",
            (group,),
            registry=registry,
        )
