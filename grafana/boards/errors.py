"""Flask / Errors: which error, since when?"""

from grafana_foundation_sdk.builders import timeseries as graphs
from grafana_foundation_sdk.builders.dashboard import Row
from grafana_foundation_sdk.models import dashboard as model

from grafana import board, links, variables
from grafana.fields import with_links
from grafana.graphs import event_bars
from grafana.panels import NO_TRAFFIC, Panel, number
from grafana.promql import URL_RULE, count, count_per_bar, error_ratio, increase, of
from grafana.queries import Query, exemplars, now, query
from grafana.tables import Column, Key, rows
from grafana.thresholds import ANY_IS_BAD, ERROR_STEPS, Steps

ERRORS = "flask_http_request_errors_total"
REQUESTS = "flask_http_request_duration_seconds_count"
SELECTION = f'{URL_RULE},error_type=~"$error_type"'
SERVER = 'status!~"4.."'
CLIENT = 'status=~"4.."'
COUNTS = count(ERRORS, SELECTION, by="job, service, error_type")
TYPE_OF_ROW = "var-error_type=${__data.fields.Type:percentencode}"
TYPE_OF_LINE = "var-error_type=${__field.labels.error_type:percentencode}"
NO_ERRORS = "No errors"


def dashboard() -> model.Dashboard:
    """Build the dashboard."""
    return board.board(
        "flask-errors",
        "Errors",
        "Which error, since when? By type, endpoint and status.",
        variables=[
            variables.jobs(),
            variables.services(),
            variables.instances(),
            variables.url_rules(),
            variables.error_types(),
        ],
        contents=[
            *_summary(),
            _failures(),
            _new_types(),
            Row("Since when"),
            *_over_time(),
            Row("Beside the status"),
            *_beside(),
        ],
    )


def _summary() -> list[Panel]:
    ratio_now = error_ratio(REQUESTS, URL_RULE)
    exceptions = count("flask_http_request_exceptions_total")
    disconnects = count("flask_http_client_disconnects_total", URL_RULE)
    return [
        _number(
            "Failures",
            "Answers of 500 and more, and exceptions.",
            count(ERRORS, SELECTION, SERVER),
            ANY_IS_BAD,
        ),
        number(
            "Error ratio",
            "Share of the chosen endpoints' requests answered with 500 or more.",
            query(ratio_now),
            unit="percentunit",
            steps=ERROR_STEPS,
            decimals=2,
            width=4,
            no_data=NO_TRAFFIC,
        ),
        _number(
            "Refusals",
            "Answers of 400 to 499: the client was told that it was wrong.",
            count(ERRORS, SELECTION, CLIENT),
        ),
        _number("Kinds", "Different error types.", f"count(sum by (error_type) ({COUNTS}) > 0)"),
        _number(
            "Exceptions",
            "Exceptions that no error handler took, of all endpoints.",
            exceptions,
            ANY_IS_BAD,
        ),
        _number("Disconnects", "Clients that left before they had their answer.", disconnects),
    ]


def _number(title: str, description: str, expression: str, steps: Steps = ((None, "text"),)) -> Panel:
    return number(
        title,
        f"{description} In this time range.",
        now(f"{expression} or vector(0)"),
        unit="locale",
        steps=steps,
        decimals=0,
        width=4,
        trend=False,
    )


def _failures() -> Panel:
    by = "error_type, status, url_rule"
    moments = f"timestamp({count_per_bar(ERRORS, SELECTION, by=by)} > 0)"
    panel = rows(
        "What failed",
        "First and last are exact to a minute, over a day to five. Click an endpoint for its log lines.",
        keys=[
            Key("error_type", "Type", [links.to("flask-requests", links.URL_RULE_OF_ROW, TYPE_OF_ROW)]),
            Key("status", "Status", width=70),
            Key("url_rule", "Endpoint", links.endpoint_of_row(TYPE_OF_ROW)),
        ],
        columns=[
            Column(
                "Times", f"{count(ERRORS, SELECTION, by=by)} > 0", "locale", decimals=0, cell="bar", width=110
            ),
            Column(
                "First",
                f"min_over_time({moments}[$__range:$__interval]) * 1000",
                "dateTimeFromNow",
                width=134,
                interval="1m",
            ),
            Column(
                "Last",
                f"max_over_time({moments}[$__range:$__interval]) * 1000",
                "dateTimeFromNow",
                width=134,
                interval="1m",
            ),
        ],
        sort="Times",
        width=16,
        height=10,
        no_data=NO_ERRORS,
    )
    return panel.max_data_points(288)


def _new_types() -> Panel:
    yesterday = f"last_over_time({of(ERRORS)}[1d] offset $__range)"
    return rows(
        "New in this time range",
        "Error types that the service did not have in the day before. Often the first sign that a "
        "deploy or a dependency went wrong.",
        keys=[
            Key("error_type", "Type", [links.to("flask-requests", TYPE_OF_ROW)]),
            Key("service", "Service", width=110),
        ],
        columns=[
            Column(
                "Times",
                f"{COUNTS} > 0 unless on (job, service, error_type) {yesterday}",
                "locale",
                decimals=0,
            )
        ],
        hidden=["job"],
        sort="Times",
        width=8,
        height=10,
        no_data="No error type is new in this time range",
    )


def _bars(title: str, description: str, expression: str, label: str, *more: Query) -> graphs.Panel:
    return event_bars(
        title,
        f"{description} Each bar is as many as there were within it.",
        [query(expression, f"{{{{{label}}}}}", interval="1m"), *more],
        no_data=NO_ERRORS,
    )


def _over_time() -> list[Panel]:
    def by(label: str) -> str:
        return count_per_bar(ERRORS, SELECTION, by=label)

    requests = exemplars(of(ERRORS, SELECTION))
    types = _bars(
        "By type",
        "Classes of the exceptions, or names of the HTTP errors. A dot leads to the log lines of one.",
        by("error_type"),
        "error_type",
        requests,
    )
    endpoints = _bars("By endpoint", "Errors of every status.", by("url_rule"), "url_rule", requests)
    return [
        with_links(types, [links.to("flask-requests", TYPE_OF_LINE)]),
        with_links(endpoints, links.endpoint_of_line()),
        _bars("By status", "4xx blame the client, 5xx the service.", by("status"), "status", requests),
    ]


def _beside() -> list[Panel]:
    disconnects = count_per_bar("flask_http_client_disconnects_total", URL_RULE, by="url_rule")
    messages = increase(
        "flask_log_messages_total", 'level!~"(?i)debug|info"', by="level", window="$__interval"
    )
    exceptions = count_per_bar("flask_http_request_exceptions_total", by="method")
    return [
        _bars("Unhandled exceptions", "By method, of all endpoints.", f"{exceptions} > 0", "method"),
        with_links(
            _bars(
                "Client disconnects",
                "Closed before the answer was complete.",
                f"{disconnects} > 0",
                "url_rule",
            ),
            links.endpoint_of_line(),
        ),
        _bars("Log messages", "Warnings and worse that the service logged.", messages, "level"),
    ]
