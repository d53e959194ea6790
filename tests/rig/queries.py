"""The queries that Grafana sends to Prometheus for a dashboard: of panels, variables and annotations."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SCRAPE_INTERVAL = 15.0
"""Seconds; `timeInterval` of the provisioned datasource."""

PIXELS = 1600
"""The width of a dashboard; Grafana asks for a point for each pixel."""
BAR_SCRAPES = 4
"""Scrapes in the shortest bar: the minute that panels set as `interval`."""

_VARIABLE = re.compile(r"\$\{([a-z_]\w*)(?::(\w+))?\}|\$([a-z_]\w*)")
_LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")


@dataclass(frozen=True, slots=True)
class Query:
    """A query of the panel `title`, which shows at most `points` of its values over time."""

    dashboard: str
    title: str
    ref: str
    expression: str
    instant: bool
    points: float = PIXELS
    shortest: str = ""

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.title} ({self.ref})"


def queries_of(board: Mapping[str, Any]) -> Iterator[Query]:
    """Every query of a dashboard, read from its JSON."""
    uid = board["uid"]
    for panel in board["panels"]:
        for inner in [panel, *panel.get("panels", ())]:
            if inner.get("datasource", {}).get("type") != "prometheus":
                continue
            for target in inner["targets"]:
                yield Query(
                    uid,
                    inner["title"],
                    target["refId"],
                    target["expr"],
                    target.get("instant", False),
                    inner.get("maxDataPoints", PIXELS * inner["gridPos"]["w"] / 24),
                    target.get("interval", ""),
                )
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = label_query(variable["query"]["query"])
            yield Query(uid, f"variable {variable['name']}", label, f"group by ({label}) ({selector})", True)
    for event in board["annotations"]["list"]:
        yield Query(uid, f"annotation {event['name']}", "A", event["expr"], False)


def label_query(query: str) -> tuple[str, str]:
    """The selector and the label of a variable's `label_values(selector, label)`."""
    match = _LABEL_VALUES.fullmatch(query)
    if not match:
        raise ValueError(f"a variable asks {query!r}; only label_values(selector, label) is understood")
    return match[1], match[2]


def step(query: Query, seconds: float, scrape: float = SCRAPE_INTERVAL) -> float:
    """Seconds between two points in a time range of `seconds`; never shorter than the scrape interval."""
    finest = BAR_SCRAPES * scrape if query.shortest else scrape
    return max(finest, seconds / query.points // scrape * scrape)


def fill(query: Query, values: Mapping[str, str], seconds: float, scrape: float = SCRAPE_INTERVAL) -> str:
    """Fill Grafana's own variables, for a time range of `seconds`, and `values` into the expression.

    Raises KeyError for a variable that neither Grafana nor `values` has.
    """
    points = step(query, seconds, scrape=scrape)
    variables = {
        "__range": f"{seconds:.0f}s",
        "__interval": f"{points:.0f}s",
        "__rate_interval": f"{max(points + scrape, 4 * scrape):.0f}s",
        "__all": "$__all",  # no variable: it stays, as in Grafana
        "window": f"{max(20 * scrape, seconds // 288):.0f}s",
        **values,
    }

    def value(match: re.Match[str]) -> str:
        text = variables[match[1] or match[3]]
        return text.replace(r"\\", "\\") if match[2] == "regex" else text  # it stands in no quotes

    return _VARIABLE.sub(value, query.expression)
