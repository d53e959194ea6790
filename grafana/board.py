"""What the dashboards have in common: variables, navigation, annotations, links to the next question."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard, table
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from grafana.fields import link
from grafana.panels import DATASOURCE, Panel
from grafana.promql import FIRING, SERVICE, of

# Grafana 13's. It differs from the SDK's 41 only for series hidden from a plot, of which there are none.
SCHEMA_VERSION = 42
COLUMNS = 24

NAVIGATION = {
    "flask-service": ("Service", "heart", "Is it healthy?"),
    "flask-endpoints": ("Endpoints", "sitemap", "Which endpoint?"),
    "flask-errors": ("Errors", "bug", "Which error, since when?"),
    "flask-requests": ("Requests", "list-ul", "Which requests exactly?"),
    "flask-slo": ("SLO", "bullseye", "How much budget is left, how fast does it burn?"),
    "flask-workers": ("Workers and host", "cpu", "Is it out of something?"),
    "monitoring-pipeline": ("Pipeline", "info", "Can I trust what I see?"),
}

_VARIABLES = "${datasource:queryparam}&${job:queryparam}&${service:queryparam}&${instance:queryparam}"
SCOPE = f"{_VARIABLES}&${{__url_time_range}}"
URL_RULE_OF_ROW = "var-url_rule=${__data.fields.Endpoint:percentencode}"
URL_RULE_OF_LINE = "var-url_rule=${__field.labels.url_rule:percentencode}"


def to(uid: str, *parameters: str) -> dict[str, object]:
    """A link to a dashboard that takes the selection and the time range along."""
    return link(f"{NAVIGATION[uid][0]}: {NAVIGATION[uid][2]}", f"/d/{uid}?{'&'.join((SCOPE, *parameters))}")


def endpoint_of_row(*more: str) -> list[dict[str, object]]:
    """From a table's endpoint to its drill-down; `more` are parameters that narrow down its log lines."""
    return [
        to("flask-endpoints", URL_RULE_OF_ROW),
        to("flask-errors", URL_RULE_OF_ROW),
        to("flask-requests", URL_RULE_OF_ROW, *more),
    ]


def endpoint_of_line() -> list[dict[str, object]]:
    """From a line with the label url_rule to its drill-down."""
    return [to(uid, URL_RULE_OF_LINE) for uid in ("flask-endpoints", "flask-errors", "flask-requests")]


class _Event(dashboard.AnnotationQuery):
    """An annotation of a Prometheus datasource, with the two settings that the SDK's model lacks."""

    def __init__(self, name: str, color: str, expression: str, title: str, tags: str) -> None:
        super().__init__(name=name, datasource=DATASOURCE, icon_color=color, expr=expression)
        self._words = {"titleFormat": title, "tagKeys": tags}

    def to_json(self) -> dict[str, object]:
        return super().to_json() | self._words


class Event(Builder[dashboard.AnnotationQuery]):
    """A mark on every graph while `expression` has a value above 0."""

    def __init__(self, name: str, color: str, expression: str, title: str, tags: str) -> None:
        self._event = _Event(name, color, expression, title, tags)

    def build(self) -> dashboard.AnnotationQuery:
        return self._event


# A restart sets back the counter that every scrape increases.
# A deploy brings a version that was not there five minutes ago.
EVENTS = (
    Event("Firing alerts", "red", FIRING, "{{alertname}}", "severity,url_rule"),
    Event(
        "Restarts",
        "blue",
        f"max by (job, instance) (resets({of('flask_exporter_scrape_seconds_count')}[2m])) > 0",
        "Restart of {{instance}}",
        "job",
    ),
    Event(
        "New versions",
        "purple",
        f"count by (job, version) ({of('flask_app_info')})"
        f" unless count by (job, version) ({of('flask_app_info')} offset 5m)",
        "Version {{version}}",
        "job",
    ),
)


def label(name: str, title: str, query: str, *, all_value: str = ".*") -> build.QueryVariable:
    """A variable with the values of a label. `all_value` empty: All means the values that there are."""
    variable = (
        build.QueryVariable(name)
        .label(title)
        .datasource(DATASOURCE)
        .query({"qryType": 1, "query": query, "refId": name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )
    return variable.all_value(all_value) if all_value else variable


def datasource() -> build.DatasourceVariable:
    """Any server that speaks Prometheus' API; the provisioned one unless chosen otherwise."""
    return (
        build.DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .current(VariableOption(selected=True, text="Prometheus", value="prometheus"))
    )


def jobs() -> build.QueryVariable:
    """Jobs that the exporter runs in. All means these, not every job that is scraped."""
    return label("job", "Job", "label_values(flask_exporter_info, job)", all_value="")


def services() -> build.QueryVariable:
    """Services, by the label that their target files give them."""
    return label("service", "Service", 'label_values(flask_exporter_info{job=~"$job"}, service)')


def instances() -> build.QueryVariable:
    """Instances of the chosen services."""
    return label("instance", "Instance", f"label_values(flask_exporter_info{{{SERVICE}}}, instance)")


def url_rules() -> build.QueryVariable:
    """Endpoints of the chosen services."""
    query = f"label_values(flask_http_request_duration_seconds_count{{{SERVICE}}}, url_rule)"
    return label("url_rule", "Endpoint", query)


def error_types() -> build.QueryVariable:
    """Error types of the chosen services."""
    query = f"label_values(flask_http_request_errors_total{{{SERVICE}}}, error_type)"
    return label("error_type", "Error type", query)


def board(
    uid: str,
    title: str,
    description: str,
    variables: Sequence[Builder[dashboard.VariableModel]],
    contents: Sequence[Panel | build.Row],
    *,
    links: Sequence[build.DashboardLink] = (),
    tags: Sequence[str] = ("flask",),
    since: str = "now-1h",
) -> dashboard.Dashboard:
    """A dashboard of panels, laid out in the order given, below their rows."""
    made = (
        build.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(list(tags))
        .time(since, "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .variables([datasource(), *variables])
        .annotations(list(EVENTS))
        .links([*(_navigation(other) for other in NAVIGATION if other != uid), *links])
        .readonly()
    )
    for content in contents:
        made = made.with_row(content) if isinstance(content, build.Row) else made.with_panel(content)
    result = made.build()
    result.schema_version = SCHEMA_VERSION
    _lay_out(result.panels or [])
    for number, panel in enumerate(result.panels or (), start=1):
        panel.id_val = number
        if isinstance(panel, dashboard.Panel) and isinstance(panel.options, table.Options):
            panel.options.footer = None  # the SDK's default, gone from Grafana 13
    return result


def _lay_out(panels: Sequence[dashboard.Panel | dashboard.RowPanel]) -> None:
    """Give each panel the highest place that is free, from the left; a row begins below all of them."""
    floor = [0] * COLUMNS
    for panel in panels:
        place = panel.grid_pos or dashboard.GridPos()
        if isinstance(panel, dashboard.RowPanel):
            place.w, place.h = COLUMNS, 1
        tops = [max(floor[x : x + place.w]) for x in range(COLUMNS - place.w + 1)]
        place.y = min(tops)
        place.x = tops.index(place.y)
        floor[place.x : place.x + place.w] = [place.y + place.h] * place.w
        panel.grid_pos = place


def _navigation(uid: str) -> build.DashboardLink:
    title, icon, question = NAVIGATION[uid]
    return (
        build.DashboardLink(title)
        .type(dashboard.DashboardLinkType("link"))
        .url(f"/d/{uid}")
        .icon(icon)
        .tooltip(question)
        .include_vars(True)
        .keep_time(True)
    )
