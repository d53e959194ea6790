"""What a user writes; every checker must take it."""

from __future__ import annotations

import logging

from flask import Flask, Response
from prometheus_client import CollectorRegistry

from exporter import NO_PREFIX, FlaskExporter, RequestContext, Settings, SettingsError, request_id

app = Flask(__name__)
exporter = FlaskExporter(app, registry=CollectorRegistry(), max_series=500, allow="10.0.0.0/8")
factory = FlaskExporter.for_app_factory(group_by="endpoint", defaults_prefix=NO_PREFIX)


def status_of(response: Response) -> int:
    return response.status_code


@app.get("/orders/<int:number>")
@exporter.counter("orders", "Orders shown", labels={"status": status_of})
@exporter.histogram("order_seconds", "Time to show an order", buckets=(0.1, 1.0))
@exporter.do_not_track()
def show(number: int) -> str:
    return f"{number} {request_id()}"


@exporter.health_check("database", timeout=0.5)
def database() -> bool:
    return True


text: str = show(7)
up: bool = database()
series: int = Settings.load().max_series
logging.getLogger().addFilter(RequestContext())

try:
    factory.init_app(Flask("orders"))
except SettingsError as error:
    name: str = error.setting
