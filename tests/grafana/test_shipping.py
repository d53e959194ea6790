"""The request log reaches Loki as labels, structured metadata and lines that Loki takes."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from app import create_app
from tests.rig.logs import ALLOY, GRAFANA, LOKI, names

# https://grafana.com/docs/loki/latest/configure/#limits_config
MAX_LABEL_VALUE, MAX_LINE, MAX_STRUCTURED_METADATA = 2_048, 256 * 1024, 64 * 1024


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, object]]]:
    """What the app logs about an answer, an error with its traceback, and a path longer than any in use."""
    log = tmp_path / "requests.jsonl"
    monkeypatch.setenv("EXPORTER_REQUEST_LOG", str(log))
    handlers = list(logging.root.handlers)
    app = create_app({"DATABASE": str(tmp_path / "orders.db")}, registry=CollectorRegistry())
    client = app.test_client()
    client.get("/orders")
    client.get("/test/error")
    client.get("/test/slow?seconds=0.6")
    client.get("/" + "\N{SNOWMAN}" * 10_000)
    yield [json.loads(line) for line in log.read_text().splitlines()]
    logging.root.handlers[:] = handlers


def test_only_what_has_few_values_becomes_a_label() -> None:
    """Each combination of label values is a stream: a request id as a label would make one a request."""
    ((job, service),) = re.findall(r'__path__ = "[^"]+", (\w+) = "app", (\w+) = "orders"', ALLOY)

    assert names("labels") | {job, service} == {"job", "service", "level", "url_rule", "status_class"}
    assert 'label_drop {\n    values = ["filename"]' in ALLOY
    assert LOKI["limits_config"]["discover_service_name"] == []
    assert LOKI["limits_config"]["discover_log_levels"] is False


def test_everything_else_is_structured_metadata(lines: list[dict[str, object]]) -> None:
    """What the log says of a request can be searched for without parsing, by its name in the log."""
    about_requests = set().union(*(line for line in lines if line["logger"] == "exporter.request"))

    assert names("structured_metadata") == about_requests - {
        "timestamp",
        "message",
        "level",
        "url_rule",
        "shares",  # an object: it stays in the line
    }
    assert names("json") == about_requests - {"message", "shares"}


def test_lines_are_within_the_limits_of_loki(lines: list[dict[str, object]]) -> None:
    """No request, however long its path, makes a line that Loki refuses."""
    metadata = names("structured_metadata")

    assert any("traceback" in line for line in lines)
    for line in lines:
        assert len(json.dumps(line)) < MAX_LINE
        assert len(str(line.get("url_rule", ""))) < MAX_LABEL_VALUE
        assert (
            sum(len(name) + len(str(line.get(name, "")).encode()) for name in metadata)
            < MAX_STRUCTURED_METADATA
        )


def test_lines_are_read_from_the_file_that_the_app_writes() -> None:
    """Compose names the file for the app, alloy.config for Alloy, and both see it at the same place."""
    services = yaml.safe_load((GRAFANA.parent / "docker-compose.yml").read_text())["services"]
    path = services["app"]["environment"]["EXPORTER_REQUEST_LOG"]

    assert f'__path__ = "{path}"' in ALLOY
    assert f"logs:{Path(path).parent}" in services["app"]["volumes"]
    assert f"logs:{Path(path).parent}:ro" in services["alloy"]["volumes"]


def test_the_log_is_kept_for_two_weeks() -> None:
    """Retention needs a period, a compactor that applies it, and a place for what it is going to delete."""

    assert LOKI["limits_config"]["retention_period"] == "336h"
    assert LOKI["compactor"]["retention_enabled"] is True
    assert LOKI["compactor"]["delete_request_store"] == "filesystem"
