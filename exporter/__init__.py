"""Flask requests, measured for Prometheus.

`FlaskExporter` is a drop-in replacement for `prometheus_flask_exporter.PrometheusMetrics`:

    from flask import Flask
    from exporter import FlaskExporter

    app = Flask(__name__)
    exporter = FlaskExporter(app)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporter.extension import NO_PREFIX, FlaskExporter
    from exporter.settings import Settings, SettingsError

__all__ = ["NO_PREFIX", "FlaskExporter", "Settings", "SettingsError", "__version__"]

__version__ = "0.1.0"

_HOMES = {
    "FlaskExporter": "exporter.extension",
    "NO_PREFIX": "exporter.extension",
    "Settings": "exporter.settings",
    "SettingsError": "exporter.settings",
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
