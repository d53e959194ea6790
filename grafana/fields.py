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
Steps: TypeAlias = Sequence[tuple[float | None, str]]
"""Lower limit and colour; the first has no limit, the others ascend."""


def limits(steps: Steps) -> build.ThresholdsConfig:
    """Colours by value."""
    return (
        build.ThresholdsConfig()
        .mode(ThresholdsMode("absolute"))
        .steps([Threshold(value=value, color=color) for value, color in steps])
    )


def states(names: Mapping[int, tuple[str, str]]) -> ValueMap:
    """Text and colour instead of a number."""
    return ValueMap(
        options={
            str(value): ValueMappingResult(text=name, color=color, index=index)
            for index, (value, (name, color)) in enumerate(names.items())
        }
    )


def set_for(panel: P, names: str, **properties: Any) -> P:
    """Overrides for the fields of this name. A `.` in a property's id is written `__`."""
    return panel.override_by_name(
        names, [DynamicConfigValue(key.replace("__", "."), value) for key, value in properties.items()]
    )


def link(title: str, url: str) -> dict[str, object]:
    """A link of a value or a line, as Grafana's field configuration wants it."""
    return {"title": title, "url": url, "targetBlank": False}


def linked(panel: P, links: Sequence[Mapping[str, object]]) -> P:
    """Every number of the panel leads somewhere."""
    return panel.with_override(
        MatcherConfig(id_val="byType", options="number"), [DynamicConfigValue("links", list(links))]
    )
