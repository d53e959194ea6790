"""Flask / Service: is it healthy?"""

from grafana_foundation_sdk.builders.dashboard import CustomVariable, DashboardLink, Row
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.dashboard import VariableOption

from grafana import board
from grafana.alerts import firing_alerts
from grafana.panels import Panel, exemplars, heat_map, lines, now, number, query, timeline
from grafana.promql import (
    FIRING,
    SERVICE,
    bars,
    count,
    error_ratio,
    mean,
    of,
    quantile,
    quantile_by_endpoint,
    rate,
    total,
)
from grafana.tables import Column, Key, rows
from grafana.thresholds import ERROR_STEPS, LATENCY_STEPS, NO_TRAFFIC, STATUS_COLORS

APP_PAGE = "http://127.0.0.1:8000/"
HEALTH = {0: ("Down", "dark-red"), 1: ("Check fails", "dark-orange"), 2: ("Healthy", "dark-green")}
CHECKS = {0: ("fails", "red"), 1: ("passes", "green")}
REQUESTS = "flask_http_request_total"


def dashboard() -> model.Dashboard:
    """The dashboard."""
    return board.board(
        "flask-service",
        "Service",
        "Is it healthy? Traffic, errors and latency of whole services, and what changed.",
        [board.jobs(), board.services(), board.instances(), _compared_with()],
        [
            *_summary(),
            Row("Traffic and errors"),
            *_traffic(),
            Row("Latency"),
            *_latency(),
            Row("Where and why"),
            *_details(),
        ],
        links=[
            DashboardLink("Try it out")
            .type(model.DashboardLinkType("link"))
            .url(APP_PAGE)
            .icon("bolt")
            .tooltip("The sample app's start page: slow requests and errors at the press of a button")
            .target_blank(True)
        ],
    )


def _compared_with() -> CustomVariable:
    return (
        CustomVariable("compare")
        .label("Compared with")
        .values("a day ago : 1d, a week ago : 1w, an hour ago : 1h")
        .current(VariableOption(selected=True, text="a day ago", value="1d"))
    )


def _summary() -> list[Panel]:
    up = of("up")
    checks = of("flask_health_check_up")
    threads = f"sum({of('flask_worker_threads_busy')}) / sum({of('flask_worker_threads')})"
    return [
        number(
            "Health",
            "Down: an instance cannot be scraped. Check fails: a function registered with "
            "`@exporter.health_check` reports a failure, so `/health` answers 503.",
            "none",
            now(f"min({up}) + min({up}) * (min({checks}) or vector(1))"),
            names=HEALTH,
            trend=False,
            no_data="No instance",
        ),
        number(
            "Alerts firing",
            "Alerts of severity critical or warning that fire for these services; they are named below.",
            "none",
            query(f"count({FIRING}) or vector(0)"),
            steps=((None, "green"), (1, "red")),
            decimals=0,
        ),
        number(
            "Requests",
            "Requests answered in this time range, without the exporter's own paths.",
            "locale",
            now(count(REQUESTS)),
            decimals=0,
            trend=False,
            no_data=NO_TRAFFIC,
        ),
        number(
            "Request rate",
            "Requests a second.",
            "reqps",
            query(rate(REQUESTS)),
            decimals=1,
            no_data=NO_TRAFFIC,
        ),
        number(
            "Error ratio",
            "Share of requests answered with a status of 500 or more, unhandled exceptions included. "
            "Orange from 5 %, red from 10 %, as the alerts and `/health` have it.",
            "percentunit",
            query(error_ratio(REQUESTS)),
            steps=ERROR_STEPS,
            decimals=2,
            no_data=NO_TRAFFIC,
        ),
        number(
            "Mean",
            "From the arrival of a request until its last byte is handed over, streamed bodies included.",
            "s",
            query(mean()),
            steps=LATENCY_STEPS,
            no_data=NO_TRAFFIC,
        ),
        number(
            "p95",
            "95 of 100 requests were faster. Orange from 0.5 s, where FlaskLatencyHigh fires.",
            "s",
            query(quantile(0.95)),
            steps=LATENCY_STEPS,
            no_data=NO_TRAFFIC,
        ),
        number(
            "Busy",
            "Share of all worker threads that answer a request at the moment. At 100 % requests wait.",
            "percentunit",
            query(threads),
            steps=((None, "green"), (0.7, "orange"), (0.9, "red")),
            decimals=0,
        ),
    ]


def _traffic() -> list[Panel]:
    classes = f'label_replace({rate(REQUESTS, by="status")}, "class", "${{1}}xx", "status", "(.).*")'
    promised = f'slo:flask_http_requests:objective{{{SERVICE},slo="errors",url_rule=""}}'
    return [
        lines(
            "Requests by status class",
            "4xx are answers that blame the client, 5xx are failures of the service.",
            "reqps",
            [query(total(classes, "class"), "{{class}}")],
            colors=STATUS_COLORS,
            stacked=True,
            width=8,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Error ratio",
            "Share of requests answered with 500 or more, and what the objective allows. Dashed: where "
            "FlaskErrorRatioHigh (5 %) and FlaskErrorRatioCritical (10 %) fire.",
            "percentunit",
            [query(error_ratio(REQUESTS), "errors"), query(f"1 - max({promised})", "allowed")],
            colors={"errors": "red", "allowed": "green"},
            objective=((None, "transparent"), (0.05, "orange"), (0.1, "red")),
            highest=0.12,
            width=8,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Request rate, compared",
            "Now against the same time earlier; choose how much earlier above. "
            "A drop without a deploy or a holiday is an outage that nobody sees as errors.",
            "reqps",
            [
                query(rate(REQUESTS), "now"),
                query(rate(REQUESTS, before="$compare"), "${compare:text}"),
            ],
            colors={"now": "blue"},
            width=8,
            no_data=NO_TRAFFIC,
        ),
    ]


def _latency() -> list[Panel]:
    slowest = of("flask_http_request_duration_max_seconds")
    fastest = of("flask_http_request_duration_min_seconds")
    return [
        lines(
            "Duration of requests",
            "Percentiles are estimates, true to the histogram's bucket, not to the millisecond. The "
            "dashed line is where FlaskLatencyHigh fires (p95 above 0.5 s).",
            "s",
            [
                query(quantile(0.99), "p99"),
                query(quantile(0.95), "p95"),
                query(quantile(0.5), "p50"),
                query(mean(), "mean"),
                exemplars(of("flask_http_request_duration_seconds_bucket")),
            ],
            colors={"p99": "red", "p95": "orange", "p50": "green", "mean": "blue"},
            objective=((None, "transparent"), (0.5, "orange")),
            logarithmic=True,
            width=8,
            height=10,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Slowest and fastest request",
            "Exact over the last minute of each moment, of all endpoints: what percentiles hide.",
            "s",
            [query(f"max({slowest})", "slowest"), query(f"min({fastest})", "fastest")],
            colors={"slowest": "red", "fastest": "green"},
            logarithmic=True,
            width=8,
            height=10,
            no_data=NO_TRAFFIC,
        ),
        heat_map(
            "How the durations are spread",
            "Requests a second that took as long as the left scale says. Two bands: two kinds of requests.",
            total(of("instance:flask_http_request_duration_seconds_bucket:rate_5m"), "le"),
            width=8,
            height=10,
        ),
    ]


def _details() -> list[Panel]:
    by = "url_rule"
    requests = "flask_http_request_duration_seconds_count"
    return [
        rows(
            "Busiest endpoints",
            "The last minutes of the time range. Click an endpoint for its own dashboard.",
            [Key("url_rule", "Endpoint", board.endpoint_of_row())],
            [
                Column("Rate", f"{rate(requests, by=by)} > 0", "reqps", 2, cell="bar", width=190),
                Column("Errors", error_ratio(requests, by=by), "percentunit", 1, ERROR_STEPS),
                Column("p95", quantile_by_endpoint(0.95), "s", 1, LATENCY_STEPS),
            ],
            sort="Rate",
            width=12,
            height=9,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Errors by type",
            "Answers of 400 and more and exceptions, each bar as many as there were within it.",
            "none",
            [
                query(
                    bars("flask_http_request_errors_total", by="error_type"),
                    "{{error_type}}",
                    interval="1m",
                )
            ],
            calcs=["sum"],
            bars=True,
            stacked=True,
            width=12,
            height=9,
            decimals=0,
            no_data="No errors",
        ),
        lines(
            "Requests in progress",
            "Against the worker threads that there are: beyond these, requests wait in the queue.",
            "none",
            [
                query(f"sum({of('flask_http_requests_in_progress')})", "in progress"),
                query(f"sum({of('flask_worker_threads')})", "threads"),
            ],
            colors={"in progress": "blue", "threads": "orange"},
            calcs=["max", "lastNotNull"],
            width=7,
            height=8,
        ),
        timeline(
            "Instances and health checks",
            "Scrapes of each instance, and the checks registered with `@exporter.health_check`.",
            [
                query(of("up"), "{{instance}}"),
                query(f"min by (check) ({of('flask_health_check_up')})", "check {{check}}"),
            ],
            CHECKS,
            width=7,
            height=8,
            no_data="No instance",
        ),
        firing_alerts(),
    ]
