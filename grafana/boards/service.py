"""Flask / Service: is it healthy?"""

from grafana_foundation_sdk.builders.dashboard import CustomVariable, DashboardLink, Row
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.dashboard import VariableOption

from grafana import board, links, variables
from grafana.alerts import firing_alerts
from grafana.fields import STATUS_COLORS
from grafana.graphs import LOGARITHMIC, Axis, event_bars, lines
from grafana.panels import NO_TRAFFIC, Panel, heat_map, number, timeline
from grafana.promql import (
    FIRING,
    SERVICE,
    count,
    count_per_bar,
    error_ratio,
    mean,
    of,
    quantile,
    quantile_by_endpoint,
    rate,
    spread,
    total,
)
from grafana.queries import exemplars, now, query
from grafana.tables import Column, Key, rows
from grafana.thresholds import (
    ANY_IS_BAD,
    ERROR_RATIO_CRITICAL,
    ERROR_RATIO_HIGH,
    ERROR_STEPS,
    LATENCY_HIGH,
    LATENCY_STEPS,
    SATURATION_STEPS,
    percent,
)

APP_PAGE = "http://127.0.0.1:8000/"
HEALTH = {0: ("Down", "dark-red"), 1: ("Check fails", "dark-orange"), 2: ("Healthy", "dark-green")}
CHECKS = {0: ("fails", "red"), 1: ("passes", "green")}
REQUESTS = "flask_http_request_total"


def dashboard() -> model.Dashboard:
    """Build the dashboard."""
    return board.board(
        "flask-service",
        "Service",
        "Is it healthy? Traffic, errors and latency of whole services, and what changed.",
        variables=[variables.jobs(), variables.services(), variables.instances(), _compared_with()],
        contents=[
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
            now(f"min({up}) + min({up}) * (min({checks}) or vector(1))"),
            unit="none",
            states=HEALTH,
            trend=False,
            no_data="No instance",
        ),
        number(
            "Alerts firing",
            "Alerts of severity critical or warning that fire for these services; they are named below.",
            query(f"count({FIRING}) or vector(0)"),
            unit="none",
            steps=ANY_IS_BAD,
            decimals=0,
        ),
        number(
            "Requests",
            "Requests answered in this time range, without the exporter's own paths.",
            now(count(REQUESTS)),
            unit="locale",
            decimals=0,
            trend=False,
            no_data=NO_TRAFFIC,
        ),
        number(
            "Request rate",
            "Requests a second.",
            query(rate(REQUESTS)),
            unit="reqps",
            decimals=1,
            no_data=NO_TRAFFIC,
        ),
        number(
            "Error ratio",
            "Share of requests answered with a status of 500 or more, unhandled exceptions included. "
            f"Orange from {percent(ERROR_RATIO_HIGH)}, red from {percent(ERROR_RATIO_CRITICAL)}, as the "
            "alerts and `/health` have it.",
            query(error_ratio(REQUESTS)),
            unit="percentunit",
            steps=ERROR_STEPS,
            decimals=2,
            no_data=NO_TRAFFIC,
        ),
        number(
            "Mean",
            "From the arrival of a request until its last byte is handed over, streamed bodies included.",
            query(mean()),
            unit="s",
            steps=LATENCY_STEPS,
            no_data=NO_TRAFFIC,
        ),
        number(
            "p95",
            f"95 of 100 requests were faster. Orange from {LATENCY_HIGH} s, where FlaskLatencyHigh fires.",
            query(quantile(0.95)),
            unit="s",
            steps=LATENCY_STEPS,
            no_data=NO_TRAFFIC,
        ),
        number(
            "Busy",
            "Share of all worker threads that answer a request at the moment. At 100 % requests wait.",
            query(threads),
            unit="percentunit",
            steps=SATURATION_STEPS,
            decimals=0,
        ),
    ]


def _traffic() -> list[Panel]:
    classes = f'label_replace({rate(REQUESTS, by="status")}, "class", "${{1}}xx", "status", "(.).*")'
    objective = f'slo:flask_http_requests:objective{{{SERVICE},slo="errors",url_rule=""}}'
    return [
        lines(
            "Requests by status class",
            "4xx are answers that blame the client, 5xx are failures of the service.",
            [query(total(classes, "class"), "{{class}}")],
            unit="reqps",
            colors=STATUS_COLORS,
            stacked=True,
            width=8,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Error ratio",
            "Share of requests answered with 500 or more, and what the objective allows. Dashed: where "
            f"FlaskErrorRatioHigh ({percent(ERROR_RATIO_HIGH)}) and FlaskErrorRatioCritical "
            f"({percent(ERROR_RATIO_CRITICAL)}) fire.",
            [query(error_ratio(REQUESTS), "errors"), query(f"1 - max({objective})", "allowed")],
            unit="percentunit",
            colors={"errors": "red", "allowed": "green"},
            marks=ERROR_STEPS[1:],
            axis=Axis(highest=0.12),
            width=8,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Request rate, compared",
            "Now against the same time earlier; choose how much earlier above. "
            "A drop without a deploy or a holiday is an outage that nobody sees as errors.",
            [
                query(rate(REQUESTS), "now"),
                query(rate(REQUESTS, before="$compare"), "${compare:text}"),
            ],
            unit="reqps",
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
            "Percentiles are true to a few percent; without native histograms only to the classic bucket, "
            "so below 5 ms they say no more than < 5 ms. None is above the slowest request. The "
            f"dashed line is where FlaskLatencyHigh fires (p95 above {LATENCY_HIGH} s).",
            [
                query(quantile(0.99), "p99"),
                query(quantile(0.95), "p95"),
                query(quantile(0.5), "p50"),
                query(mean(), "mean"),
                exemplars(of("flask_http_request_duration_seconds_bucket")),
            ],
            unit="s",
            colors={"p99": "red", "p95": "orange", "p50": "green", "mean": "blue"},
            marks=[(LATENCY_HIGH, "orange")],
            axis=LOGARITHMIC,
            width=8,
            height=10,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Slowest and fastest request",
            "Exact over the last minute of each moment, of all endpoints: what percentiles hide.",
            [query(f"max({slowest})", "slowest"), query(f"min({fastest})", "fastest")],
            unit="s",
            colors={"slowest": "red", "fastest": "green"},
            axis=LOGARITHMIC,
            width=8,
            height=10,
            no_data=NO_TRAFFIC,
        ),
        heat_map(
            "How the durations are spread",
            "Requests a second that took as long as the left scale says. Two bands: two kinds of requests.",
            spread("instance"),
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
            keys=[Key("url_rule", "Endpoint", links.endpoint_of_row())],
            columns=[
                Column("Rate", f"{rate(requests, by=by)} > 0", "reqps", decimals=2, cell="bar", width=190),
                Column("Errors", error_ratio(requests, by=by), "percentunit", decimals=1, steps=ERROR_STEPS),
                Column("p95", quantile_by_endpoint(0.95), "s", decimals=1, steps=LATENCY_STEPS),
            ],
            sort="Rate",
            width=12,
            height=9,
            no_data=NO_TRAFFIC,
        ),
        event_bars(
            "Errors by type",
            "Answers of 400 and more and exceptions, each bar as many as there were within it.",
            [
                query(
                    count_per_bar("flask_http_request_errors_total", by="error_type"),
                    "{{error_type}}",
                    interval="1m",
                )
            ],
            width=12,
            height=9,
            no_data="No errors",
        ),
        lines(
            "Requests in progress",
            "Against the worker threads that there are: beyond these, requests wait in the queue.",
            [
                query(f"sum({of('flask_http_requests_in_progress')})", "in progress"),
                query(f"sum({of('flask_worker_threads')})", "threads"),
            ],
            unit="none",
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
            states=CHECKS,
            width=7,
            height=8,
            no_data="No instance",
        ),
        firing_alerts(),
    ]
