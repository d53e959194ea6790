"""Flask / Errors: which error, since when?"""

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.builders import timeseries as graphs
from grafana_foundation_sdk.models import dashboard as model

from grafana import board, links, variables
from grafana.board import Fold
from grafana.fields import with_links
from grafana.graphs import event_bars
from grafana.panels import NO_TRAFFIC, Panel, number
from grafana.promql import SERVICE, URL_RULE, count, count_per_bar, increase, of
from grafana.queries import exemplars, now, query
from grafana.tables import Column, Key, rows
from grafana.thresholds import ANY_IS_BAD, BAD
from grafana.tracebacks import tracebacks

ERRORS = "flask_http_request_errors_total"
REQUESTS = "flask_http_request_duration_seconds_count"
OF_TYPE = 'error_type=~"$error_type"'
SELECTION = f"{URL_RULE},{OF_TYPE}"
FAILURE = 'status!~"4.."'
REFUSAL = 'status=~"4.."'
TYPE_OF_ROW = "var-error_type=${__data.fields.Type:percentencode}"
TYPE_OF_LINE = "var-error_type=${__field.labels.error_type:percentencode}"
NO_FAILURES = "No failures"


def dashboard() -> model.Dashboard:
    """Build the dashboard."""
    return board.board(
        "flask-errors",
        "Errors",
        "Which error, since when? Failures by type, endpoint, version and instance; client errors apart.",
        variables=[
            variables.log_source(),
            variables.jobs(),
            variables.services(),
            variables.instances().hide(variables.MENU),
            variables.url_rules(),
            variables.error_types(),
        ],
        contents=[
            *_summary(),
            _kinds("Failures", FAILURE, 15, NO_FAILURES, "Answers of 500 and more, and exceptions."),
            _new_types(),
            _groups(),
            _by_type(),
            Fold("By version and instance: did a deploy do it, is it one machine?", _more()),
            Fold(
                "Log lines with tracebacks",
                [
                    tracebacks(
                        "Latest errors in the log",
                        "Those of the chosen endpoints and types, with the traceback where there is one. "
                        "Lines do not tell instances apart.",
                        '| error_type=~"$error_type"',
                        height=14,
                    )
                ],
            ),
            Fold(
                "Client errors (4xx)",
                [
                    _kinds(
                        "Client errors (4xx)",
                        REFUSAL,
                        24,
                        "No client errors",
                        "Answers of 400 to 499: the client was told that it was wrong.",
                    )
                ],
            ),
        ],
    )


def _summary() -> list[Panel]:
    failures = count(ERRORS, SELECTION, FAILURE, by="service")
    requests = increase(REQUESTS, URL_RULE, by="service")
    # No more than all: errors count from their first one on, requests sometimes from the first scrape on.
    share = f"clamp_max(({failures} or 0 * {requests}) / {requests}, 1) >= 0"
    return [
        number(
            "Failures in this time range, instances: ${instance:text}",
            "Answers of 500 and more, and exceptions.",
            now(f"{count(ERRORS, SELECTION, FAILURE)} or 0 * {increase(REQUESTS, URL_RULE)}"),
            unit="locale",
            steps=ANY_IS_BAD,
            decimals=0,
            width=12,
            height=3,
            trend=False,
            no_data=NO_TRAFFIC,
        ),
        number(
            "Share that failed in this time range, worst service",
            "The failures among all requests to the chosen endpoints.",
            now(f"topk(1, {share})", "{{service}}"),
            unit="percentunit",
            decimals=2,
            width=12,
            height=3,
            trend=False,
            show_names=True,
            no_data=NO_TRAFFIC,
        ),
    ]


def _kinds(title: str, statuses: str, width: int, no_data: str, description: str) -> table.Panel:
    by = "error_type, status, service, url_rule"
    moments = f"timestamp({count_per_bar(ERRORS, SELECTION, statuses, by=by)} > 0)"
    panel = rows(
        f"{title} in this time range, by type and endpoint",
        f"{description} First and last are exact to a minute, over a day to five. Click a type for its log "
        "lines.",
        keys=[
            Key(
                "error_type",
                "Type",
                [links.to("flask-requests", links.SERVICE_OF_ROW, links.URL_RULE_OF_ROW, TYPE_OF_ROW)],
            ),
            Key("status", "Status", width=58),
            Key("service", "Service", links.service_of_row(), width=76),
            Key("url_rule", "Endpoint", links.endpoint_of_row(TYPE_OF_ROW)),
        ],
        columns=[
            Column(
                "Times",
                f"{count(ERRORS, SELECTION, statuses, by=by)} > 0",
                "locale",
                decimals=0,
                width=66,
            ),
            *_moments(moments),
        ],
        sort="Times",
        width=width,
        height=7,
        no_data=no_data,
    )
    return panel.max_data_points(288)


def _new_types() -> table.Panel:
    by = "service, error_type"
    counts = count(ERRORS, SELECTION, FAILURE, by=by)
    yesterday = f"last_over_time({of(ERRORS, SELECTION, FAILURE)}[1d] offset $__range)"
    bars = count_per_bar(ERRORS, SELECTION, FAILURE, by=by)
    panel = rows(
        "New error types in this time range",
        "Types of failures that the service did not have in the day before. Often the first sign that a "
        "deploy or a dependency went wrong.",
        keys=[
            Key("error_type", "Type", [links.to("flask-requests", links.SERVICE_OF_ROW, TYPE_OF_ROW)]),
            Key("service", "Service", links.service_of_row(), width=76),
        ],
        columns=[
            Column("Times", f"{counts} > 0 unless on ({by}) {yesterday}", "locale", decimals=0, width=66),
            Column(
                "First",
                f"min_over_time(timestamp({bars} > 0)[$__range:$__interval]) * 1000 unless on ({by}) "
                f"{yesterday}",
                "dateTimeAsLocalNoDateIfToday",
                width=102,
                interval="1m",
            ),
        ],
        sort="Times",
        width=9,
        height=7,
        no_data="No error type is new in this time range",
    )
    return panel.max_data_points(288)


def _bars(title: str, description: str, expression: str, legend: str, width: int = 12) -> graphs.Panel:
    return event_bars(
        title,
        f"{description} Each bar is as many as there were within it.",
        [query(f"{expression} > 0", legend, interval="1m"), exemplars(of(ERRORS, SELECTION, FAILURE))],
        shades=BAD,
        width=width,
        height=8,
        no_data=NO_FAILURES,
    )


def _failures(by: str) -> str:
    return count_per_bar(ERRORS, SELECTION, FAILURE, by=by)


def _groups() -> table.Panel:
    groups = "flask_http_request_error_group_total"
    by = "error_group, error_type, where, service"
    moments = f"timestamp({count_per_bar(groups, OF_TYPE, by=by)} > 0)"
    group = "var-find=${__data.fields.Group:percentencode}"
    panel = rows(
        "Bugs in this time range, by error group",
        "Exceptions of one type that came the same way through the application's own code are one group, "
        "over endpoints, workers and deploys; place is the function that they come from. Click a group for "
        "its log lines with their tracebacks; /monitoring/errors of the service has one without Loki.",
        keys=[
            Key("error_group", "Group", [links.to("flask-requests", links.SERVICE_OF_ROW, group)], width=115),
            Key("error_type", "Type", width=165),
            Key("where", "Place"),
            Key("service", "Service", links.service_of_row(), width=76),
        ],
        columns=[
            Column("Times", f"{count(groups, OF_TYPE, by=by)} > 0", "locale", decimals=0, width=66),
            *_moments(moments),
        ],
        sort="Times",
        width=17,
        height=8,
        no_data="No exception of the application's code",
    )
    return panel.max_data_points(288)


def _moments(moments: str) -> list[Column]:
    """Columns of the first moment, as a time to compare with a deploy, and of the age of the last one."""
    return [
        Column(
            title,
            f"{kind}_over_time({moments}[$__range:$__interval]) * 1000",
            unit,
            width=width,
            interval="1m",
        )
        for title, kind, unit, width in zip(
            ("First", "Last"),
            ("min", "max"),
            ("dateTimeAsLocalNoDateIfToday", "dateTimeFromNow"),
            (102, 136),
            strict=True,
        )
    ]


def _by_type() -> graphs.Panel:
    types = _bars(
        "Failures by error type",
        "Classes of the exceptions, or names of the HTTP errors. A dot leads to the log lines of one.",
        _failures("service, error_type"),
        "{{service}} {{error_type}}",
        width=7,
    )
    return with_links(types, [links.to("flask-requests", links.SERVICE_OF_LINE, TYPE_OF_LINE)])


def _more() -> list[Panel]:
    versions = f"topk by (service, instance) (1, flask_app_info{{{SERVICE}}})"
    by_version = (
        f"sum by (service, version) ({_failures('service, instance')}"
        f" * on (service, instance) group_left (version) {versions})"
    )
    instances = _bars(
        "Failures by instance",
        "One instance alone: its machine. All of them: the code, or what it depends on.",
        _failures("service, instance"),
        "{{service}} {{instance}}",
    )
    return [
        _bars(
            "Failures by version",
            "Whether a deploy brought them, or ended them.",
            by_version,
            "{{service}} {{version}}",
        ),
        with_links(instances, links.instance_of_line()),
    ]
