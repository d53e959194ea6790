"""The home dashboard: every service at a glance, and which dashboard answers which question."""

from grafana_foundation_sdk.models import dashboard as model

from grafana import board, links, variables
from grafana.alerts import firing_alerts
from grafana.fields import link
from grafana.graphs import lines
from grafana.panels import NO_TRAFFIC, Panel, note
from grafana.promql import SERVICE
from grafana.queries import query
from grafana.tables import Column, Key, rows
from grafana.thresholds import ANY_IS_BAD, BUDGET_STEPS, ERROR_STEPS, LATENCY_STEPS


def dashboard() -> model.Dashboard:
    """Build the dashboard."""
    return board.board(
        "home",
        "Home",
        "Every service at a glance, and which dashboard answers which question.",
        variables=[variables.jobs(), variables.services(), variables.instances()],
        contents=[_services(), *_graphs(), firing_alerts(width=13), _questions()],
        tags=["home"],
    )


def _services() -> Panel:
    def of(metric: str) -> str:
        return f"max by (job, service) ({metric}{{{SERVICE}}})"

    def left(slo: str) -> str:
        promise = f'{{{SERVICE},slo="{slo}",url_rule=""}}'
        return f"max by (job, service) (slo:flask_http_requests:budget_left_30d{promise})"

    up = f"up{{{SERVICE}}}"
    selection = (
        "var-job=${__data.fields.Job:percentencode}&var-service=${__data.fields.Service:percentencode}"
    )
    dashboards = [
        link(f"{title}: {question}", f"/d/{uid}?${{datasource:queryparam}}&{selection}&${{__url_time_range}}")
        for uid, (title, _, question) in links.NAVIGATION.items()
    ]
    return rows(
        "Services",
        "The last 5 minutes of each. Click one to see more of it.",
        keys=[Key("service", "Service", dashboards), Key("job", "Job", width=110)],
        columns=[
            Column("Instances", f"count by (job, service) ({up})", "none", decimals=0),
            Column(
                "Down",
                f"sum by (job, service) (1 - {up})",
                "none",
                decimals=0,
                steps=ANY_IS_BAD,
                cell="colour",
            ),
            Column(
                "Rate", of("job:flask_http_request_duration_seconds:rate_5m"), "reqps", decimals=2, width=110
            ),
            Column(
                "Errors",
                of("job:flask_http_request_duration_seconds:error_ratio_5m"),
                "percentunit",
                decimals=2,
                steps=ERROR_STEPS,
                cell="colour",
                width=110,
            ),
            Column(
                "p50",
                of("job:flask_http_request_duration_seconds:p50_5m"),
                "s",
                decimals=1,
                steps=LATENCY_STEPS,
                cell="colour",
            ),
            Column(
                "p95",
                of("job:flask_http_request_duration_seconds:p95_5m"),
                "s",
                decimals=1,
                steps=LATENCY_STEPS,
                cell="colour",
            ),
            Column(
                "p99",
                of("job:flask_http_request_duration_seconds:p99_5m"),
                "s",
                decimals=1,
                steps=LATENCY_STEPS,
                cell="colour",
            ),
            Column(
                "Error budget",
                left("errors"),
                "percentunit",
                decimals=1,
                steps=BUDGET_STEPS,
                cell="colour",
                width=120,
            ),
            Column(
                "Latency budget",
                left("latency"),
                "percentunit",
                decimals=1,
                steps=BUDGET_STEPS,
                cell="colour",
                width=130,
            ),
        ],
        sort="Rate",
        height=7,
        no_data="No service is scraped: add it to prometheus/targets/app.yml",
    )


def _graphs() -> list[Panel]:
    return [
        lines(
            "Request rate",
            "Requests a second to each service.",
            [query(f"job:flask_http_request_duration_seconds:rate_5m{{{SERVICE}}}", "{{service}}")],
            unit="reqps",
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Error ratio",
            "Share of each service's requests answered with 500 or more.",
            [query(f"job:flask_http_request_duration_seconds:error_ratio_5m{{{SERVICE}}}", "{{service}}")],
            unit="percentunit",
            no_data=NO_TRAFFIC,
        ),
    ]


def _questions() -> Panel:
    answers = [f"- [{title}](/d/{uid}): {question}" for uid, (title, _, question) in links.NAVIGATION.items()]
    return note("Where to look", "\n".join(answers), width=11, height=8)
