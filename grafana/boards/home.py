"""The home dashboard: which service has trouble, and where do I go?"""

from grafana_foundation_sdk.models import dashboard as model

from grafana import board, links, variables
from grafana.alerts import STATES, alert_count, firing_alerts, state
from grafana.fields import with_links
from grafana.graphs import Axis, lines
from grafana.panels import NO_TRAFFIC, Panel
from grafana.promql import SERVICE, times_allowed
from grafana.queries import query
from grafana.tables import Column, Key, rows
from grafana.thresholds import BAD, BUDGET_STEPS, BURN_STEPS, LATENCY_HIGH, LATENCY_STEPS, TIMES


def dashboard() -> model.Dashboard:
    """Build the dashboard."""
    return board.board(
        "home",
        "Home",
        "Which service has trouble, and where do I go? The last 5 minutes of every service.",
        variables=[variables.jobs(), variables.services(), variables.every_instance()],
        contents=[firing_alerts(width=24, height=8), _services(), *_graphs()],
    )


def _of(metric: str) -> str:
    return f"max by (service) ({metric}{{{SERVICE}}})"


def _budget(slo: str) -> str:
    """The rest of the budget, at least 0; no value in the first three of its thirty days."""
    series = f'slo:flask_http_requests:budget_left_30d{{{SERVICE},slo="{slo}",url_rule=""}}'
    return f"clamp_min(max by (service) ({series} and {series} offset 3d), 0)"


def _services() -> Panel:
    ratio = _of("job:flask_http_request_duration_seconds:error_ratio_5m")
    return rows(
        "Services, last 5 minutes",
        "State is the worst of: no instance up, a critical alert, an instance down, a check that fails, a "
        "warning. Of allowed: the error ratio in multiples of what the service's own objective allows. "
        "Budgets: what is left of those of 30 days, told from the third day on. Click a service for more.",
        keys=[
            Key("service", "Service", links.service_of_row()),
            Key("instances", "Instances up", width=100),
            Key("alert", "Worst alert", width=175),
        ],
        columns=[
            Column("State", state(), "none", states=STATES, width=90),
            Column("Alerts", alert_count(), "none", decimals=0, width=66),
            Column(
                "Request rate",
                _of("job:flask_http_request_duration_seconds:rate_5m"),
                "reqps",
                decimals=1,
                width=105,
            ),
            Column("Error ratio", ratio, "percentunit", decimals=2, width=90),
            Column(
                "Of allowed",
                times_allowed(ratio),
                TIMES,
                decimals=1,
                steps=BURN_STEPS,
                width=108,
            ),
            Column(
                "p95",
                _of("job:flask_http_request_duration_seconds:p95_5m"),
                "s",
                decimals=1,
                steps=LATENCY_STEPS,
                width=84,
            ),
            *(
                Column(
                    f"{title} budget",
                    _budget(slo),
                    "percentunit",
                    decimals=1,
                    steps=BUDGET_STEPS,
                    width=120,
                    no_value="too early",
                )
                for slo, title in (("errors", "Error"), ("latency", "Latency"))
            ),
        ],
        sort="Of allowed",
        height=5,
        no_data="No service is scraped: add it to prometheus/targets/app.yml",
    )


def _graphs() -> list[Panel]:
    def series(metric: str) -> str:
        return _of(f"job:flask_http_request_duration_seconds:{metric}")

    panels = [
        lines(
            "Request rate, 5m",
            "Requests a second to each service.",
            [query(series("rate_5m"), "{{service}}")],
            unit="reqps",
            width=8,
            height=8,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Error ratio, 5m",
            "Share of each service's requests answered with 500 or more.",
            [query(series("error_ratio_5m"), "{{service}}")],
            unit="percentunit",
            shades=BAD,
            axis=Axis(highest=0.01),
            width=8,
            height=8,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "p95, 5m",
            f"95 of 100 requests were faster. Dashed: where FlaskLatencyHigh fires ({LATENCY_HIGH} s).",
            [query(series("p95_5m"), "{{service}}")],
            unit="s",
            marks=LATENCY_STEPS[1:2],
            width=8,
            height=8,
            no_data=NO_TRAFFIC,
        ),
    ]
    return [with_links(panel, links.service_of_line()) for panel in panels]
