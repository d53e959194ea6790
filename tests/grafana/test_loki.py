"""The dashboard Requests: its queries name what Alloy sends, and a real Loki answers each as it should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.request import Request

import pytest
import yaml

from grafana.build import documents
from tests.rig.clients import drive
from tests.rig.deadline import eventually
from tests.rig.logs import GRAFANA, LOKI, names
from tests.rig.network import free_ports, get_json, status
from tests.rig.server import threaded

BOARDS = [json.loads(documents()[f"Flask/{name}.json"]) for name in ("requests", "errors")]
QUERIES = {
    panel["title"]: (target["expr"], {variable["name"] for variable in board["templating"]["list"]})
    for board in BOARDS
    for outer in board["panels"]
    for panel in [outer, *outer.get("panels", ())]
    if panel["type"] != "row" and panel["datasource"]["type"] == "loki"
    for target in panel["targets"]
}
"""By the title of the panel: its query, and the variables of its page."""
TABLE = "Requests: type ${error_type:text}, status ${status_class:text}, slower than ${slower:text}"

SHOP = """
from app import create_app
app = create_app({"DATABASE": "orders.db"})
"""
REQUESTS = {
    "known-1": "/test/error",
    "known-12": "/test/error",
    "id-3": "/orders",
    "id-4": "/orders/424242",
    "id-5": "/test/slow?seconds=0.2",
}

# https://grafana.com/docs/loki/latest/configure/#accept-out-of-order-writes: half of max_chunk_age, 2 h;
# creation_grace_period: so far ahead of Loki's clock.
BEHIND, AHEAD = 3600.0, 600.0


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What four workers log about REQUESTS, in the order of the file."""
    directory = tmp_path_factory.mktemp("shop")
    log = directory / "requests.jsonl"
    with threaded(directory, SHOP, EXPORTER_REQUEST_LOG=str(log), PYTHONPATH=str(GRAFANA.parent)) as service:
        for request_id, path in REQUESTS.items():
            service.get(path, {"X-Request-ID": request_id})
    return [json.loads(line) for line in log.read_text().splitlines()]


def labels(line: dict[str, Any]) -> dict[str, str]:
    """The stream of a line, as alloy.config has it."""
    found = {"job": "app", "service": "orders", "level": line["level"], "url_rule": line.get("url_rule", "")}
    if "status" in line:
        found["status_class"] = f"{str(line['status'])[0]}xx"
    return {name: value for name, value in found.items() if value}


def seconds(line: dict[str, Any]) -> float:
    """When it was written, since the epoch."""
    return datetime.fromisoformat(line["timestamp"].replace("Z", "+00:00")).timestamp()


@pytest.fixture(scope="module")
def loki(tmp_path_factory: pytest.TempPathFactory, lines: list[dict[str, Any]]) -> Iterator[str]:
    """A Loki with the shipped configuration and these lines."""
    program = shutil.which("loki")
    if program is None:
        pytest.skip("NOT TESTED: queries on a real Loki (there is no loki on the PATH)")
    directory = tmp_path_factory.mktemp("loki")
    http, grpc = free_ports(2)
    text = (GRAFANA / "loki.yml").read_text().replace("/loki", str(directory))
    configuration = yaml.safe_load(text)
    configuration["server"] |= {
        "http_listen_address": "127.0.0.1",
        "http_listen_port": http,
        "grpc_listen_port": grpc,
    }
    (directory / "loki.yml").write_text(yaml.safe_dump(configuration))
    url = f"http://127.0.0.1:{http}"
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(
            [program, f"-config.file={directory}/loki.yml"], stdout=log, stderr=log, cwd=directory
        ) as process,
    ):
        try:
            eventually(lambda: status(f"{url}/ready") == 200, "Loki is ready", 60)
            assert status(_push(url, lines)) == 204
            yield url
        finally:
            process.terminate()


def _push(url: str, lines: list[dict[str, Any]]) -> Request:
    kept = names("structured_metadata")
    streams = [
        {
            "stream": labels(line),
            "values": [
                [
                    str(int(seconds(line) * 1e9)),
                    json.dumps(line),
                    {name: str(line[name]) for name in kept if line.get(name)},
                ]
            ],
        }
        for line in lines
    ]
    body = json.dumps({"streams": streams}).encode()
    return Request(f"{url}/loki/api/v1/push", body, {"Content-Type": "application/json"})


def answer(url: str, panel: str, **chosen: str) -> list[dict[str, Any]]:
    """What Loki returns for the panel, with everything selected but what is given."""
    values = {
        "job": "app",
        "service": ".*",
        "url_rule": ".*",
        "error_type": ".*",
        "status_class": ".*",
        "slower": "0",
        "find": "",
    } | chosen
    expression = re.sub(r"\$\{?(\w+)(?::pipe)?\}?", lambda match: values[match[1]], QUERIES[panel][0])
    now = time.time()
    asked = {"query": expression, "start": int((now - 600) * 1e9), "end": int(now * 1e9), "limit": 500}
    found: list[dict[str, Any]] = get_json(f"{url}/loki/api/v1/query_range?{urllib.parse.urlencode(asked)}")[
        "data"
    ]["result"]
    return found


def ids(found: list[dict[str, Any]]) -> list[str]:
    """The requests of the lines that were returned."""
    return sorted(stream["stream"]["request_id"] for stream in found for _ in stream["values"])


def test_queries_name_what_alloy_sends() -> None:
    """Labels in the selector, structured metadata behind it, and variables that the dashboard has."""
    assert len(QUERIES) == 3
    for expression, variables in QUERIES.values():
        selector, _, filters = expression.partition("}")
        assert set(re.findall(r'(\w+)=~?"', selector)) <= names("labels") | {"job", "service"}
        filtered = set(re.findall(r"(\w+) ?(?:=~|!=|=|>=)", re.sub(r"\| json .*", "", filters)))
        assert filtered <= names("structured_metadata") | {"job"}
        assert set(re.findall(r"\$\{?([a-z]\w*)", expression)) <= variables


def test_times_are_in_the_order_that_loki_takes(tmp_path: Path) -> None:
    """Four workers write side by side; in its stream a line is hardly older than one before it."""
    log = tmp_path / "requests.jsonl"

    def requests(client: int) -> Iterator[tuple[str, str, dict[str, str]]]:
        return (("GET", f"/orders/{client * number}", {}) for number in range(100))

    with threaded(tmp_path, EXPORTER_REQUEST_LOG=str(log)) as service:
        drive(service.port, 8, requests)
    newest: dict[str, float] = {}
    for line in map(json.loads, log.read_text().splitlines()):
        stream, when = json.dumps(labels(line)), seconds(line)
        assert newest.get(stream, 0.0) - when < BEHIND
        assert when - time.time() < AHEAD
        newest[stream] = max(when, newest.get(stream, 0.0))

    assert len(newest) == 2  # 200 and 404
    assert "unordered_writes" not in LOKI["limits_config"]  # on, unless it is turned off
    assert "max_chunk_age" not in LOKI["ingester"]


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ({}, sorted(REQUESTS)),
        ({"find": "known-1"}, ["known-1"]),
        ({"find": "known-1", "job": "app|other"}, ["known-1"]),
        ({"find": "nothing"}, []),
        ({"find": "app.demo:error"}, ["known-1", "known-12"]),
        ({"service": "orders"}, sorted(REQUESTS)),
        ({"service": "shop"}, []),
        ({"status_class": "5.."}, ["known-1", "known-12"]),
        ({"status_class": "2..|4.."}, ["id-3", "id-4", "id-5"]),
        ({"error_type": "NotFound"}, ["id-4"]),
        ({"url_rule": "/orders/<int:order_id>|/orders"}, ["id-3", "id-4"]),
        ({"slower": "0.1"}, ["id-5"]),
    ],
    ids=str,
)
def test_the_table_has_the_chosen_requests(loki: str, chosen: dict[str, str], found: list[str]) -> None:
    """Each variable by itself; an id finds that request alone, also where another begins like it."""
    assert ids(answer(loki, TABLE, **chosen)) == found


def test_an_error_has_its_traceback(loki: str) -> None:
    """As lines, not as one long string."""
    (stream,) = answer(loki, "Errors logged while a request was answered", find="known-1")
    ((_, text),) = stream["values"]

    assert text.startswith("Exception on /test/error [GET] known-1\nTraceback (most recent call last):\n")
    assert text.endswith("\nValueError: raised on demand by /test/error")


@pytest.mark.parametrize(("error_type", "found"), [("ValueError", ["known-1", "known-12"]), ("KeyError", [])])
def test_the_page_of_errors_has_the_lines_of_a_type(loki: str, error_type: str, found: list[str]) -> None:
    assert ids(answer(loki, "Latest errors in the log", error_type=error_type)) == found
