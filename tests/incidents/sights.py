"""What a person is to see of each incident: the page, the panel, and what stands there."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from grafana.alerts import STATES
from grafana.thresholds import BURN_ALERTS, LATENCY_HIGH
from tests.incidents import halfhour
from tests.incidents.shop import BROKEN, GOOD

FAST = BURN_ALERTS[0].rate
LEAK = 1.5e8
"""Bytes that the workers of an instance have with a leak, and not without."""
ALERTS = "Firing alerts"
SERVICES = "Services, last 5 minutes"
FAILURES = "Failures in this time range, by type and endpoint"
ENDPOINTS = "Endpoints in this time range, the most errors first; Δ to ${compare:text}"


@dataclass(frozen=True, slots=True)
class Sight:
    """A panel that names `where`, with a value of which `sees` is true.

    In a table, `where` are cells by the titles of their columns, and the value is that of `column`. Elsewhere
    they are labels of a series. The page shows all services unless `service` is chosen.
    """

    page: str
    panel: str
    where: Mapping[str, str]
    column: str = ""
    sees: Callable[[float], bool] = bool
    service: str = ".*"


@dataclass(frozen=True, slots=True)
class Incident:
    """What happens at the second `begin`, and what is to be seen of it within `limit` seconds."""

    name: str
    begin: int
    sights: tuple[Sight, ...]
    limit: int = field(default=360)


def _alarmed(state: float) -> bool:
    return STATES[int(state)][0] in {"Critical", "Warning"}


def _above(limit: float) -> Callable[[float], bool]:
    return lambda value: value > limit


def incidents(addresses: Mapping[str, str]) -> tuple[Incident, ...]:
    """The incidents of the half hour, by the addresses of its instances."""
    first, second = addresses["orders-1"], addresses["orders-2"]
    checkout = {"service": "shop", "url_rule": "/checkout"}
    checkout_row = {"Service": "shop", "Endpoint": "/checkout"}
    error_row = {"Service": "orders", "Endpoint": "/test/error"}
    timeout, error = {"Type": "InventoryTimeoutError"}, {"Type": "ValueError"}
    return (
        Incident(
            f"shop {BROKEN} is deployed: /checkout fails and is slow",
            halfhour.DEPLOY,
            (
                Sight("home", "annotation Deploys", {"service": "shop", "version": BROKEN}),
                Sight("home", ALERTS, {"Service": "shop"}, "Since"),
                Sight("home", SERVICES, {"Service": "shop"}, "State", _alarmed),
                Sight("home", SERVICES, {"Service": "shop"}, "Of allowed", _above(FAST)),
                Sight("flask-service", "State", {"service": "shop"}, "", _alarmed, "shop"),
                Sight(
                    "flask-service",
                    "Endpoints that matter, ${window:raw}",
                    {"Endpoint": "/checkout"},
                    "Of allowed",
                    _above(FAST),
                    "shop",
                ),
                Sight(
                    "flask-service",
                    "p95 by instance and version, 5m",
                    {"version": BROKEN},
                    sees=_above(LATENCY_HIGH),
                    service="shop",
                ),
                Sight("flask-endpoints", ENDPOINTS, checkout_row, "Errors"),
                Sight("flask-endpoints", "p95 of the worst five, 5m", checkout, sees=_above(LATENCY_HIGH)),
                Sight("flask-errors", "New error types in this time range", timeout, "Times"),
                Sight("flask-errors", FAILURES, timeout | checkout_row, "Times"),
                Sight("flask-errors", "Failures by version", {"service": "shop", "version": BROKEN}),
                Sight(
                    "flask-slo",
                    "Objectives, over 30 days",
                    {"Service": "shop", "Objective": "errors"},
                    "Burn 5m",
                    _above(FAST),
                ),
            ),
        ),
        Incident(
            "orders: /test/error raises ValueError",
            halfhour.ERRORS,
            (
                Sight("home", ALERTS, {"Service": "orders", "Severity": "critical"}, "Since"),
                Sight("home", SERVICES, {"Service": "orders"}, "Of allowed", _above(FAST)),
                Sight(
                    "flask-service",
                    "Endpoints that matter, ${window:raw}",
                    {"Endpoint": "/test/error"},
                    "Errors/s",
                    service="orders",
                ),
                Sight("flask-endpoints", ENDPOINTS, error_row, "Errors"),
                Sight("flask-errors", FAILURES, error | error_row, "Times"),
                Sight(
                    "flask-errors",
                    "Bugs in this time range, by error group",
                    error | {"Service": "orders"},
                    "Times",
                ),
            ),
        ),
        Incident(
            "orders: slow requests keep 12 of 16 threads of one instance",
            halfhour.SLOW,
            (
                Sight("flask-service", "Busy threads, 5m", {}, "", _above(0.7), "orders"),
                Sight("flask-workers", "Busy threads, 5m", {}, "", _above(0.7)),
                Sight(
                    "flask-workers",
                    "Busy threads by instance",
                    {"service": "orders", "instance": first},
                    sees=_above(0.7),
                ),
                Sight(
                    "flask-endpoints",
                    "p95 of the worst five, 5m",
                    {"service": "orders", "url_rule": "/test/slow"},
                    sees=_above(LATENCY_HIGH),
                ),
                Sight(
                    "flask-endpoints",
                    "Where slow requests wait, in this time range",
                    {"Service": "orders", "Endpoint": "/test/slow"},
                    "Time",
                ),
            ),
        ),
        Incident(
            "a worker of orders is killed, two of shop crash, one of shop leaks 80 MB",
            halfhour.DEATHS,
            (
                Sight("home", "annotation Replaced workers", {"service": "orders"}),
                Sight(
                    "flask-workers", "Deaths of workers by cause", {"service": "orders", "cause": "SIGKILL"}
                ),
                Sight("flask-workers", "Deaths of workers by cause", {"service": "shop", "cause": "SIGSEGV"}),
                Sight(
                    "flask-workers",
                    "Lost requests by endpoint and cause",
                    {"service": "shop", "url_rule": "/crash"},
                ),
                Sight(
                    "flask-workers",
                    "Memory of the workers by instance",
                    {"instance": addresses["shop-1"]},
                    sees=_above(LEAK),
                ),
            ),
        ),
        Incident(
            "an instance of orders is stopped",
            halfhour.DOWN,
            (
                Sight("home", SERVICES, {"Service": "orders", "Instances up": "1 of 2"}, "State"),
                Sight("home", ALERTS, {"Alert": "FlaskTargetDown", "Instance": second}, "Since"),
                Sight("flask-service", "State", {"instances": "1 of 2"}, service="orders"),
                Sight(
                    "flask-service",
                    "Instances and health checks",
                    {"instance": second},
                    "",
                    operator.not_,
                    "orders",
                ),
                Sight(
                    "monitoring-pipeline",
                    "Targets that were down in this time range",
                    {"instance": second},
                    "",
                    operator.not_,
                ),
            ),
        ),
        Incident(
            "it comes back as 1.1.0",
            halfhour.BACK,
            (
                Sight("home", "annotation Deploys", {"service": "orders", "version": "1.1.0"}),
                Sight("home", SERVICES, {"Service": "orders", "Instances up": "2 of 2"}, "Request rate"),
                Sight(
                    "flask-service",
                    "Request rate by instance and version, ${window:raw}",
                    {"version": "1.1.0"},
                    service="orders",
                ),
            ),
        ),
        Incident(
            f"shop is rolled back to {GOOD}",
            halfhour.ROLLBACK,
            (
                Sight("home", "annotation Deploys", {"service": "shop", "version": GOOD}),
                Sight("home", SERVICES, {"Service": "shop"}, "Error ratio", lambda ratio: ratio == 0),
                Sight("flask-service", "p95, 5m", {}, "", lambda p95: p95 < LATENCY_HIGH, "shop"),
            ),
        ),
        Incident(
            "an instance of shop is stopped, and its probe fails",
            halfhour.PROBE,
            (
                Sight("home", ALERTS, {"Alert": "ProbeFailed", "Service": "shop"}, "Since"),
                Sight("home", SERVICES, {"Service": "shop", "Instances up": "1 of 2"}, "State"),
                Sight("flask-service", ALERTS, {"Alert": "ProbeFailed"}, "Since", service="shop"),
                Sight("monitoring-pipeline", "Probes", {"service": "shop"}, "", operator.not_),
            ),
            limit=170,
        ),
    )
