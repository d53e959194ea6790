"""Graphs over time, in one look: lines, and bars that count events."""

# Enums are called, not named: mypy sees the SDK's StrEnum members as plain strings below Python 3.11.

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from grafana_foundation_sdk.builders import common
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import timeseries as graphs
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models.dashboard import FieldColorModeId, FieldColorSeriesByMode

from grafana.fields import color_steps, set_for
from grafana.panels import BARS, NO_DATA, frame
from grafana.queries import LogQuery, Query
from grafana.thresholds import BAD, Steps

POINTS = 288
"""A graph of lines asks for no more: over a day, a point every 5 minutes, whose windows leave nothing out."""


COLORBLIND_SAFE = cast("FieldColorModeId", "palette-colorblind")
"""Eight colours that everybody tells apart (Okabe and Ito 2008). Grafana 13 has them, the SDK does not."""


@dataclass(frozen=True, slots=True)
class Axis:
    """The value axis of a graph: its lower end, and an upper end that higher values move."""

    lowest: float | None = 0
    highest: float | None = None
    logarithmic: bool = False


LINEAR = Axis()
LOGARITHMIC = Axis(lowest=None, logarithmic=True)


def lines(
    title: str,
    description: str,
    queries: Sequence[Query | LogQuery],
    *,
    unit: str,
    axis: Axis = LINEAR,
    marks: Steps = (),
    stacked: bool = False,
    colors: Mapping[str, str] | None = None,
    shades: str = "",
    calc: str = "max",
    decimals: int | None = None,
    width: int = 12,
    height: int = 9,
    no_data: str = NO_DATA,
) -> graphs.Panel:
    """Draw lines over time, and each of `marks` as a dashed line.

    A series has the colour of its name in `colors`, or a shade of the colour `shades`, which says its kind;
    with BAD for failures, the series with more of them is redder. Without either, colours tell series apart
    and say nothing else. The legend has the `calc` of each series, one number so that several fit a line.
    """
    panel = (
        _graph(title, description, queries, calc=calc, width=width, height=height)
        .unit(unit)
        .no_value(no_data)
        .max_data_points(POINTS)
        .draw_style(look.GraphDrawStyle("line"))
        .fill_opacity(70 if stacked else 0)
        .color_scheme(_scheme(shades))
        .show_points(look.VisibilityMode("auto"))
    )
    if stacked:
        panel = _stack(panel).line_width(0)  # else the line of a thin share lies on top of all the others
    if axis.logarithmic:
        panel = panel.scale_distribution(
            common.ScaleDistributionConfig().type(look.ScaleDistribution("log")).log(10)
        )
    if axis.lowest is not None:
        panel = panel.min(axis.lowest)
    if axis.highest is not None:
        panel = panel.axis_soft_max(axis.highest)
    if marks:
        dashes = common.GraphThresholdsStyleConfig().mode(look.GraphThresholdsStyleMode("dashed"))
        panel = panel.thresholds(color_steps([(None, "transparent"), *marks])).thresholds_style(dashes)
    panel = _colored(panel, colors)
    return panel if decimals is None else panel.decimals(decimals)


def event_bars(
    title: str,
    description: str,
    queries: Sequence[Query],
    *,
    colors: Mapping[str, str] | None = None,
    shades: str = "",
    width: int = 8,
    height: int = 9,
    no_data: str = NO_DATA,
) -> graphs.Panel:
    """Draw how many events each interval had, as stacked bars, coloured as `lines` are."""
    panel = (
        _graph(title, description, queries, calc="sum", width=width, height=height)
        .unit("none")
        .no_value(no_data)
        .max_data_points(BARS)
        .draw_style(look.GraphDrawStyle("bars"))
        .fill_opacity(70)
        .color_scheme(_scheme(shades))
        .show_points(look.VisibilityMode("never"))
        .min(0)
        .axis_soft_max(1)
        .decimals(0)
    )
    return _colored(_stack(panel), colors)


def _graph(
    title: str,
    description: str,
    queries: Sequence[Query | LogQuery],
    *,
    calc: str,
    width: int,
    height: int,
) -> graphs.Panel:
    """Begin a graph over time, with `calc` in its legend, where a table would take a third of its height."""
    return (
        frame(graphs.Panel(), title, description=description, queries=queries, width=width, height=height)
        .line_width(1)
        .legend(
            common.VizLegendOptions()
            .display_mode(look.LegendDisplayMode("list"))
            .placement(look.LegendPlacement("bottom"))
            .show_legend(True)
            .calcs([calc])
        )
        .tooltip(
            common.VizTooltipOptions().mode(look.TooltipDisplayMode("multi")).sort(look.SortOrder("desc"))
        )
    )


_WORST = FieldColorSeriesByMode("max")


def _scheme(shades: str) -> build.FieldColor:
    if shades == BAD:
        return build.FieldColor().mode(FieldColorModeId("continuous-YlRd")).series_by(_WORST)
    if shades:
        return build.FieldColor().mode(FieldColorModeId("shades")).fixed_color(shades)
    return build.FieldColor().mode(COLORBLIND_SAFE)


def _colored(panel: graphs.Panel, colors: Mapping[str, str] | None) -> graphs.Panel:
    for name, color in (colors or {}).items():
        panel = set_for(panel, name, color={"mode": "fixed", "fixedColor": color})
    return panel


def _stack(panel: graphs.Panel) -> graphs.Panel:
    return panel.stacking(common.StackingConfig().mode(look.StackingMode("normal")).group("A"))
