"""The demo service that the stack observes: the orders of a small shop, and faults on demand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from flask import Flask
from prometheus_client import CollectorRegistry

from app import errors, faults, orders, pages
from exporter import FlaskExporter

__version__ = "1.0.0"

# The environment variable APP_<NAME> replaces a default. Browsers reach the other parts of the stack at
# the URLs; an empty URL means that this part is not running. API_ONLY links to the APIs of Prometheus and
# Alertmanager, because some builds, such as Debian's, have no web interface.
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

    ``config`` overrides SETTINGS and takes any other Flask setting. The ``registry`` is the process's by
    default. Several apps in one process need one each, because each app declares the shop's own metrics.

    Raises ValueError for an invalid setting, and OSError if it cannot create the database.
    """
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 16 * 1024
    app.config.update({name: os.environ.get(f"APP_{name}", default) for name, default in SETTINGS.items()})
    app.config.update(config or {})

    entrances = pages.entrances(app.config)
    exporter = FlaskExporter.for_app_factory(
        registry=registry,
        app_version=app.config["VERSION"],
        prometheus_url=entrances["Prometheus"],
        alertmanager_url=entrances["Alertmanager"],
        grafana_url=entrances["Grafana"],
        request_log=os.environ.get("EXPORTER_REQUEST_LOG", "stdout"),
    )
    exporter.init_app(app)

    errors.init_app(app)
    app.register_blueprint(pages.blueprint(app.config))
    app.register_blueprint(orders.blueprint(exporter, app.config["DATABASE"]))
    app.register_blueprint(faults.blueprint)
    return app
