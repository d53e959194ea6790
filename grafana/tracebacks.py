"""The panel of what a service itself logged while it answered, with tracebacks, from Loki."""

from grafana_foundation_sdk.builders import logs
from grafana_foundation_sdk.models import common as look

from grafana.panels import frame
from grafana.queries import log_query

SCOPE = 'job=~"$job",service=~"$service",url_rule=~"$url_rule"'
NO_LOG = "No such line in this time range, or no Loki: without one, the lines are in the request log's file"


def tracebacks(title: str, description: str, selection: str, *, height: int) -> logs.Panel:
    """The newest 500 lines of errors of the chosen endpoints that fit `selection`."""
    template = r"{{.message}} {{.request_id}}\n{{.traceback}}"
    expression = (
        f'{{{SCOPE},level=~"ERROR|CRITICAL"}} | logger!="exporter.request" {selection}'
        f' | json message="message", traceback="traceback" | line_format "{template}"'
    )
    return (
        frame(
            logs.Panel(),
            title,
            description=description,
            queries=[log_query(expression).max_lines(500)],
            width=24,
            height=height,
        )
        .unit("none")
        .no_value(NO_LOG)
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .sort_order(look.LogsSortOrder("Descending"))
    )
