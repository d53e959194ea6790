"""reference/metrics.md: every family of the exporter, as a service with one route exposes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Flask
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from docs.writers.markdown import code, items, page, section, table
from exporter import FlaskExporter
from exporter.worker.worker import capacity, serve_with

# What the help text leaves open.
NOTES = {
    "flask_http_request_duration_seconds": "It ends when the body has been handed to the server, that of a stream too. "
    "Exemplars carry `request_id` and `trace_id`. A native histogram too, for a Prometheus that scrapes protobuf.",
    "flask_http_request_exceptions_total": "Exceptions that a handler answered do not count.",
    "flask_http_request_error_group_total": "Each group is one bug: "
    "[error groups](../explanation/error-groups.md) says what makes one.",
    "flask_http_request_oldest_seconds": "It has labels from 1 s on.",
    "flask_http_requests_lost_total": "[cause](words.md#cause) says of what the worker died.",
    "flask_http_request_duration_min_seconds": "Exact.",
    "flask_http_request_duration_max_seconds": "Exact.",
    "flask_http_request_queue_seconds": "Only `X-Request-Start` of a proxy in `EXPORTER_TRUSTED_PROXIES` counts. "
    "A native histogram too.",
    "flask_http_request_slow_seconds_total": "A request is slow from `EXPORTER_SLOW` on. `where` is `module:function` "
    "of your own code, or a template.",
    "flask_http_client_disconnects_total": "Not those of files that uWSGI sends by itself (`send_file`), which count with "
    "all bytes.",
    "flask_health_check_up": "`check` is the name that `@exporter.health_check` gave.",
    "flask_worker_threads": "Over all workers. The hooks of gunicorn and uWSGI know the number.",
    "flask_worker_threads_busy": "A thread is busy while it serves a request, or sends an answer to a slow client.",
    "flask_worker_deaths_total": "[cause](words.md#cause) says of what.",
    "flask_app_info": "`version` is `EXPORTER_APP_VERSION`.",
    "flask_exporter_mode": "[mode](words.md#mode) is `single` or `multiprocess`.",
    "flask_exporter_series_dropped_total": "The cap is `EXPORTER_MAX_SERIES`.",
    "flask_exporter_worker_files": "[state](words.md#state) is `live`, `archive` or `corrupt`.",
    "flask_exporter_failures_total": "No request is affected. [stage](words.md#stage) says what failed.",
}

# When a family has series, if a healthy service does not have any after its first request, or not every service has.
LATER = {
    "flask_http_request_exceptions_total": "from the first exception that nobody handled",
    "flask_http_request_errors_total": "from the first error",
    "flask_http_request_error_group_total": "from the first exception of the application's own code",
    "flask_http_request_slow_seconds_total": "from the first slow request",
    "flask_http_client_disconnects_total": "from the first client that left",
    "flask_health_check_up": "where the application has a health check",
    "flask_worker_threads": "where the server's hooks tell the number: gunicorn, uWSGI",
}

# The beginnings of names: requests first, the exporter itself last.
ORDER = (
    *("http_request_duration_seconds", "http_request_total", "http_request_exceptions", "http_request_error"),
    *("http_request_duration", "http_request", "http", "health", "log", "worker", "app", "exporter"),
)

LABELS = """\
- `url_rule` is Flask's rule, such as `/orders/<int:id>`, and `_unmatched` where none matched. `method` is one of the nine
  standard ones or `_OTHER`. `error_type` is the class of the exception or HTTP error.
- A family has at most `EXPORTER_MAX_SERIES` label sets. What comes later keeps a known `url_rule` and folds method and status;
  paths and methods that a client makes up never become labels.
- A websocket is one request of its whole life with status 101, and a long poll one of its wait. Make the exporter before
  Flask-SocketIO, or set `excluded_paths="/socket.io"`, to leave them out of latencies and busy threads.
- GET with 200 and 500 of the first 50 rules exist at 0 from the start, so that the first error is seen by `increase()`: some 3,000
  series with the default buckets. Those of further rules begin with their first request.
- Counters outlive workers: a worker that exits, is recycled or is killed leaves its counts behind.
- Durations and queue times are native histograms too (eight buckets to a power of two), and series say when they began: for a
  Prometheus that scrapes protobuf. Others, such as VictoriaMetrics, get text with the classic buckets.
- `defaults_prefix`, `group_by` and `default_labels` change names and labels; the rules and dashboards are for the defaults.
"""


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name with the suffix of a counter, its labels, and whether it has series."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...]
    present: bool

    @property
    def unit(self) -> str:
        """Seconds or bytes; "" for a number of things."""
        words = self.name.removesuffix("_total").split("_")
        return words[-1] if words[-1] in ("seconds", "bytes") else ""


class _Registry(CollectorRegistry):
    """Remembers its collectors, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.collectors: list[Collector] = []

    def register(self, collector: Collector) -> None:
        super().register(collector)
        self.collectors.append(collector)


def families(**settings: Any) -> dict[str, Family]:
    """The families of a service with one route and one health check, after a request, by name."""
    registry, threads = _Registry(), capacity()
    app = Flask("shop")
    exporter = FlaskExporter(app, registry=registry, **settings)
    app.add_url_rule("/items", "items", lambda: "tea\n")
    exporter.health_check("database")(lambda: True)
    serve_with(8)
    try:
        client = app.test_client()
        client.get("/items")
        client.get("/metrics")
    finally:
        serve_with(threads)
    found = [family for collector in registry.collectors for family in _of(collector)]
    return {family.name: family for family in sorted(found, key=_place)}


def _place(family: Family) -> int:
    name = family.name.partition("_")[2]
    return next(at for at, beginning in enumerate(ORDER) if name.startswith(beginning))


def _of(collector: Collector) -> list[Family]:
    return [
        Family(
            name=metric.name + ("_total" if metric.type == "counter" else ""),
            type=metric.type,
            help=metric.documentation,
            labels=tuple(getattr(collector, "_labelnames", ()) or getattr(metric, "_labelnames", ())),
            present=bool(metric.samples),
        )
        for metric in collector.collect()
    ]


def text() -> str:
    """The page; KeyError for a note on a metric that there is not, or for one that says not when it exists."""
    every, parents = families(app_version="1.0.0"), families(extended=False)
    for name in [*NOTES, *LATER]:
        every[name]
    rows = [
        [f"[{code(family.name)}](#{family.name})", family.type, ", ".join(family.labels), family.help]
        for family in every.values()
    ]
    return page(
        "Metrics",
        "docs/writers/metrics.py and the exporter",
        "Every family that a service exposes, with the default settings. `EXPORTER_PREFIX` changes the first word.",
        table(["metric", "type", "labels", "help"], rows),
        section("What holds for all", LABELS),
        *(_section(family, bare=family.name in parents) for family in every.values()),
    )


def _section(family: Family, *, bare: bool) -> str:
    exists = LATER.get(family.name, "from the start") if family.present else LATER[family.name]
    facts = [
        f"type: {family.type}",
        f"labels: {', '.join(map(code, family.labels)) or 'none'}",
        *([f"unit: {family.unit}"] if family.unit else []),
        f"exists: {exists}" + ("; with `EXPORTER_EXTENDED=off` too" if bare else ""),
    ]
    return section(code(family.name), f"{family.help}. {NOTES.get(family.name, '')}".strip(), items(facts))
