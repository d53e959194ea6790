"""Flask requests, measured for Prometheus.

`FlaskExporter` is a drop-in replacement for `prometheus_flask_exporter.PrometheusMetrics`:

    from flask import Flask
    from exporter import FlaskExporter

    app = Flask(__name__)
    exporter = FlaskExporter(app)

Public are the names below, the modules `exporter.wsgi`, `exporter.gunicorn`, `exporter.uwsgi` and
`exporter.prefork`, and the commands of `python -m exporter`. Everything else is private and may move.

Ten words mean the same everywhere in this package:

- *observation*: one request and its answer, as everything that records it sees them.
- *exchange*: an observation on its way, which is the `start_response` and the body of its answer.
- *outcome*: the common properties of requests with the same method, rule and status.
- *recorder*: the function that adds an observation to every family of its label set.
- *slot*: the place in a ring for one request, for one error group, or for one second of one group: the count,
  the errors, the minimum and the maximum.
- *ring*: a numbered file that one worker writes, and that the next worker takes over.
- *archive*: the file with the counts of all dead workers.
- *family*: a metric with its name, type and help text, and all its series.
- *source*: the place where a scrape finds its families: a registry or a worker directory.
- *sink*: a receiver of each recorded observation beside the flight recorder: the request log.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from exporter.version import __version__

if TYPE_CHECKING:
    from exporter.extension import NO_PREFIX, FlaskExporter
    from exporter.log.records import RequestContext, request_id
    from exporter.pages.access import TokenError
    from exporter.settings import Settings, SettingsError

__all__ = [
    "NO_PREFIX",
    "FlaskExporter",
    "RequestContext",
    "Settings",
    "SettingsError",
    "TokenError",
    "__version__",
    "request_id",
]

_HOMES = {
    "FlaskExporter": "exporter.extension",
    "NO_PREFIX": "exporter.extension",
    "RequestContext": "exporter.log.records",
    "Settings": "exporter.settings",
    "SettingsError": "exporter.settings",
    "TokenError": "exporter.pages.access",
    "request_id": "exporter.log.records",
}


# prometheus_client decides at its first import whether values live in worker files, so
# `gunicorn -c python:exporter.gunicorn` must be able to import this package before it.
def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(_HOMES[name])
    except AttributeError as error:
        # `from exporter import …` would hide this error behind "cannot import name".
        raise ImportError(f"{_HOMES[name]} cannot be imported: {error}", name=name) from error
    return getattr(module, name)
