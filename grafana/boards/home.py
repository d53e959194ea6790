"""The home dashboard: every service at a glance, and which dashboard answers which question."""

from grafana_foundation_sdk.models import dashboard as model

from grafana import board
from grafana.alerts import firing_alerts
from grafana.boards.slo import BUDGET_STEPS
from grafana.fields import link
from grafana.panels import Panel, lines, note, query
from grafana.promql import SERVICE
from grafana.tables import Column, Key, rows
from grafana.thresholds import ERROR_STEPS, LATENCY_STEPS, NO_TRAFFIC


def dashboard() -> model.Dashboard:
    """The dashboard."""
    return board.board(
        "home",
        "Home",
        "Every service at a glance, and which dashboard answers which question.",
        [board.jobs(), board.services(), board.instances()],
        [_services(), *_courses(), firing_alerts(width=13), _questions()],
        tags=["home"],
    )


def _services() -> Panel:
    def of(metric: str) -> str:
        return f"max by (job, service) ({metric}{{{SERVICE}}})"

    def left(slo: str) -> str:
        promise = f'{{{SERVICE},slo="{slo}",url_rule=""}}'
        return f"max by (job, service) (slo:flask_http_requests:budget_left_30d{promise})"

    up = f"up{{{SERVICE}}}"
    chosen = "var-job=${__data.fields.Job:percentencode}&var-service=${__data.fields.Service:percentencode}"
    links = [
        link(f"{title}: {question}", f"/d/{uid}?${{datasource:queryparam}}&{chosen}&${{__url_time_range}}")
        for uid, (title, _, question) in board.NAVIGATION.items()
    ]
    return rows(
        "Services",
        "The last 5 minutes of each. Click one to see more of it.",
        [Key("service", "Service", links), Key("job", "Job", width=110)],
        [
            Column("Instances", f"count by (job, service) ({up})", "none", 0),
            Column(
                "Down",
                f"sum by (job, service) (1 - {up})",
                "none",
                0,
                ((None, "green"), (1, "red")),
                "colour",
            ),
            Column("Rate", of("job:flask_http_request_duration_seconds:rate_5m"), "reqps", 2, width=110),
            Column(
                "Errors",
                of("job:flask_http_request_duration_seconds:error_ratio_5m"),
                "percentunit",
                2,
                ERROR_STEPS,
                "colour",
                width=110,
            ),
            Column(
                "p50", of("job:flask_http_request_duration_seconds:p50_5m"), "s", 1, LATENCY_STEPS, "colour"
            ),
            Column(
                "p95", of("job:flask_http_request_duration_seconds:p95_5m"), "s", 1, LATENCY_STEPS, "colour"
            ),
            Column(
                "p99", of("job:flask_http_request_duration_seconds:p99_5m"), "s", 1, LATENCY_STEPS, "colour"
            ),
            Column("Error budget", left("errors"), "percentunit", 1, BUDGET_STEPS, "colour", width=120),
            Column("Latency budget", left("latency"), "percentunit", 1, BUDGET_STEPS, "colour", width=130),
        ],
        sort="Rate",
        height=7,
        no_data="No service is scraped: add it to prometheus/targets/app.yml",
    )


def _courses() -> list[Panel]:
    return [
        lines(
            "Request rate",
            "Requests a second to each service.",
            "reqps",
            [query(f"job:flask_http_request_duration_seconds:rate_5m{{{SERVICE}}}", "{{service}}")],
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Error ratio",
            "Share of each service's requests answered with 500 or more.",
            "percentunit",
            [query(f"job:flask_http_request_duration_seconds:error_ratio_5m{{{SERVICE}}}", "{{service}}")],
            no_data=NO_TRAFFIC,
        ),
    ]


def _questions() -> Panel:
    answers = [f"- [{title}](/d/{uid}): {question}" for uid, (title, _, question) in board.NAVIGATION.items()]
    return note("Where to look", "\n".join(answers), width=11, height=8)
