"""The neighbours of the service: links to Grafana, Prometheus and Alertmanager, or how to get them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from exporter.settings import Settings


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One program of the stack; without a `url` nobody has said where it is."""

    name: str
    purpose: str
    url: str | None
    setting: str
    """The setting that names it, with an example."""
    command: str
    """Starts it."""


def neighbours(settings: Settings) -> tuple[Neighbour, ...]:
    """All neighbours, in the order in which a person needs them."""
    return (
        _neighbour("Grafana", "history and dashboards", settings.grafana_url, 3000),
        _neighbour("Prometheus", "metrics and rules", settings.prometheus_url, 9090),
        _neighbour("Alertmanager", "alerts and silences", settings.alertmanager_url, 9093),
    )


def policy(settings: Settings) -> str:
    """The Content-Security-Policy of the page; its script asks the neighbours for a sign of life."""
    origins = " ".join(
        f"{parts.scheme}://{parts.netloc}"
        for parts in (urlsplit(neighbour.url) for neighbour in neighbours(settings) if neighbour.url)
    )
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"connect-src 'self' {origins}; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )


def _neighbour(name: str, purpose: str, url: str | None, port: int) -> Neighbour:
    return Neighbour(
        name,
        purpose,
        url,
        f"EXPORTER_{name.upper()}_URL=http://127.0.0.1:{port}",
        f"docker compose up -d {name.lower()}",
    )
