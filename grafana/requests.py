"""Flask / Requests: which requests exactly? Their lines in the request log, from Loki."""

from grafana_foundation_sdk.builders import logs, loki
from grafana_foundation_sdk.builders import timeseries as graphs
from grafana_foundation_sdk.builders.dashboard import CustomVariable, TextBoxVariable
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableOption

from grafana import board
from grafana.meaning import NO_TRAFFIC, STATUS_COLORS
from grafana.panels import frame, lines, query
from grafana.promql import URL_RULE, rate, total

LOGS = DataSourceRef(type_val="loki", uid="loki")
# The values are patterns that fit 404 and 4xx alike, so they must reach the query unescaped.
STATUS = "${status_class:pipe}"
STREAMS = f'job=~"$job",url_rule=~"$url_rule",status_class=~"{STATUS}"'
# With an id, exactly its lines; without one the second half holds for every line. `|=` finds an id fast.
IDENTIFIED = '|= "$request_id" | request_id="$request_id" or job=~"($job)$request_id"'
CHOSEN = f'{IDENTIFIED} | error_type=~"$error_type"'
REQUESTS = f'{{{STREAMS}}} | logger="exporter.request" {CHOSEN}'
ERRORS = (
    f'{{job=~"$job",url_rule=~"$url_rule",level=~"ERROR|CRITICAL"}} | logger!="exporter.request" {CHOSEN}'
)
NO_LOG = "No such line in this time range"


def dashboard() -> model.Dashboard:
    """The dashboard."""
    return board.board(
        "flask-requests",
        "Requests",
        "Which requests exactly? The request log, as Alloy ships it to Loki; without Loki it is in its file.",
        [
            board.jobs(),
            board.services(),
            board.instances(),
            board.url_rules(),
            board.error_types(),
            CustomVariable("status_class")
            .label("Status")
            .values("2xx : 2..,3xx : 3..,4xx : 4..,5xx : 5..")
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(VariableOption(selected=True, text=["All"], value=["$__all"])),
            TextBoxVariable("request_id").label("Request id"),
        ],
        [_logged(), _measured(), _requests(), _errors()],
    )


def _logged() -> graphs.Panel:
    asked = loki.Dataquery().expr(f"sum by (status_class) (rate({REQUESTS} [$__auto]))")
    return lines(
        "Requests in the log",
        "Counted from the lines below. Fewer than the metrics count: lines are lost on the way to Loki.",
        "reqps",
        [asked.legend_format("{{status_class}}").query_type("range")],
        colors=STATUS_COLORS,
        stacked=True,
        source=LOGS,
        no_data=NO_LOG,
    )


def _measured() -> graphs.Panel:
    counted = rate("flask_http_request_duration_seconds_count", URL_RULE, f'status=~"{STATUS}"', by="status")
    classes = f'label_replace({counted}, "class", "${{1}}xx", "status", "(.).*")'
    return lines(
        "Requests in the metrics",
        "The same endpoints and statuses, counted by the exporter; error type and request id do not apply.",
        "reqps",
        [query(total(classes, "class"), "{{class}}")],
        colors=STATUS_COLORS,
        stacked=True,
        no_data=NO_TRAFFIC,
    )


def _requests() -> logs.Panel:
    shown = "{{.method}} {{.path}}  {{.status}}  {{.duration_seconds}} s  {{.error_type}}  {{.request_id}}"
    return _lines(
        "Requests",
        "Newest first: method, path, status, duration, error type and id. Open a line to see all of it.",
        f"{REQUESTS} | line_format `{shown}`",
        height=14,
    )


def _errors() -> logs.Panel:
    shown = r"{{.message}} {{.request_id}}\n{{.traceback}}"
    return _lines(
        "Errors logged while a request was answered",
        "What the service itself logged, with the traceback where there is one.",
        f'{ERRORS} | json message="message", traceback="traceback" | line_format "{shown}"',
        height=14,
    )


def _lines(title: str, description: str, expression: str, *, height: int) -> logs.Panel:
    asked = loki.Dataquery().expr(expression).query_type("range").max_lines(500)
    return (
        frame(logs.Panel(), title, description, [asked], 24, height, LOGS)
        .unit("none")
        .no_value(NO_LOG)
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .sort_order(look.LogsSortOrder("Descending"))
    )
