"""The service `shop`, whose version 2.4.0 makes /checkout three times slower and lets it fail."""

from __future__ import annotations

import os
import random
import signal
import time

from flask import Flask

from exporter import FlaskExporter

GOOD, BROKEN = "2.3.0", "2.4.0"
FAILURES = 0.15
"""The share of the broken version's checkouts that fail."""


class InventoryTimeoutError(Exception):
    """The warehouse did not answer."""


def create_app() -> Flask:
    """Build the service, of the version in SHOP_VERSION."""
    version = os.environ["SHOP_VERSION"]
    app = Flask("shop")
    FlaskExporter(app, app_version=version)
    leaks: list[bytes] = []

    @app.get("/")
    def start() -> str:
        return "shop"

    @app.get("/items")
    def items() -> str:
        return "items"

    @app.get("/checkout")
    def checkout() -> str:
        seconds = random.uniform(0.15, 0.25)
        time.sleep(seconds * 3 if version == BROKEN else seconds)
        if version == BROKEN and random.random() < FAILURES:
            raise InventoryTimeoutError("the warehouse did not answer")
        return "bought"

    @app.get("/leak")
    def leak() -> str:
        leaks.append(os.urandom(80_000_000))
        return "gone"

    @app.get("/crash")
    def crash() -> str:
        signal.raise_signal(signal.SIGSEGV)  # to this thread: another one would let it answer
        return "never sent"

    return app
