"""Every kind of panel but graphs and tables, in one look, over grafana-foundation-sdk."""

# Enums are called, not named: mypy sees the SDK's StrEnum members as plain strings below Python 3.11.

from collections.abc import Sequence
from string import ascii_uppercase
from typing import TypeAlias

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    heatmap,
    logs,
    stat,
    statetimeline,
    text,
)
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries as graphs
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models.dashboard import FieldColorModeId
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.text import TextMode

from grafana.fields import P, States, color_steps, texts
from grafana.queries import LOGS, METRICS, LogQuery, Query, query
from grafana.thresholds import Steps

BARS = 120
"""A graph of bars asks for no more: over a day, a bar or a heatmap cell every 12 minutes."""
NO_DATA = "No data in this time range"
NO_TRAFFIC = "No traffic"

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


def frame(
    panel: P,
    title: str,
    *,
    description: str,
    queries: Sequence[Query | LogQuery],
    width: int,
    height: int,
) -> P:
    """Add the common parts of all panels. Widths are in columns of 24, heights in units of 38 pixels."""
    for letter, target in zip(ascii_uppercase, queries, strict=False):
        panel = panel.with_target(target.ref_id(letter))
    source = LOGS if isinstance(queries[0], LogQuery) else METRICS
    return panel.title(title).description(description).datasource(source).span(width).height(height)


def number(
    title: str,
    description: str,
    query: Query,
    *,
    unit: str,
    steps: Steps = ((None, "text"),),
    states: States | None = None,
    decimals: int | None = None,
    width: int = 3,
    height: int = 4,
    trend: bool = True,
    show_names: bool = False,
    no_data: str = NO_DATA,
) -> stat.Panel:
    """Show a big number, with its course behind it unless `trend` is false (then ask for `now`).

    A query with several series makes several numbers; `show_names` tells them apart.
    """
    panel = (
        frame(stat.Panel(), title, description=description, queries=[query], width=width, height=height)
        .unit(unit)
        .no_value(no_data)
        .thresholds(color_steps(steps))
        .color_scheme(build.FieldColor().mode(FieldColorModeId("thresholds")))
        .color_mode(look.BigValueColorMode("value"))
        .graph_mode(look.BigValueGraphMode("area" if trend else "none"))
        .text_mode(look.BigValueTextMode("value_and_name" if show_names else "value"))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("").values(False))
    )
    if states:
        panel = panel.mappings([texts(states)])
    if states and not steps[1:]:
        panel = panel.color_mode(look.BigValueColorMode("background_solid"))
    return panel if decimals is None else panel.decimals(decimals)


def heat_map(
    title: str, description: str, expression: str, *, width: int = 12, height: int = 8
) -> heatmap.Panel:
    """Show requests a second in each bucket of a duration histogram over time.

    A native histogram has a logarithmic scale; classic buckets, with the label `le`, are all equally high.
    """
    buckets = query(expression, "{{le}}").format(PromQueryFormat("heatmap"))
    return (
        frame(heatmap.Panel(), title, description=description, queries=[buckets], width=width, height=height)
        .max_data_points(BARS)
        .calculate(False)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heat.HeatmapColorMode("scheme"))
            .scheme("Oranges")
            .fill("dark-orange")
            .scale(heat.HeatmapColorScale("exponential"))
            .exponent(0.2)
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
    queries: Sequence[Query],
    *,
    states: States,
    width: int = 12,
    height: int = 7,
    no_data: str = NO_DATA,
) -> statetimeline.Panel:
    """Show a row for each series, coloured by its state."""
    return (
        frame(
            statetimeline.Panel(),
            title,
            description=description,
            queries=queries,
            width=width,
            height=height,
        )
        .unit("short")
        .no_value(no_data)
        .mappings([texts(states)])
        .color_scheme(build.FieldColor().mode(FieldColorModeId("thresholds")))
        .thresholds(color_steps([(None, "text")]))
        .merge_values(True)
        .line_width(0)
        .show_value(look.VisibilityMode("auto"))
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
    """Show Markdown."""
    return text.Panel().title(title).mode(TextMode("markdown")).content(markdown).span(width).height(height)
