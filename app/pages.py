"""The start page, with links to every part of the stack and a button for every fault."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, current_app, render_template
from werkzeug.wrappers import Response

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Link:
    """A place in the stack, and the question that it answers."""

    path: str
    name: str
    question: str


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the stack; without an address it is not running."""

    name: str
    address: str | None
    links: tuple[Link, ...]


def blueprint(settings: Mapping[str, Any]) -> Blueprint:
    """Make the page, with links to the addresses in the settings.

    Raises ValueError for an invalid setting.
    """
    routes = Blueprint("pages", __name__)
    parts = _parts(settings)

    @routes.get("/")
    def start() -> str:
        return render_template("start.html", parts=parts, faults=_faults())

    @routes.after_app_request
    def secure(response: Response) -> Response:
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return routes


def _faults() -> list[tuple[str, str]]:
    """The path of each fault, and its description from the docstring of its view."""
    return [
        (rule.rule, inspect.getdoc(current_app.view_functions[rule.endpoint]) or "")
        for rule in current_app.url_map.iter_rules()
        if rule.endpoint.startswith("faults.")
    ]


def _parts(settings: Mapping[str, Any]) -> tuple[Part, ...]:
    web = not _flag(settings, "API_ONLY")
    return (
        Part(
            "Service",
            "",  # links stay on this server
            (
                Link("/metrics", "/metrics", "What does Prometheus read?"),
                Link("/health", "/health", "Is it healthy, and how many requests fail?"),
                Link("/health/live", "/health/live", "Does the process answer?"),
                Link("/health/ready", "/health/ready", "May traffic be sent here?"),
                Link("/monitoring/stats", "/monitoring/stats", "What happened since the start?"),
                Link("/monitoring/requests", "/monitoring/requests", "Which requests came last?"),
                Link("/monitoring/endpoints", "/monitoring/endpoints", "Which endpoint is slow or fails?"),
                Link("/orders", "/orders", "What has been ordered?"),
            ),
        ),
        Part(
            "Prometheus",
            _address(settings, "PROMETHEUS_URL"),
            (
                Link(
                    "/query" if web else "/api/v1/query?query=up", "Query", "What does this expression say?"
                ),
                Link("/targets" if web else "/api/v1/targets", "Targets", "Is everything scraped?"),
                Link("/rules" if web else "/api/v1/rules", "Rules", "What is computed and watched?"),
                Link("/alerts" if web else "/api/v1/alerts", "Alerts", "What fires, or is about to?"),
            ),
        ),
        Part(
            "Alertmanager",
            _address(settings, "ALERTMANAGER_URL"),
            (
                Link("/#/alerts" if web else "/api/v2/alerts", "Alerts", "Who is being told what?"),
                Link("/#/silences" if web else "/api/v2/silences", "Silences", "What is being kept quiet?"),
            ),
        ),
        Part(
            "Grafana",
            _address(settings, "GRAFANA_URL"),
            (
                Link("/d/flask-service", "Service", "Is it healthy?"),
                Link("/d/flask-endpoints", "Endpoints", "Which endpoint is slow or fails?"),
                Link("/d/flask-errors", "Errors", "Which error, since when?"),
                Link("/d/flask-requests", "Requests", "Which requests exactly?"),
                Link("/d/flask-slo", "SLO", "How much of the error budget is left?"),
                Link("/d/flask-workers", "Workers and host", "What is running out?"),
                Link("/d/monitoring-pipeline", "Pipeline", "Can these figures be trusted?"),
            ),
        ),
    )


def _address(settings: Mapping[str, Any], name: str) -> str | None:
    address = str(settings[name])
    if not address:
        return None
    if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", address):
        raise ValueError(f"{name} is {address!r}: give an address such as http://127.0.0.1:9090, or nothing")
    return address.rstrip("/")


def _flag(settings: Mapping[str, Any], name: str) -> bool:
    if settings[name] not in ("0", "1"):
        raise ValueError(f"{name} is {settings[name]!r}: give 0 or 1")
    return bool(settings[name] == "1")
