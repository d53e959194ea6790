"""Flask / Endpoints: which endpoint?"""

from grafana_foundation_sdk.builders.dashboard import Row
from grafana_foundation_sdk.models import dashboard as model

from grafana import board
from grafana.fields import linked
from grafana.panels import Panel, Query, exemplars, heat_map, lines, query
from grafana.promql import (
    ERROR,
    URL_RULE,
    apdex,
    error_ratio,
    increase,
    of,
    quantile_by_endpoint,
    rate,
    total,
)
from grafana.tables import Column, Key, rows
from grafana.thresholds import ERROR_STEPS, LATENCY_STEPS, NO_TRAFFIC

COUNT = "flask_http_request_duration_seconds_count"
SUM = "flask_http_request_duration_seconds_sum"


def dashboard() -> model.Dashboard:
    """The dashboard."""
    return board.board(
        "flask-endpoints",
        "Endpoints",
        "Which endpoint? All of them side by side, and each that is chosen above over time.",
        [board.jobs(), board.services(), board.instances(), board.url_rules()],
        [
            _table(),
            Row("Traffic and errors: $url_rule"),
            *_traffic(),
            Row("Latency: $url_rule"),
            *_latency(),
            Row("Bytes: $url_rule"),
            *_bytes(),
        ],
    )


def _table() -> Panel:
    by = "url_rule"
    requests = increase(COUNT, URL_RULE, by=by)
    errors = increase(COUNT, URL_RULE, ERROR, by=by)
    share = error_ratio(COUNT, URL_RULE, by=by, window="$__range")
    handled = rate(COUNT, URL_RULE, by=by, window="$__range")
    spent = rate(SUM, URL_RULE, by=by, window="$__range")
    everything = rate(SUM, window="$__range")
    slowest = of("flask_http_request_duration_max_seconds", URL_RULE)
    fastest = of("flask_http_request_duration_min_seconds", URL_RULE)
    return rows(
        "Endpoints over the whole time range",
        "Errors are answers of 500 and more. Time is the endpoint's share of all the time that requests "
        "took: where optimising pays. Min and max are exact, percentiles true to the histogram's "
        "bucket. Click an endpoint to see it alone below.",
        [Key("url_rule", "Endpoint", board.endpoint_of_row())],
        [
            Column("Requests", f"{requests} > 0", "locale", 0),
            Column("Rate", f"{handled} > 0", "reqps", 2, width=100),
            Column("Mean", f"{spent} / ({handled} > 0)", "s", 1, LATENCY_STEPS),
            Column("Min", f"min by (url_rule) (min_over_time({fastest}[$__range]))", "s", 1),
            Column("Max", f"max by (url_rule) (max_over_time({slowest}[$__range]))", "s", 1),
            Column(
                "p50", quantile_by_endpoint(0.5, URL_RULE, window="$__range"), "s", 1, LATENCY_STEPS, "colour"
            ),
            Column(
                "p95",
                quantile_by_endpoint(0.95, URL_RULE, window="$__range"),
                "s",
                1,
                LATENCY_STEPS,
                "colour",
            ),
            Column(
                "p99",
                quantile_by_endpoint(0.99, URL_RULE, window="$__range"),
                "s",
                1,
                LATENCY_STEPS,
                "colour",
            ),
            Column("Errors", f"{errors} > 0", "locale", 0),
            Column("Error ratio", share, "percentunit", 2, ERROR_STEPS, "colour"),
            Column(
                "Time",
                f"({spent} > 0) / on () group_left () {everything}",
                "percentunit",
                1,
                cell="bar",
                width=120,
                highest=1,
            ),
        ],
        sort="Time",
        height=13,
        no_data=NO_TRAFFIC,
    )


def _each(expression: str) -> list[Query]:
    return [query(expression, "{{url_rule}}")]


def _traffic() -> list[Panel]:
    by = "url_rule"
    errors = error_ratio(COUNT, URL_RULE, by=by)
    panels = [
        lines(
            "Request rate",
            "Requests a second to each endpoint.",
            "reqps",
            _each(rate(COUNT, URL_RULE, by=by)),
            width=8,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Error ratio",
            "Share of an endpoint's requests answered with 500 or more.",
            "percentunit",
            _each(errors),
            width=8,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Apdex",
            "Satisfied (within 0.5 s) plus half of the tolerating (within 2.5 s) users; errors frustrate. "
            "Above 0.94 is excellent, below 0.7 poor.",
            "none",
            _each(apdex(URL_RULE)),
            objective=((None, "transparent"), (0.7, "red"), (0.94, "green")),
            calcs=["min", "mean"],
            highest=1,
            decimals=2,
            width=8,
            no_data=NO_TRAFFIC,
        ),
    ]
    return [linked(panel, board.endpoint_of_line()) for panel in panels]


def _latency() -> list[Panel]:
    buckets = of("instance_url_rule:flask_http_request_duration_seconds_bucket:rate_5m", URL_RULE)
    p95 = lines(
        "p95",
        "95 of 100 requests to the endpoint were faster. The dashed line is where FlaskLatencyHigh fires.",
        "s",
        [
            *_each(quantile_by_endpoint(0.95, URL_RULE)),
            exemplars(of("flask_http_request_duration_seconds_bucket", URL_RULE)),
        ],
        objective=((None, "transparent"), (0.5, "orange")),
        logarithmic=True,
        width=8,
        height=10,
        no_data=NO_TRAFFIC,
    )
    slowest = lines(
        "Slowest request",
        "Exact over the last minute of each moment.",
        "s",
        _each(f"max by (url_rule) ({of('flask_http_request_duration_max_seconds', URL_RULE)})"),
        logarithmic=True,
        width=8,
        height=10,
        no_data=NO_TRAFFIC,
    )
    spread = heat_map(
        "How the durations are spread",
        "Requests a second of the chosen endpoints together that took as long as the left scale says.",
        total(buckets, "le"),
        width=8,
        height=10,
    )
    return [linked(p95, board.endpoint_of_line()), linked(slowest, board.endpoint_of_line()), spread]


def _bytes() -> list[Panel]:
    sent = mean_size("flask_http_request_size_bytes_sum", "flask_http_request_size_bytes_count")
    answered = mean_size("flask_http_response_size_bytes_sum", "flask_http_response_size_bytes_count")
    panels = [
        lines("Request body", "Mean size of what clients sent.", "bytes", _each(sent), no_data=NO_TRAFFIC),
        lines("Response body", "Mean size of the answers.", "bytes", _each(answered), no_data=NO_TRAFFIC),
    ]
    return [linked(panel, board.endpoint_of_line()) for panel in panels]


def mean_size(size: str, number: str) -> str:
    """Mean bytes a request by endpoint, of a histogram's sum and count."""
    return f"{rate(size, URL_RULE, by='url_rule')} / ({rate(number, URL_RULE, by='url_rule')} > 0)"
