"""The reference says what the code has, no less and no more."""

import json
import time
from pathlib import Path

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

import app as service
from docs import build
from docs.writers import commands, log, metrics, settings
from exporter import FlaskExporter, Settings


def test_pages_are_current() -> None:
    """`make reference` would change none of them."""
    committed = {path.name: path.read_text(encoding="utf-8") for path in build.REFERENCE.glob("*.md")}

    assert build.documents() == committed


def test_metrics_are_those_of_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, type and labels of every family that the demo exposes."""
    monkeypatch.setattr("exporter.worker.worker._threads", 8)
    demo = service.create_app({"DATABASE": str(tmp_path / "orders.db")}, registry=CollectorRegistry())
    client = demo.test_client()
    for path in ("/orders", "/test/error", "/test/stream", "/test/slow?seconds=0.6"):
        client.get(path, buffered=False).close()
    exposed = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        if family.name.startswith("flask_") and not family.name.endswith("_created"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            exposed[name] = (family.type, labels)

    assert {name: (family.type, set(family.labels)) for name, family in metrics.families().items()} == exposed


@pytest.mark.parametrize(("name", "default"), [row[:2] for row in settings.exporter_rows()])
def test_a_default_is_what_the_variable_would_say(name: str, default: str) -> None:
    """A user who sets a variable to its default changes nothing."""
    assert Settings.load({name: default} if default else {}) == Settings()


def test_every_setting_but_files_refuses_something() -> None:
    """The message has the name, the value and the remedy."""
    silent = [name for name, *_ in settings.exporter_rows() if not settings.refusal(name)]

    assert silent == ["EXPORTER_TOKEN_FILE", "EXPORTER_LOG_MASK"]


def test_log_fields(tmp_path: Path) -> None:
    """Those of a slow request that fails, and of records with a stack and with a traceback."""
    path = tmp_path / "requests.jsonl"
    app = Flask("shop")
    exporter = FlaskExporter(
        app, registry=CollectorRegistry(), request_log=str(path), log_query=True, slow=0.05
    )

    @app.get("/items")
    def items() -> str:
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            pass
        app.logger.warning("no items", stack_info=True)
        raise ValueError("no tea")

    try:
        app.test_client().get("/items?page=2")
    finally:
        exporter.core.request_log.close()
    warning, error, request = (json.loads(line) for line in path.read_text().splitlines())

    assert list(request) == list(log.REQUEST)
    assert [name for name in log.RECORD if name in warning] == list(warning)
    assert [name for name in log.RECORD if name in error] == list(error)
    assert warning.keys() | error.keys() == log.RECORD.keys()


def test_each_target_of_the_makefile_is_there() -> None:
    """`make help` lists the same."""
    makefile = (commands.TOP / "Makefile").read_text(encoding="utf-8")
    helped = [line.partition(":")[0] for line in makefile.splitlines() if ":" in line and " ## " in line]

    assert [name for name, *_ in commands.targets()] == [f"make {name}" for name in helped]
