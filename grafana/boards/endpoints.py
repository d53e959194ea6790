"""Flask / Endpoints: which endpoint?"""

from grafana_foundation_sdk.builders.dashboard import Row
from grafana_foundation_sdk.models import dashboard as model

from grafana import board, links, variables
from grafana.fields import with_links
from grafana.graphs import LOGARITHMIC, Axis, lines
from grafana.panels import NO_TRAFFIC, Panel, heat_map
from grafana.promql import (
    ERROR,
    URL_RULE,
    apdex,
    error_ratio,
    increase,
    of,
    quantile_by_endpoint,
    rate,
    spread,
)
from grafana.queries import Query, exemplars, query
from grafana.tables import Column, Key, rows
from grafana.thresholds import (
    APDEX_MARKS,
    APDEX_TOLERABLE,
    ERROR_STEPS,
    LATENCY_HIGH,
    LATENCY_STEPS,
)

COUNT = "flask_http_request_duration_seconds_count"
SUM = "flask_http_request_duration_seconds_sum"


def dashboard() -> model.Dashboard:
    """Build the dashboard."""
    return board.board(
        "flask-endpoints",
        "Endpoints",
        "Which endpoint? All of them side by side, and each that is chosen above over time.",
        variables=[variables.jobs(), variables.services(), variables.instances(), variables.url_rules()],
        contents=[
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
    ratio = error_ratio(COUNT, URL_RULE, by=by, window="$__range")
    throughput = rate(COUNT, URL_RULE, by=by, window="$__range")
    seconds = rate(SUM, URL_RULE, by=by, window="$__range")
    all_seconds = rate(SUM, window="$__range")
    slowest = of("flask_http_request_duration_max_seconds", URL_RULE)
    fastest = of("flask_http_request_duration_min_seconds", URL_RULE)
    return rows(
        "Endpoints over the whole time range",
        "Errors are answers of 500 and more. Time is the endpoint's share of all the time that requests "
        "took: where optimising pays. Min and max are exact, percentiles true to a few percent; without "
        "native histograms those below 5 ms say no more than < 5 ms. "
        "Click an endpoint to see it alone below.",
        keys=[Key("url_rule", "Endpoint", links.endpoint_of_row())],
        columns=[
            Column("Requests", f"{requests} > 0", "locale", decimals=0),
            Column("Rate", f"{throughput} > 0", "reqps", decimals=2, width=100),
            Column("Mean", f"{seconds} / ({throughput} > 0)", "s", decimals=1, steps=LATENCY_STEPS),
            Column("Min", f"min by (url_rule) (min_over_time({fastest}[$__range]))", "s", decimals=1),
            Column("Max", f"max by (url_rule) (max_over_time({slowest}[$__range]))", "s", decimals=1),
            Column(
                "p50",
                quantile_by_endpoint(0.5, URL_RULE, window="$__range"),
                "s",
                decimals=1,
                steps=LATENCY_STEPS,
                cell="colour",
            ),
            Column(
                "p95",
                quantile_by_endpoint(0.95, URL_RULE, window="$__range"),
                "s",
                decimals=1,
                steps=LATENCY_STEPS,
                cell="colour",
            ),
            Column(
                "p99",
                quantile_by_endpoint(0.99, URL_RULE, window="$__range"),
                "s",
                decimals=1,
                steps=LATENCY_STEPS,
                cell="colour",
            ),
            Column("Errors", f"{errors} > 0", "locale", decimals=0),
            Column("Error ratio", ratio, "percentunit", decimals=2, steps=ERROR_STEPS, cell="colour"),
            Column(
                "Time",
                f"({seconds} > 0) / on () group_left () {all_seconds}",
                "percentunit",
                decimals=1,
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
            _each(rate(COUNT, URL_RULE, by=by)),
            unit="reqps",
            width=8,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Error ratio",
            "Share of an endpoint's requests answered with 500 or more.",
            _each(errors),
            unit="percentunit",
            width=8,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Apdex",
            f"Satisfied (within {LATENCY_HIGH} s) plus half of the tolerating (within {APDEX_TOLERABLE} s) "
            "users; errors frustrate. "
            "Above 0.94 is excellent, below 0.7 poor.",
            _each(apdex(URL_RULE)),
            unit="none",
            marks=APDEX_MARKS,
            calcs=["min", "mean"],
            axis=Axis(highest=1),
            decimals=2,
            width=8,
            no_data=NO_TRAFFIC,
        ),
    ]
    return [with_links(panel, links.endpoint_of_line()) for panel in panels]


def _latency() -> list[Panel]:
    p95 = lines(
        "p95",
        "95 of 100 requests to the endpoint were faster. The dashed line is where FlaskLatencyHigh fires.",
        [
            *_each(quantile_by_endpoint(0.95, URL_RULE)),
            exemplars(of("flask_http_request_duration_seconds_bucket", URL_RULE)),
        ],
        unit="s",
        marks=[(LATENCY_HIGH, "orange")],
        axis=LOGARITHMIC,
        width=8,
        height=10,
        no_data=NO_TRAFFIC,
    )
    slowest = lines(
        "Slowest request",
        "Exact over the last minute of each moment.",
        _each(f"max by (url_rule) ({of('flask_http_request_duration_max_seconds', URL_RULE)})"),
        unit="s",
        axis=LOGARITHMIC,
        width=8,
        height=10,
        no_data=NO_TRAFFIC,
    )
    durations = heat_map(
        "How the durations are spread",
        "Requests a second of the chosen endpoints together that took as long as the left scale says.",
        spread("instance_url_rule", URL_RULE),
        width=8,
        height=10,
    )
    return [
        with_links(p95, links.endpoint_of_line()),
        with_links(slowest, links.endpoint_of_line()),
        durations,
    ]


def _bytes() -> list[Panel]:
    requests = _mean_size("flask_http_request_size_bytes_sum", "flask_http_request_size_bytes_count")
    responses = _mean_size("flask_http_response_size_bytes_sum", "flask_http_response_size_bytes_count")
    panels = [
        lines(
            "Request body",
            "Mean size of what clients sent.",
            _each(requests),
            unit="bytes",
            no_data=NO_TRAFFIC,
        ),
        lines(
            "Response body", "Mean size of the answers.", _each(responses), unit="bytes", no_data=NO_TRAFFIC
        ),
    ]
    return [with_links(panel, links.endpoint_of_line()) for panel in panels]


def _mean_size(size: str, number: str) -> str:
    """Mean bytes by endpoint, from a histogram's sum and count."""
    return f"{rate(size, URL_RULE, by='url_rule')} / ({rate(number, URL_RULE, by='url_rule')} > 0)"
