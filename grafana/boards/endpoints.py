"""Flask / Endpoints: which endpoint?"""

from grafana_foundation_sdk.models import dashboard as model

from grafana import board, links, variables
from grafana.board import Fold
from grafana.fields import with_links
from grafana.graphs import LOGARITHMIC, Axis, event_bars, lines
from grafana.panels import NO_TRAFFIC, Panel, heat_map
from grafana.promql import (
    ENDPOINT,
    ERROR,
    URL_RULE,
    apdex,
    count_per_bar,
    error_ratio,
    growth,
    growth_per_bar,
    increase,
    of,
    quantile_by_endpoint,
    rate,
    slowest,
    spread,
    times_allowed,
    total,
)
from grafana.queries import Query, exemplars, query
from grafana.tables import Column, Key, rows
from grafana.thresholds import (
    APDEX_MARKS,
    APDEX_TOLERABLE,
    BAD,
    BURN_STEPS,
    IDLE,
    LATENCY_HIGH,
    LATENCY_STEPS,
    TIMES,
    WARNING,
    Steps,
)

COUNT = "flask_http_request_duration_seconds_count"
SUM = "flask_http_request_duration_seconds_sum"
RECORDED = "instance_url_rule:flask_http_request_duration_seconds:rate_5m"
RANGE = "$__range"
MORE_ERRORS: Steps = ((None, IDLE), (0.001, WARNING), (0.01, BAD))
SLOWER: Steps = ((None, IDLE), (0.1, WARNING), (LATENCY_HIGH, BAD))


def dashboard() -> model.Dashboard:
    """Build the dashboard."""
    return board.board(
        "flask-endpoints",
        "Endpoints",
        "Which endpoint? All of them side by side, and the worst five, or those chosen above, over time.",
        variables=[
            variables.jobs(),
            variables.services(),
            variables.instances(),
            variables.url_rules(),
            variables.compared_with(),
        ],
        contents=[
            _table(),
            *_worst_five(),
            Fold("Where slow requests wait", _slow()),
            Fold("Apdex and durations", _more()),
            Fold("Bytes and disconnects", _bytes()),
        ],
    )


def _table() -> Panel:
    requests = increase(COUNT, URL_RULE, by=ENDPOINT)
    errors = increase(COUNT, URL_RULE, ERROR, by=ENDPOINT)
    ratio = error_ratio(COUNT, URL_RULE, by=ENDPOINT, window=RANGE)
    past_ratio = error_ratio(COUNT, URL_RULE, by=ENDPOINT, window=RANGE, before="$compare")
    seconds = increase(SUM, URL_RULE, by=ENDPOINT)
    all_seconds = increase(SUM)
    p95 = quantile_by_endpoint(0.95, URL_RULE, window=RANGE)
    past_p95 = quantile_by_endpoint(0.95, URL_RULE, window=RANGE, before="$compare")
    return rows(
        "Endpoints in this time range, the most errors first; Δ to ${compare:text}",
        "Errors are answers of 500 and more; of allowed: their ratio in multiples of what the service's "
        "objective allows. Δ is the change since then, as chosen in the menu of controls above. Max is "
        "exact, percentiles are true to a few percent; without native histograms those below 5 ms say no "
        "more than < 5 ms. Time is the endpoint's share of all the time that requests took: where "
        "optimising pays. Rate now is that of the last ${window:raw}. Click an endpoint to see it alone "
        "below.",
        keys=[
            Key("service", "Service", links.service_of_row(), width=90),
            Key("url_rule", "Endpoint", links.endpoint_of_row()),
        ],
        columns=[
            Column("Errors", f"round({errors}) > 0", "locale", decimals=0, width=70),
            Column("Error ratio", ratio, "percentunit", decimals=2, width=84, no_zero=True),
            Column(
                "Of allowed",
                f"{times_allowed(ratio)} > 0",
                TIMES,
                decimals=1,
                steps=BURN_STEPS,
                width=86,
            ),
            Column(
                "Δ errors",
                _past(past_ratio),
                "percentunit",
                decimals=2,
                steps=MORE_ERRORS,
                width=74,
                change_of="Error ratio",
            ),
            Column("p50", quantile_by_endpoint(0.5, URL_RULE, window=RANGE), "s", decimals=1, width=76),
            Column("p95", p95, "s", decimals=1, steps=LATENCY_STEPS, width=76),
            Column(
                "Δ p95",
                _past(past_p95),
                "s",
                decimals=1,
                steps=SLOWER,
                width=76,
                change_of="p95",
            ),
            Column("p99", quantile_by_endpoint(0.99, URL_RULE, window=RANGE), "s", decimals=1, width=76),
            Column("Max", slowest(URL_RULE, by=ENDPOINT, window=RANGE), "s", decimals=1, width=76),
            Column("Requests", f"round({requests}) > 0", "locale", decimals=0, width=80),
            Column("Rate now", f"{rate(COUNT, URL_RULE, by=ENDPOINT)} > 0", "reqps", decimals=2, width=92),
            Column(
                "Time",
                f"({seconds} > 0) / on () group_left () {all_seconds}",
                "percentunit",
                decimals=1,
                bar=True,
                width=110,
                highest=1,
            ),
        ],
        sort=("Errors", "Time"),
        height=11,
        no_data=NO_TRAFFIC,
    )


def _past(expression: str) -> str:
    """The past of each endpoint that has requests now."""
    return f"({expression}) and {total(f'sum_over_time({of(RECORDED, URL_RULE)}[{RANGE}])', ENDPOINT)} > 0"


def _of_worst_five(expression: str) -> list[Query]:
    """Queries of the five worst endpoints: those with the most errors, then those with the most time."""
    errors, seconds = of(COUNT, URL_RULE, ERROR), of(SUM, URL_RULE)
    # The time of the failures themselves gives way to their number: both series have the same labels.
    harm = f"1e9 * increase({errors}[{RANGE}] @ end()) or increase({seconds}[{RANGE}] @ end())"
    worst = f"topk(5, sum by ({ENDPOINT}) ({harm}))"
    return [query(f"{expression} and {worst}", "{{service}} {{url_rule}}")]


def _worst_five() -> list[Panel]:
    panels = [
        lines(
            "Error ratio of the worst five, ${window:raw}",
            "Share of an endpoint's requests answered with 500 or more. The worst five are those with the "
            "most errors, then those that take the most time.",
            _of_worst_five(f"({error_ratio(COUNT, URL_RULE, by=ENDPOINT)})"),
            unit="percentunit",
            shades=BAD,
            axis=Axis(highest=0.01),
            height=8,
            no_data=NO_TRAFFIC,
        ),
        lines(
            "p95 of the worst five, 5m",
            "95 of 100 requests to the endpoint were faster. The dashed line is where FlaskLatencyHigh "
            "fires. A dot is one request; click it for its log line.",
            [
                *_of_worst_five(quantile_by_endpoint(0.95, URL_RULE)),
                exemplars(of("flask_http_request_duration_seconds_bucket", URL_RULE)),
            ],
            unit="s",
            marks=LATENCY_STEPS[1:2],
            axis=LOGARITHMIC,
            height=8,
            no_data=NO_TRAFFIC,
        ),
    ]
    return [with_links(panel, links.endpoint_of_line()) for panel in panels]


def _slow() -> list[Panel]:
    slow, by = "flask_http_request_slow_seconds_total", "service, url_rule, where"
    seconds = growth(slow, URL_RULE, by=by)
    place = "var-find=${__data.fields.Place:percentencode}"
    most = f"topk(5, sum by (service, where) (increase({of(slow, URL_RULE)}[{RANGE}] @ end())))"
    return [
        rows(
            "Where slow requests wait, in this time range",
            "The time of requests slower than EXPORTER_SLOW, by the function of the application's own code "
            "in which they waited, or the template. Click a place for the log lines of its requests; "
            "/monitoring/slow of the service has the line and the call.",
            keys=[
                Key("service", "Service", links.service_of_row(), width=80),
                Key("url_rule", "Endpoint", links.endpoint_of_row(), width=150),
                Key(
                    "where",
                    "Place",
                    [links.to("flask-requests", links.SERVICE_OF_ROW, links.URL_RULE_OF_ROW, place)],
                ),
            ],
            columns=[
                Column("Time", f"{seconds} > 0", "s", decimals=1, width=80),
                Column(
                    "Share",
                    f"({seconds} > 0) / on () group_left () {growth(slow, URL_RULE)}",
                    "percentunit",
                    decimals=1,
                    bar=True,
                    highest=1,
                    width=110,
                ),
            ],
            sort="Time",
            width=14,
            height=9,
            no_data="No slow request",
        ),
        event_bars(
            "Where slow requests wait, the worst five places",
            "Seconds of slow requests that ended within each bar.",
            [
                query(
                    f"{growth_per_bar(slow, URL_RULE, by='service, where')} > 0 and {most}",
                    "{{service}} {{where}}",
                    interval="1m",
                )
            ],
            width=10,
            no_data="No slow request",
        )
        .unit("s")
        .decimals(1),
    ]


def _more() -> list[Panel]:
    panels = [
        lines(
            f"Apdex({LATENCY_HIGH} s) of the worst five, 5m",
            f"Satisfied (within {LATENCY_HIGH} s) plus half of the tolerating (within {APDEX_TOLERABLE} s) "
            "users; errors frustrate. Above 0.94 is excellent, below 0.7 poor. Told from 20 requests on.",
            _of_worst_five(f"({apdex(URL_RULE)})"),
            unit="none",
            marks=APDEX_MARKS,
            calc="min",
            axis=Axis(highest=1),
            decimals=2,
            width=12,
            no_data="Fewer than 20 requests in each window",
        ),
    ]
    durations = heat_map(
        "Durations, 5m",
        "Requests a second of the chosen endpoints together that took as long as the left scale says. Where "
        "only some services have native histograms, choose one: else those without are shown.",
        spread("instance_url_rule", URL_RULE),
        width=12,
        height=9,
    )
    return [*(with_links(panel, links.endpoint_of_line()) for panel in panels), durations]


def _bytes() -> list[Panel]:
    disconnects = count_per_bar("flask_http_client_disconnects_total", URL_RULE, by=ENDPOINT)
    sizes = [
        line.legend_format(f"{title} {{{{service}}}} {{{{url_rule}}}}")
        for title in ("request", "response")
        for line in _of_worst_five(f"({_mean_size(f'flask_http_{title}_size_bytes')})")
    ]
    panels = [
        lines(
            "Mean bodies of the worst five, ${window:raw}",
            "What clients sent in a request, and what they got in a response.",
            sizes,
            unit="bytes",
            axis=LOGARITHMIC,
            no_data=NO_TRAFFIC,
        ),
        event_bars(
            "Client disconnects",
            "Clients that closed before the answer was complete. Each bar is as many as there were within "
            "it.",
            [query(f"{disconnects} > 0", "{{service}} {{url_rule}}", interval="1m")],
            shades=WARNING,
            width=12,
            no_data="No client left early",
        ),
    ]
    return [with_links(panel, links.endpoint_of_line()) for panel in panels]


def _mean_size(family: str) -> str:
    """The mean bytes by endpoint, from a histogram's sum and count."""
    size, requests = (rate(f"{family}_{part}", URL_RULE, by=ENDPOINT) for part in ("sum", "count"))
    return f"{size} / ({requests} > 0) > 0"
