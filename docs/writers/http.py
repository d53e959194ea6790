"""reference/http.md: every page that the exporter serves; those with JSON from its OpenAPI document."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from flask import Flask
from prometheus_client import CollectorRegistry

import exporter
from docs.writers.markdown import code, items, page, section, table
from exporter import FlaskExporter

OPENAPI = Path(exporter.__file__).parent / "pages/openapi.json"

# The pages of which openapi.json knows nothing.
PAGES = {
    "/metrics": "Prometheus text, OpenMetrics with exemplars, or protobuf with native histograms too, as `Accept` asks; gzip. "
    "`?name[]=` selects families. With several workers and no directory that they share: 500, and the remedy.",
    "/health": "`healthy`, `warning` (more than 5 % errors in the last minute), `degraded` (more than 10 %), or `unhealthy` "
    "with 503 (a check fails); for insiders also the error rate, the uptime and each check. "
    "[The words](words.md#status-of-health).",
    "/health/live": "200 while the process answers: `alive`.",
    "/health/ready": "200 and `ready` while every check passes; 503 and `not ready` where one fails, or `draining` while "
    "the server is stopping. For load balancers.",
    "/monitoring": "A page for people: what happens now. State, requests in progress and the latest ones (filter by status "
    "and endpoint), error groups with tracebacks, slow requests and where they waited, endpoints, deaths; links to Grafana, "
    "Prometheus and Alertmanager. It needs no JavaScript; history is on the dashboards.",
    "/monitoring/openapi.json": "The OpenAPI 3.1 document of the JSON pages, from which this page is made.",
    "/monitoring/page.css": "The style of `/monitoring`.",
    "/monitoring/page.js": "The script of `/monitoring`, which loads it again and again.",
}

ORDER = ("metrics", "health", "monitoring")

INTRODUCTION = """\
Totals count since the service started; times and error types are those of the recorded requests, 1,000 a worker. None of these
requests is counted as traffic. A route of your own on the same path, method and host wins; `EXPORTER_PATH`,
`EXPORTER_HEALTH_PATH` and `EXPORTER_MONITORING_PATH` move a group of pages, or turn it off.

`/metrics`, `/monitoring` and the details of `/health` are for insiders ([who may read](../../SECURITY.md#who-may-read-what)).
Others get 401 (a token is needed, or it is a wrong one) or 403 (from this address nobody may read), and JSON that says so."""


def paths() -> list[str]:
    """The path of every page that the exporter adds to an application."""
    app = Flask("shop")
    FlaskExporter(app, registry=CollectorRegistry())
    served = {rule.rule for rule in app.url_map.iter_rules()} - {"/static/<path:filename>"}
    return sorted(served, key=lambda path: (ORDER.index(path.split("/")[1]), path))


def text() -> str:
    """The page; KeyError for a path that nobody describes, or a description of no path."""
    document = json.loads(OPENAPI.read_text(encoding="utf-8"))
    base = document["servers"][0]["url"]
    described = {f"{base}{path}": operations["get"] for path, operations in document["paths"].items()}
    served = paths()
    for path in [*PAGES, *described]:
        served[served.index(path)]
    rows = [
        [
            f"[{code(path)}](#{re.sub('[/.]', '', path)})",
            _first(PAGES.get(path) or described[path]["summary"]),
        ]
        for path in served
    ]
    sections = (
        section(code(path), *([PAGES[path]] if path in PAGES else _described(described[path], document)))
        for path in served
    )
    return page(
        "HTTP pages",
        "docs/writers/http.py and exporter/pages/openapi.json",
        table(["path", "answers"], rows),
        INTRODUCTION,
        *sections,
    )


def _first(text: str) -> str:
    return text.split(". ")[0].rstrip(".")


def _described(operation: dict[str, Any], document: dict[str, Any]) -> list[str]:
    parts = [f"{operation['summary']}. {operation.get('description', '')}".strip()]
    if parameters := operation.get("parameters"):
        rows = [[code(one["name"]), _type(one["schema"]), _facts(one)] for one in parameters]
        parts.append(table(["parameter", "type", "meaning"], rows))
    parts.append(
        items(f"{status}: {answer['description']}" for status, answer in operation["responses"].items())
    )
    schema = _resolved(operation["responses"]["200"]["content"]["application/json"]["schema"], document)
    if fields := schema.get("properties"):
        rows = [
            [code(name), _type(field, document), _meaning(field, document)] for name, field in fields.items()
        ]
        parts.append(table(["field", "type", "meaning"], rows))
    return parts


def _facts(parameter: dict[str, Any]) -> str:
    facts = [parameter.get("description", "")]
    schema = parameter["schema"]
    if "minimum" in schema and "maximum" in schema:
        facts.append(f"From {schema['minimum']} to {schema['maximum']}; default {schema['default']}.")
    examples = [code(str(example["value"])) for example in parameter.get("examples", {}).values()]
    if examples:
        facts.append(f"Such as {' or '.join(examples)}.")
    return " ".join(facts)


def _resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """The object that a schema speaks of: itself, the items of a list, or the values of a mapping."""
    while "properties" not in schema:
        if "$ref" in schema:
            schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        elif isinstance(inner := schema.get("items") or schema.get("additionalProperties"), dict):
            schema = inner
        else:
            break
    return schema


def _type(schema: dict[str, Any], document: dict[str, Any] | None = None) -> str:
    if "$ref" in schema and document:
        return _type(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "enum" in schema:
        return ", ".join(map(code, schema["enum"]))
    kind = schema.get("type") or [part["type"] for part in schema.get("anyOf", ())]
    return " or ".join([kind] if isinstance(kind, str) else kind)


def _meaning(schema: dict[str, Any], document: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _meaning(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    return str(schema.get("description", ""))
