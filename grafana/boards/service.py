"""Flask / Service: is it healthy?"""

from grafana_foundation_sdk.models import dashboard as model

from grafana import board, links, variables
from grafana.alerts import STATES, firing_alerts, state
from grafana.board import Fold
from grafana.fields import LEVEL_COLORS, STATUS_COLORS, with_links
from grafana.graphs import LOGARITHMIC, Axis, event_bars, lines
from grafana.panels import NO_TRAFFIC, Panel, number, timeline
from grafana.promql import (
    ENDPOINT,
    ERROR,
    INSTANCE,
    SERVICE,
    error_ratio,
    increase,
    of,
    quantile,
    quantile_by_endpoint,
    rate,
    slowest,
    times_allowed,
    total,
)
from grafana.queries import exemplars, now, query
from grafana.tables import Column, Key, rows
from grafana.thresholds import (
    BAD,
    BURN_STEPS,
    DIM,
    ERROR_MARKS,
    ERROR_RATIO_CRITICAL,
    ERROR_RATIO_HIGH,
    FINE,
    IDLE,
    LATENCY_HIGH,
    LATENCY_STEPS,
    PALE,
    SATURATION_STEPS,
    THREADS_SATURATED,
    TIMES,
    percent,
)

UP = {0: ("down, or fails", BAD), 1: ("up, or passes", FINE)}
REQUESTS = "flask_http_request_total"
DURATIONS = "flask_http_request_duration_seconds_count"
PERCENTILES = {"slowest": IDLE, "p99": PALE, "p95": FINE, "p50": DIM}


def dashboard() -> model.Dashboard:
    """Build the dashboard."""
    return board.board(
        "flask-service",
        "Service",
        "Is it healthy? Traffic, errors and latency of one service, what is wrong with it, and what changed.",
        variables=[
            variables.jobs(),
            variables.service(),
            variables.instances(),
            variables.compared_with(),
        ],
        contents=[
            *_summary(),
            firing_alerts(of_instance=True, width=13),
            _endpoints(),
            *_over_time(),
            Fold("By instance and version: is it one machine, did the deploy do it?", _instances()),
            Fold("Compared with ${compare:text}", _comparison()),
            Fold("Health checks and log", _details()),
        ],
    )


def _summary() -> list[Panel]:
    ratio = error_ratio(REQUESTS, by="service")
    return [
        number(
            "State",
            "The worst of: no instance up, a critical alert, an instance down, a check registered with "
            "`@exporter.health_check` that fails, a warning. Beneath it: how many instances Prometheus can "
            "scrape, and the worst alert.",
            now(state(INSTANCE), "{{instances}} up {{alert}}"),
            unit="none",
            states=STATES,
            trend=False,
            show_names=True,
            width=5,
            no_data="No instance",
        ),
        number(
            "Request rate, ${window:raw}",
            "Requests a second, without the exporter's own paths.",
            query(rate(REQUESTS)),
            unit="reqps",
            decimals=1,
            width=4,
            trend=False,
            no_data=NO_TRAFFIC,
        ),
        number(
            "Error ratio, ${window:raw}",
            "Share of requests answered with a status of 500 or more, unhandled exceptions included.",
            query(error_ratio(REQUESTS)),
            unit="percentunit",
            decimals=2,
            width=4,
            trend=False,
            no_data=NO_TRAFFIC,
        ),
        number(
            "Of allowed, ${window:raw}",
            "The error ratio in multiples of what the service's own objective allows: at 1 the budget "
            "lasts exactly its 30 days, at 14.4 two days.",
            query(times_allowed(ratio)),
            unit=TIMES,
            steps=BURN_STEPS,
            decimals=1,
            width=4,
            trend=False,
            no_data=NO_TRAFFIC,
        ),
        number(
            "p95, 5m",
            f"95 of 100 requests were faster. Orange from {LATENCY_HIGH} s, where FlaskLatencyHigh fires.",
            query(quantile(0.95)),
            unit="s",
            steps=LATENCY_STEPS,
            trend=False,
            no_data=NO_TRAFFIC,
        ),
        number(
            "Busy threads, 5m",
            "Share of its worker threads that answer a request, of the busiest instance; the highest of "
            "the last 5 minutes. FlaskThreadsSaturated fires at "
            f"{percent(THREADS_SATURATED)}.",
            now(f"topk(1, {_busy('instance')})", "{{instance}}"),
            unit="percentunit",
            steps=SATURATION_STEPS,
            decimals=0,
            width=4,
            trend=False,
            show_names=True,
        ),
    ]


def _busy(by: str) -> str:
    busy, threads = of("flask_worker_threads_busy"), of("flask_worker_threads")
    return f"max by ({by}) (max_over_time({busy}[5m]) / {threads})"


def _endpoints() -> Panel:
    return rows(
        "Endpoints that matter, ${window:raw}",
        "Those with the most errors first, then those that take the most time. Click one for its own "
        "dashboards.",
        keys=[Key("url_rule", "Endpoint", links.endpoint_of_row()), Key("service", "Service", hidden=True)],
        columns=[
            Column("Errors/s", f"{rate(DURATIONS, ERROR, by=ENDPOINT)} > 0", "none", decimals=2, width=88),
            Column(
                "Of allowed",
                f"{times_allowed(error_ratio(DURATIONS, by=ENDPOINT))} > 0",
                TIMES,
                decimals=1,
                steps=BURN_STEPS,
                width=86,
            ),
            Column(
                "p95",
                quantile_by_endpoint(0.95),
                "s",
                decimals=1,
                steps=LATENCY_STEPS,
                width=80,
            ),
            Column("Rate", f"{rate(DURATIONS, by=ENDPOINT)} > 0", "reqps", decimals=1, width=80),
            Column(
                "Time",
                f"{rate('flask_http_request_duration_seconds_sum', by=ENDPOINT)} > 0",
                "none",
                decimals=2,
                width=60,
            ),
        ],
        sort=("Errors/s", "Time"),
        width=11,
        height=7,
        no_data=NO_TRAFFIC,
    )


def _classes(statuses: str) -> str:
    return total(f'label_replace({statuses}, "class", "${{1}}xx", "status", "(.).*")', "class")


def _over_time() -> list[Panel]:
    objective = f'slo:flask_http_requests:objective{{{SERVICE},slo="errors",url_rule=""}}'
    return [
        lines(
            "Requests by status, ${window:raw}",
            "4xx are answers that blame the client, 5xx are failures of the service.",
            [query(_classes(rate(REQUESTS, by="status")), "{{class}}")],
            unit="reqps",
            colors=STATUS_COLORS,
            stacked=True,
            width=8,
            height=8,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Error ratio, ${window:raw}",
            "Share of requests answered with 500 or more, and what the objective allows; on a logarithmic "
            f"scale, where 0 has no place. Dashed: where FlaskErrorRatioHigh ({percent(ERROR_RATIO_HIGH)}) "
            f"and FlaskErrorRatioCritical ({percent(ERROR_RATIO_CRITICAL)}) fire.",
            [query(error_ratio(REQUESTS), "errors"), query(f"1 - max({objective})", "allowed")],
            unit="percentunit",
            colors={"errors": BAD, "allowed": IDLE},
            marks=ERROR_MARKS,
            axis=LOGARITHMIC,
            width=8,
            height=8,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Duration of requests, 5m",
            "The slowest is exact, percentiles are true to a few percent; without native histograms only "
            "to the classic bucket, so below 5 ms they say no more than < 5 ms. The dashed line is where "
            f"FlaskLatencyHigh fires (p95 above {LATENCY_HIGH} s). A dot is one request; click it for its "
            "log line.",
            [
                query(slowest(), "slowest"),
                query(quantile(0.99), "p99"),
                query(quantile(0.95), "p95"),
                query(quantile(0.5), "p50"),
                exemplars(of("flask_http_request_duration_seconds_bucket")),
            ],
            unit="s",
            colors=PERCENTILES,
            marks=LATENCY_STEPS[1:2],
            axis=LOGARITHMIC,
            width=8,
            height=8,
            no_data=NO_TRAFFIC,
        ),
    ]


def _instances() -> list[Panel]:
    # One version for each instance, which may have two during a deploy.
    versions = (
        f"group by (service, instance, version) (topk by (service, instance) (1, {of('flask_app_info')}))"
    )
    by, legend = "service, instance", "{{instance}} {{version}}"

    def with_version(expression: str) -> str:
        return f"({expression}) * on (service, instance) group_left (version) {versions}"

    panels = [
        lines(
            "Request rate by instance and version, ${window:raw}",
            "Requests a second. An instance with much more or less than the others is worth a look.",
            [query(with_version(rate(REQUESTS, by=by)), legend)],
            unit="reqps",
            width=8,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Error ratio by instance and version, ${window:raw}",
            "Share of each instance's requests answered with 500 or more.",
            [query(with_version(error_ratio(REQUESTS, by=by)), legend)],
            unit="percentunit",
            shades=BAD,
            axis=Axis(highest=0.01),
            width=8,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "p95 by instance and version, 5m",
            "95 of 100 requests to the instance were faster.",
            [query(with_version(quantile(0.95, by=by)), legend)],
            unit="s",
            marks=LATENCY_STEPS[1:2],
            width=8,
            no_data=NO_TRAFFIC,
        ),
    ]
    return [with_links(panel, links.instance_of_line()) for panel in panels]


def _comparison() -> list[Panel]:
    past = "$compare"
    comparisons = {
        "Request rate, ${window:raw}, compared": (
            "A drop without a deploy or a holiday is an outage that nobody sees as errors. FlaskTrafficLow "
            "fires below half of the least that is usual at this hour.",
            "reqps",
            (rate(REQUESTS), rate(REQUESTS, before=past)),
            [query(_usual("rate_5m"), "least usual")],
        ),
        "Error ratio, ${window:raw}, compared": (
            "Share of requests answered with 500 or more.",
            "percentunit",
            (error_ratio(REQUESTS), error_ratio(REQUESTS, before=past)),
            [],
        ),
        "p95, 5m, compared": (
            "95 of 100 requests were faster. FlaskLatencyUnusual fires where it stays above the highest that "
            "is usual at this hour.",
            "s",
            (quantile(0.95), quantile(0.95, before=past)),
            [query(_usual("p95_15m"), "highest usual")],
        ),
    }
    return [
        lines(
            title,
            f"{description} Lines are missing where there is no data from then.",
            [query(present, "now"), query(former, "${compare:text}"), *usual],
            unit=unit,
            colors={
                "now": BAD if unit == "percentunit" else FINE,
                "least usual": PALE,
                "highest usual": PALE,
            },
            shades=IDLE,
            axis=Axis(highest=0.01) if unit == "percentunit" else Axis(),
            width=8,
            no_data=NO_TRAFFIC,
        )
        for title, (description, unit, (present, former), usual) in comparisons.items()
    ]


def _usual(metric: str) -> str:
    """What alerts take for usual at this hour, of the whole service: yesterday, and a week ago."""
    return f"max(job:flask_http_request_duration_seconds:usual_{metric}{{{SERVICE}}})"


def _details() -> list[Panel]:
    messages = increase(
        "flask_log_messages_total", 'level!~"(?i)debug|info"', by="level", window="$__interval"
    )
    return [
        timeline(
            "Instances and health checks",
            "Whether Prometheus could scrape each instance, and the checks registered with "
            "`@exporter.health_check`: while one fails, `/health` answers 503.",
            [
                query(of("up"), "{{instance}}"),
                query(f"min by (check) ({of('flask_health_check_up')})", "check {{check}}"),
            ],
            states=UP,
            width=12,
            height=8,
            no_data="No instance",
        ),
        event_bars(
            "Log messages by level",
            "Warnings and worse that the service logged, each bar as many as there were within it.",
            [query(f"round({messages}) > 0", "{{level}}", interval="1m")],
            colors=LEVEL_COLORS,
            width=12,
            height=8,
            no_data="No warning was logged",
        ),
    ]
