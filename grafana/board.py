"""The common parts of all dashboards: navigation, annotations and a layout without holes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard, table
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync

from grafana.panels import Panel
from grafana.promql import SERVICE, firing
from grafana.queries import METRICS
from grafana.thresholds import BAD, FINE, IDLE, WARNING
from grafana.variables import datasource, window

# Grafana 13 has version 42. It differs from the SDK's 41 only for series that a plot hides, and no plot does.
SCHEMA_VERSION = 42
COLUMNS = 24
SCRAPES = f"flask_exporter_scrape_seconds_count{{{SERVICE}}}"
STARTS = f"flask_worker_starts_total{{{SERVICE}}}"
VERSIONS = f"flask_app_info{{{SERVICE}}}"


class _Event(dashboard.AnnotationQuery):
    """An annotation of a Prometheus datasource, with the settings that the SDK's model lacks.

    Its switch is in the menu of controls, so that the header of a page is one line.
    """

    def __init__(self, name: str, *, color: str, expression: str, title: str, tags: str) -> None:
        super().__init__(name=name, datasource=METRICS, icon_color=color, expr=expression)
        self._more = {"titleFormat": title, "tagKeys": tags, "placement": "inControlsMenu"}

    def to_json(self) -> dict[str, object]:
        return super().to_json() | self._more


class Event(Builder[dashboard.AnnotationQuery]):
    """A mark on every graph while `expression` has a value above 0."""

    def __init__(self, name: str, *, color: str, expression: str, title: str, tags: str) -> None:
        self._event = _Event(name, color=color, expression=expression, title=title, tags=tags)

    def build(self) -> dashboard.AnnotationQuery:
        return self._event


# Grafana asks at every `$__interval`, so each change lies between two points, however long the time range is.
# A service that was not there ten minutes ago has no old version: its first one is no deploy.
EVENTS = (
    Event(
        "Critical alerts",
        color=BAD,
        expression=f"group by (alertname, service) ({firing(severity='critical')})",
        title="{{alertname}} {{service}}",
        tags="service",
    ),
    Event(
        "Restarts",
        color=IDLE,
        expression=f"max by (service, instance) (resets({SCRAPES}[$__rate_interval]) > 0)",
        title="Restart of {{service}} {{instance}}",
        tags="service",
    ),
    Event(
        "Deploys",
        color=FINE,
        expression=f"group by (service, version) ({VERSIONS}"
        f" unless on (service, version) {VERSIONS} offset $__interval"
        f" and on (service) {VERSIONS} offset 10m)",
        title="{{service}} {{version}}",
        tags="service",
    ),
    Event(
        "Replaced workers",
        color=WARNING,
        expression=f"group by (service) ({STARTS} > {STARTS} offset $__interval)",
        title="Workers of {{service}} were replaced",
        tags="service",
    ),
)


@dataclass(frozen=True, slots=True)
class Fold:
    """A row that is closed at first, and whose queries are asked only when it is opened.

    There is one for each value of the variable `repeat`.
    """

    title: str
    panels: Sequence[Panel]
    repeat: str = ""


def board(
    uid: str,
    title: str,
    description: str,
    *,
    variables: Sequence[Builder[dashboard.VariableModel]],
    contents: Sequence[Panel | Fold],
    links: Sequence[build.DashboardLink] = (),
    tags: Sequence[str] = ("flask",),
    since: str = "now-1h",
) -> dashboard.Dashboard:
    """Make a dashboard of panels, in the order of `contents`: what the first view shows, then the folds."""
    builder = (
        build.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(list(tags))
        .time(since, "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .variables([datasource(), window(), *variables])
        .annotations(list(EVENTS))
        .links([_navigation(), *links])
        .readonly()
    )
    for content in contents:
        builder = (
            builder.with_row(_row(content)) if isinstance(content, Fold) else builder.with_panel(content)
        )
    result = builder.build()
    result.schema_version = SCHEMA_VERSION
    for number, panel in enumerate(_lay_out(result.panels or []), start=1):
        panel.id_val = number
        if isinstance(panel, dashboard.Panel) and isinstance(panel.options, table.Options):
            panel.options.footer = None  # Grafana 13 has no such option; the SDK sets it
    return result


def _row(fold: Fold) -> build.Row:
    row = build.Row(fold.title).collapsed(True)
    if fold.repeat:
        row = row.repeat(fold.repeat)
    for panel in fold.panels:
        row = row.with_panel(panel)
    return row


def _lay_out(
    panels: Sequence[dashboard.Panel | dashboard.RowPanel], top: int = 0
) -> Iterator[dashboard.Panel | dashboard.RowPanel]:
    """Put each panel at the highest free place, from the left; a row begins below all panels before it.

    Yields every panel, those of a closed row after it: they lie where they will be once it alone is open.
    """
    floor = [top] * COLUMNS
    for panel in panels:
        place = panel.grid_pos or dashboard.GridPos()
        if isinstance(panel, dashboard.RowPanel):
            place.w, place.h = COLUMNS, 1
        tops = [max(floor[x : x + place.w]) for x in range(COLUMNS - place.w + 1)]
        place.y = min(tops)
        place.x = tops.index(place.y)
        floor[place.x : place.x + place.w] = [place.y + place.h] * place.w
        panel.grid_pos = place
        yield panel
        if isinstance(panel, dashboard.RowPanel):
            yield from _lay_out(panel.panels, place.y + 1)


def _navigation() -> build.DashboardLink:
    return (
        build.DashboardLink("Dashboards")
        .type(dashboard.DashboardLinkType("dashboards"))
        .tags(["flask"])
        .as_dropdown(True)
        .include_vars(True)
        .keep_time(True)
    )
