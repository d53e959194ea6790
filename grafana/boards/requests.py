"""Flask / Requests: which requests exactly? Their lines in the request log, from Loki."""

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.builders.dashboard import CustomVariable, TextBoxVariable
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig, VariableOption

from grafana import board, links, variables
from grafana.fields import set_for
from grafana.panels import frame
from grafana.queries import log_query
from grafana.tracebacks import NO_LOG, SCOPE, tracebacks

# The values are patterns that match both 404 and 4xx, so they must reach the query unescaped.
STATUS = "${status_class:pipe}"
STREAMS = f'{SCOPE},status_class=~"{STATUS}"'
# What is to be found selects exactly its lines; without it, the job matches every line. `|=` finds it fast.
FOUND = " or ".join(f'{name}="$find"' for name in ("request_id", "error_group", "where", "instance"))
SELECTION = f'|= "$find" | {FOUND} or job=~"($job)$find" | error_type=~"$error_type"'
REQUESTS = f'{{{STREAMS}}} | logger="exporter.request" {SELECTION} | duration_seconds >= $slower'
COLUMNS = {
    "Time": "Time",
    "status": "Status",
    "duration_seconds": "Duration",
    "method": "Method",
    "url_rule": "Endpoint",
    "path": "Path",
    "error_type": "Type",
    "error_group": "Group",
    "where": "Place",
    "instance": "Instance",
    "request_id": "Request id",
}
"""The columns of the table and their titles, by the name of the field in the log."""
WIDTHS = {
    "Time": 150,
    "Status": 58,
    "Duration": 82,
    "Method": 64,
    "Type": 135,
    "Group": 115,
    "Place": 125,
    "Instance": 100,
    "Request id": 100,
}
ENDPOINT_PAGES = ("flask-endpoints", "flask-errors")


def dashboard() -> model.Dashboard:
    """Build the dashboard."""
    return board.board(
        "flask-requests",
        "Requests",
        "Which requests exactly? The request log, as Alloy ships it to Loki; without Loki it is in its file.",
        variables=[
            variables.log_source(),
            variables.jobs(),
            variables.services(),
            variables.every_instance(),
            variables.url_rules(),
            variables.error_types().hide(variables.MENU),
            CustomVariable("status_class")
            .label("Status")
            .values("2xx : 2..,3xx : 3..,4xx : 4..,5xx : 5..")
            .multi(True)
            .include_all(True)
            .all_value(".*")
            .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
            .hide(variables.MENU),
            CustomVariable("slower")
            .label("Slower than")
            .values("any : 0,0.1 s : 0.1,0.5 s : 0.5,1 s : 1,2.5 s : 2.5")
            .current(VariableOption(selected=True, text="any", value="0"))
            .hide(variables.MENU),
            TextBoxVariable("find")
            .label("Find")
            .description("A request's id, an error group, a place, or an instance as it names itself"),
        ],
        contents=[
            _requests(),
            tracebacks(
                "Errors logged while a request was answered",
                "What the service itself logged, with the traceback where there is one. Status and duration "
                "do not apply here.",
                SELECTION,
                height=9,
            ),
        ],
    )


def _requests() -> table.Panel:
    panel = (
        frame(
            table.Panel(),
            "Requests: type ${error_type:text}, status ${status_class:text}, slower than ${slower:text}",
            description="The newest 500 that fit the selection; type, status and duration are chosen in the "
            "menu of controls above. Click an id for all that was logged about its request, a group, a place "
            "or an instance for its other requests, or an endpoint for its figures. Find takes any of the "
            "former.",
            queries=[log_query(REQUESTS).max_lines(500)],
            width=24,
            height=12,
        )
        .unit("none")
        .no_value(NO_LOG)
        .cell_height(look.TableCellHeight("sm"))
        .with_transformation(
            DataTransformerConfig(
                id_val="extractFields",
                options={"source": "Line", "format": "json", "replace": True, "keepTime": True},
            )
        )
        .with_transformation(
            DataTransformerConfig(id_val="filterFieldsByName", options={"include": {"names": list(COLUMNS)}})
        )
        .with_transformation(
            DataTransformerConfig(
                id_val="organize",
                options={
                    "indexByName": {name: index for index, name in enumerate(COLUMNS)},
                    "renameByName": COLUMNS,
                },
            )
        )
    )
    for column in COLUMNS.values():
        panel = set_for(panel, column, noValue="-")
    for column, width in WIDTHS.items():
        panel = set_for(panel, column, custom__width=width)
    panel = set_for(panel, "Endpoint", links=[links.to(uid, links.URL_RULE_OF_ROW) for uid in ENDPOINT_PAGES])
    panel = set_for(panel, "Time", unit="dateTimeAsLocalNoDateIfToday")
    panel = set_for(panel, "Duration", unit="s")
    for column in ("Group", "Place", "Instance", "Request id"):
        panel = set_for(panel, column, links=[links.to("flask-requests", "var-find=${__value.raw}")])
    return panel
