"""The start page, with links to every part of the stack and a button for every fault."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, current_app, make_response, render_template, request
from werkzeug.wrappers import Response

from app.languages import LANGUAGES, preferred, script_texts, texts

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


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault on demand: what it does, and what happens next."""

    path: str
    description: str
    sequel: str
    repeatable: bool
    """Whether a hundred of them leave the service able to answer."""


# The stack's own answer to a fault, under the traffic of `docker compose up` and `make run`.
SEQUELS = {
    "/test/normal": "It is counted, timed and among the latest requests of /monitoring.",
    "/test/slow": "It is among the slow requests of /monitoring, with the function that it waited in.",
    "/test/error": "A hundred: FlaskErrorBurst fires within a minute. /monitoring has the traceback.",
    "/test/notfound": "It is counted, but is the client's mistake: no alert fires.",
    "/test/server-error": "A hundred: FlaskErrorBurst fires within a minute. There is no exception to group.",
    "/test/stream": "It is timed until its last chunk, not until its first.",
    "/test/stuck": "It is in progress on /monitoring with its age; in two minutes FlaskRequestStuck fires.",
    "/test/crash": "/monitoring has its death. A browser may ask again, and then a second worker dies.",
}
ONCE = ("/test/stuck", "/test/crash")


def blueprint(settings: Mapping[str, Any]) -> Blueprint:
    """Make the page, with links to the addresses in the settings.

    Raises ValueError for an invalid setting.
    """
    routes = Blueprint("pages", __name__)
    parts = _parts(settings)

    @routes.get("/")
    def start() -> Response:
        language = preferred(request)
        page = render_template(
            "start.html",
            parts=parts,
            faults=_faults(),
            language=language,
            languages=LANGUAGES,
            texts=texts(language),
            script_texts=script_texts(language),
        )
        response = make_response(page)
        response.vary.add("Accept-Language")
        return response

    @routes.after_app_request
    def secure(response: Response) -> Response:
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return routes


def addresses(settings: Mapping[str, Any]) -> dict[str, str | None]:
    """The address of each other part; None if it is not running. Raises ValueError for an invalid one."""
    names = ("Prometheus", "Alertmanager", "Grafana")
    return {name: _address(settings, f"{name.upper()}_URL") for name in names}


def entrances(settings: Mapping[str, Any]) -> dict[str, str | None]:
    """The page of each other part that /monitoring links to. Raises ValueError for an invalid setting."""
    pages = {"Prometheus": "/api/v1/alerts", "Alertmanager": "/api/v2/alerts"}
    suffixes = pages if _flag(settings, "API_ONLY") else {}
    return {
        name: address and address + suffixes.get(name, "") for name, address in addresses(settings).items()
    }


def _faults() -> list[Fault]:
    """Each fault, described by the docstring of its view."""
    return [
        Fault(
            rule.rule,
            inspect.getdoc(current_app.view_functions[rule.endpoint]) or "",
            SEQUELS[rule.rule],
            rule.rule not in ONCE,
        )
        for rule in current_app.url_map.iter_rules()
        if rule.endpoint.startswith("faults.")
    ]


def _parts(settings: Mapping[str, Any]) -> tuple[Part, ...]:
    web = not _flag(settings, "API_ONLY")
    address = addresses(settings)
    return (
        Part(
            "Service",
            "",  # links stay on this server
            (
                Link("/monitoring", "/monitoring", "What happens now?"),
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
            address["Prometheus"],
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
            address["Alertmanager"],
            (
                Link("/#/alerts" if web else "/api/v2/alerts", "Alerts", "Who is being told what?"),
                Link("/#/silences" if web else "/api/v2/silences", "Silences", "What is being kept quiet?"),
            ),
        ),
        Part(
            "Grafana",
            address["Grafana"],
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
