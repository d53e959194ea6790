"""The service that is observed: a small shop's orders, and faults on demand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from flask import Flask
from prometheus_client import CollectorRegistry

from app import errors, faults, orders, pages
from exporter import FlaskExporter

__version__ = "1.0.0"

# Each may come from the environment as APP_<NAME>. The addresses are the browser's way to the rest
# of the stack; an empty one means that this part is not running. API_ONLY: Prometheus and Alertmanager
# have no web interface (Debian's have none), so link to their APIs.
SETTINGS = {
    "DATABASE": "data/orders.db",
    "VERSION": __version__,
    "PROMETHEUS_URL": "http://127.0.0.1:9090",
    "ALERTMANAGER_URL": "http://127.0.0.1:9093",
    "GRAFANA_URL": "http://127.0.0.1:3000",
    "API_ONLY": "0",
}


def create_app(config: Mapping[str, Any] | None = None, registry: CollectorRegistry | None = None) -> Flask:
    """Build the service.

    ``config`` overrides SETTINGS and takes any other Flask setting. Several apps in one process need
    a ``registry`` each, because each declares the shop's own metrics; left out, it is the process's.

    Raises ValueError for a setting that cannot be used, and OSError for a database that cannot be made.
    """
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 16 * 1024
    app.config.update({name: os.environ.get(f"APP_{name}", default) for name, default in SETTINGS.items()})
    app.config.update(config or {})

    exporter = FlaskExporter.for_app_factory(
        registry=registry,
        app_version=app.config["VERSION"],
        request_log=os.environ.get("EXPORTER_REQUEST_LOG", "stdout"),
    )
    exporter.init_app(app)

    errors.init_app(app)
    app.register_blueprint(pages.blueprint(app.config))
    app.register_blueprint(orders.blueprint(exporter, app.config["DATABASE"]))
    app.register_blueprint(faults.blueprint)
    return app
