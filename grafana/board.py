"""The common parts of all dashboards: navigation, annotations and a layout without holes."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import dashboard, table
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync

from grafana.links import NAVIGATION
from grafana.panels import Panel
from grafana.promql import FIRING, of
from grafana.queries import METRICS
from grafana.variables import datasource

# Grafana 13 has version 42. It differs from the SDK's 41 only for series that a plot hides, and no plot does.
SCHEMA_VERSION = 42
COLUMNS = 24


class _Event(dashboard.AnnotationQuery):
    """An annotation of a Prometheus datasource, with the two settings that the SDK's model lacks."""

    def __init__(self, name: str, *, color: str, expression: str, title: str, tags: str) -> None:
        super().__init__(name=name, datasource=METRICS, icon_color=color, expr=expression)
        self._texts = {"titleFormat": title, "tagKeys": tags}

    def to_json(self) -> dict[str, object]:
        return super().to_json() | self._texts


class Event(Builder[dashboard.AnnotationQuery]):
    """A mark on every graph while `expression` has a value above 0."""

    def __init__(self, name: str, *, color: str, expression: str, title: str, tags: str) -> None:
        self._event = _Event(name, color=color, expression=expression, title=title, tags=tags)

    def build(self) -> dashboard.AnnotationQuery:
        return self._event


# A restart resets the counter that every scrape increases.
# A deploy brings a version that did not exist five minutes earlier.
EVENTS = (
    Event(
        "Firing alerts",
        color="red",
        expression=FIRING,
        title="{{alertname}}",
        tags="severity,url_rule",
    ),
    Event(
        "Restarts",
        color="blue",
        expression=f"max by (job, instance) (resets({of('flask_exporter_scrape_seconds_count')}[2m])) > 0",
        title="Restart of {{instance}}",
        tags="job",
    ),
    Event(
        "New versions",
        color="purple",
        expression=f"count by (job, version) ({of('flask_app_info')})"
        f" unless count by (job, version) ({of('flask_app_info')} offset 5m)",
        title="Version {{version}}",
        tags="job",
    ),
)


def board(
    uid: str,
    title: str,
    description: str,
    *,
    variables: Sequence[Builder[dashboard.VariableModel]],
    contents: Sequence[Panel | build.Row],
    links: Sequence[build.DashboardLink] = (),
    tags: Sequence[str] = ("flask",),
    since: str = "now-1h",
) -> dashboard.Dashboard:
    """Make a dashboard of panels, in the order of `contents`, where a row heads the panels that follow it."""
    builder = (
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
        .links([*(_navigation(target) for target in NAVIGATION if target != uid), *links])
        .readonly()
    )
    for content in contents:
        builder = builder.with_row(content) if isinstance(content, build.Row) else builder.with_panel(content)
    result = builder.build()
    result.schema_version = SCHEMA_VERSION
    _lay_out(result.panels or [])
    for number, panel in enumerate(result.panels or (), start=1):
        panel.id_val = number
        if isinstance(panel, dashboard.Panel) and isinstance(panel.options, table.Options):
            panel.options.footer = None  # Grafana 13 has no such option; the SDK sets it
    return result


def _lay_out(panels: Sequence[dashboard.Panel | dashboard.RowPanel]) -> None:
    """Put each panel at the highest free place, from the left; a row begins below all panels before it."""
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
