"""Panels in one look, over grafana-foundation-sdk: every kind that the dashboards use."""

# Enums are called, not named: mypy sees the SDK's StrEnum members as plain strings below Python 3.11.

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import TypeAlias

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    heatmap,
    logs,
    loki,
    prometheus,
    stat,
    statetimeline,
    text,
)
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries as graphs
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models.dashboard import DataSourceRef, FieldColorModeId
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

from grafana.fields import P, Steps, limits, set_for, states

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
REDUCERS = {"min": "Min", "mean": "Mean", "max": "Max", "sum": "Total", "lastNotNull": "Last *"}
"""Grafana's names of the calculations that legends show, and are sorted by."""
POINTS = 360
BARS = 120
"""What a graph asks for at most: over a day a point every 4 minutes, a bar or heatmap cell every 12."""
NO_DATA = "No data in this time range"

Panel: TypeAlias = (
    bargauge.Panel
    | graphs.Panel
    | heatmap.Panel
    | logs.Panel
    | stat.Panel
    | statetimeline.Panel
    | tables.Panel
    | text.Panel
)
Query: TypeAlias = prometheus.Dataquery


def query(expression: str, legend: str = "", *, interval: str = "") -> Query:
    """Over time. `interval` is the shortest step and so the shortest `$__interval`, as a duration."""
    asked = Query().expr(expression).legend_format(legend).range()
    return asked.interval(interval) if interval else asked


def exemplars(series: str) -> Query:
    """Single requests as points, of a histogram's raw buckets or a counter.

    Recorded series have none, and to add up the buckets of a day takes half a second: so these are asked for
    at a time when there were none. The exemplars come from the time range all the same.
    """
    return Query().expr(f"{series} offset 100y").legend_format("request").range().exemplar(True)


def now(expression: str, legend: str = "", *, interval: str = "") -> Query:
    """At the end of the time range."""
    asked = Query().expr(expression).legend_format(legend).instant()
    return asked.interval(interval) if interval else asked


def frame(
    panel: P,
    title: str,
    description: str,
    asked: Sequence[Query | loki.Dataquery],
    width: int,
    height: int,
    source: DataSourceRef = DATASOURCE,
) -> P:
    """What every panel has. Widths are in columns of 24, heights in units of 38 pixels."""
    for letter, one in zip(ascii_uppercase, asked, strict=False):
        panel = panel.with_target(one.ref_id(letter))
    return panel.title(title).description(description).datasource(source).span(width).height(height)


def number(
    title: str,
    description: str,
    unit: str,
    asked: Query,
    *,
    steps: Steps = ((None, "text"),),
    names: Mapping[int, tuple[str, str]] | None = None,
    decimals: int | None = None,
    width: int = 3,
    height: int = 4,
    trend: bool = True,
    named: bool = False,
    no_data: str = NO_DATA,
) -> stat.Panel:
    """A big number, with its course behind it unless `trend` is false (then ask for `now`).

    A query with several series makes several: `named` shows which is which.
    """
    panel = (
        frame(stat.Panel(), title, description, [asked], width, height)
        .unit(unit)
        .no_value(no_data)
        .thresholds(limits(steps))
        .color_scheme(build.FieldColor().mode(FieldColorModeId("thresholds")))
        .color_mode(look.BigValueColorMode("value"))
        .graph_mode(look.BigValueGraphMode("area" if trend else "none"))
        .text_mode(look.BigValueTextMode("value_and_name" if named else "value"))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    )
    if names:
        panel = panel.mappings([states(names)]).color_mode(look.BigValueColorMode("background"))
    return panel if decimals is None else panel.decimals(decimals)


def lines(
    title: str,
    description: str,
    unit: str,
    asked: Sequence[Query | loki.Dataquery],
    *,
    width: int = 12,
    height: int = 9,
    calcs: Sequence[str] = ("mean", "max"),
    colors: Mapping[str, str] | None = None,
    objective: Steps = (),
    stacked: bool = False,
    bars: bool = False,
    logarithmic: bool = False,
    lowest: float | None = 0,
    highest: float | None = None,
    decimals: int | None = None,
    source: DataSourceRef = DATASOURCE,
    no_data: str = NO_DATA,
) -> graphs.Panel:
    """Lines (or bars) over time; `objective` draws its limits as dashed lines."""
    panel = (
        frame(graphs.Panel(), title, description, asked, width, height, source)
        .unit(unit)
        .no_value(no_data)
        .max_data_points(BARS if bars else POINTS)
        .draw_style(look.GraphDrawStyle("bars" if bars else "line"))
        .line_width(1)
        .fill_opacity(70 if bars else 25 if stacked else 0)
        .show_points(look.VisibilityMode("never" if bars else "auto"))
        .legend(
            common.VizLegendOptions()
            .display_mode(look.LegendDisplayMode("table"))
            .placement(look.LegendPlacement("bottom"))
            .show_legend(True)
            .calcs(list(calcs))
            .sort_by(REDUCERS[calcs[0]])
            .sort_desc(calcs[0] != "min")
        )
        .tooltip(
            common.VizTooltipOptions().mode(look.TooltipDisplayMode("multi")).sort(look.SortOrder("desc"))
        )
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(look.StackingMode("normal")).group("A"))
    if logarithmic:
        log = common.ScaleDistributionConfig().type(look.ScaleDistribution("log")).log(10)
        panel = panel.scale_distribution(log)
    elif lowest is not None:
        panel = panel.min(lowest)
    if bars or highest is not None:
        panel = panel.axis_soft_max(1 if highest is None else highest)
    if objective:
        dashed = common.GraphThresholdsStyleConfig().mode(look.GraphThresholdsStyleMode("dashed"))
        panel = panel.thresholds(limits(objective)).thresholds_style(dashed)
    for name, color in (colors or {}).items():
        panel = set_for(panel, name, color={"mode": "fixed", "fixedColor": color})
    return panel if decimals is None else panel.decimals(decimals)


def heat_map(title: str, description: str, asked: str, *, width: int = 12, height: int = 8) -> heatmap.Panel:
    """Requests a second in each bucket of a duration histogram, over time; `asked` keeps the label `le`."""
    buckets = query(asked, "{{le}}").format(PromQueryFormat("heatmap"))
    return (
        frame(heatmap.Panel(), title, description, [buckets], width, height)
        .max_data_points(BARS)
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heat.HeatmapColorMode("scheme"))
            .scheme("Oranges")
            .fill("dark-orange")
            .scale(heat.HeatmapColorScale("exponential"))
            .exponent(0.5)
            .steps(64)
        )
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .y_axis(heatmap.YAxisConfig().unit("s").axis_placement(look.AxisPlacement("left")))
        .cell_values(heatmap.CellValues().unit("reqps").decimals(2))
        .show_legend()
    )


def timeline(
    title: str,
    description: str,
    asked: Sequence[Query],
    names: Mapping[int, tuple[str, str]],
    *,
    width: int = 12,
    height: int = 7,
    no_data: str = NO_DATA,
) -> statetimeline.Panel:
    """One row a series, coloured by its state."""
    return (
        frame(statetimeline.Panel(), title, description, asked, width, height)
        .unit("short")
        .no_value(no_data)
        .mappings([states(names)])
        .color_scheme(build.FieldColor().mode(FieldColorModeId("thresholds")))
        .thresholds(limits([(None, "text")]))
        .merge_values(True)
        .show_value(look.VisibilityMode("never"))
        .row_height(0.8)
        .fill_opacity(80)
        .legend(
            common.VizLegendOptions()
            .display_mode(look.LegendDisplayMode("list"))
            .placement(look.LegendPlacement("bottom"))
            .show_legend(True)
        )
    )


def note(title: str, markdown: str, *, width: int = 24, height: int = 4) -> text.Panel:
    """Markdown."""
    return text.Panel().title(title).mode(TextMode("markdown")).content(markdown).span(width).height(height)
