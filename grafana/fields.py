"""Field configuration: colours by value, texts for states, overrides by name, links of values."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from grafana_foundation_sdk.builders import bargauge, heatmap, logs, stat, statetimeline
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.builders import timeseries as graphs
from grafana_foundation_sdk.models.dashboard import (
    DynamicConfigValue,
    MatcherConfig,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)

from grafana.thresholds import BAD, FINE, IDLE, NOTICE, WARNING, Steps

STATUS_COLORS = {"2xx": FINE, "3xx": IDLE, "4xx": WARNING, "5xx": BAD}
"""Colours of status classes."""
LEVEL_COLORS = {"WARNING": NOTICE, "ERROR": WARNING, "CRITICAL": BAD}
"""Colours of log levels."""

P = TypeVar(
    "P",
    bargauge.Panel,
    graphs.Panel,
    heatmap.Panel,
    logs.Panel,
    stat.Panel,
    statetimeline.Panel,
    tables.Panel,
)
States: TypeAlias = Mapping[int, tuple[str, str]]
"""Text and colour of each value."""


def color_steps(steps: Steps) -> build.ThresholdsConfig:
    """Colour a value by the highest limit that it reaches."""
    return (
        build.ThresholdsConfig()
        .mode(ThresholdsMode("absolute"))
        .steps([Threshold(value=value, color=color) for value, color in steps])
    )


def texts(states: States) -> ValueMap:
    """Show each state as its text in its colour instead of as a number."""
    return ValueMap(
        options={
            str(value): ValueMappingResult(text=text, color=color, index=index)
            for index, (value, (text, color)) in enumerate(states.items())
        }
    )


def set_for(panel: P, name: str, **properties: Any) -> P:
    """Set properties of the field called `name`. Write `__` for a `.` in a property's id."""
    return panel.override_by_name(
        name, [DynamicConfigValue(key.replace("__", "."), value) for key, value in properties.items()]
    )


def link(title: str, url: str, *, new_tab: bool = False) -> dict[str, object]:
    """A link from a value or a line, in the form of Grafana's field configuration."""
    return {"title": title, "url": url, "targetBlank": new_tab}


def with_links(panel: P, links: Sequence[Mapping[str, object]]) -> P:
    """Add links to every number of the panel."""
    return panel.with_override(
        MatcherConfig(id_val="byType", options="number"), [DynamicConfigValue("links", list(links))]
    )
