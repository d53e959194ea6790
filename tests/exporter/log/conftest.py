"""A request log in a file, and an application that writes one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry

from exporter import FlaskExporter
from exporter.log.requestlog import RequestLog
from exporter.settings import Settings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "requests.log"


@pytest.fixture
def log(path: Path) -> Iterator[Callable[..., RequestLog]]:
    """Makes request logs into `path`, closed at the end."""
    made: list[RequestLog] = []

    def make(**settings: Any) -> RequestLog:
        made.append(RequestLog(Settings.load({}, **{"request_log": str(path), **settings})))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def app(path: Path) -> Iterator[Flask]:
    """An application with the request log on."""
    app = Flask("orders")
    exporter = FlaskExporter(app, registry=CollectorRegistry(), request_log=str(path))

    @app.get("/orders/<int:number>")
    def show(number: int) -> str:
        logging.getLogger("stock").warning(
            "low\n%s", "\x1b[31mred", extra={"left": 3, "parts": [1], "at": float("nan")}
        )
        return str(number)

    @app.get("/boom")
    def boom() -> str:
        raise ValueError("bad\r\nnumber")

    @app.get("/stream/<int:chunks>")
    def stream(chunks: int) -> Iterator[str]:
        yield from ["chunk"] * chunks
        raise ValueError("half-way")

    yield app
    exporter.core.request_log.close()
