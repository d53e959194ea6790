"""What Grafana asks Prometheus for a dashboard: the queries of panels, variables and annotations."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SCRAPE_INTERVAL = 15.0
"""Seconds; `timeInterval` of the provisioned datasource."""

PIXELS = 1600
"""Width of a dashboard; Grafana asks for a point a pixel."""
BAR_SCRAPES = 4
"""The shortest bar, `interval` in the panels: a minute of scrapes."""

_VARIABLE = re.compile(r"\$\{([a-z_]\w*)(?::\w+)?\}|\$([a-z_]\w*)")
_LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")


@dataclass(frozen=True, slots=True)
class Asked:
    """One query: `title` and `ref` say whose it is, `points` are those that the panel shows at most."""

    dashboard: str
    title: str
    ref: str
    expression: str
    instant: bool
    points: float = PIXELS
    shortest: str = ""

    def __str__(self) -> str:
        return f"{self.dashboard}: {self.title} ({self.ref})"


def asked(board: Mapping[str, Any]) -> Iterator[Asked]:
    """Every query of a dashboard, as it stands in its JSON."""
    uid = board["uid"]
    for panel in board["panels"]:
        for inner in [panel, *panel.get("panels", ())]:
            if inner.get("datasource", {}).get("type") != "prometheus":
                continue
            for target in inner["targets"]:
                yield Asked(
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
            selector, label = selected(variable["query"]["query"])
            yield Asked(uid, f"variable {variable['name']}", label, f"group by ({label}) ({selector})", True)
    for event in board["annotations"]["list"]:
        yield Asked(uid, f"annotation {event['name']}", "A", event["expr"], False)


def selected(query: str) -> tuple[str, str]:
    """Selector and label of a variable's `label_values(selector, label)`."""
    match = _LABEL_VALUES.fullmatch(query)
    if not match:
        raise ValueError(f"a variable asks {query!r}; only label_values(selector, label) is understood")
    return match[1], match[2]


def step(query: Asked, seconds: float, scrape: float = SCRAPE_INTERVAL) -> float:
    """Seconds from point to point over a time range of `seconds`, no finer than scrapes."""
    finest = BAR_SCRAPES * scrape if query.shortest else scrape
    return max(finest, seconds / query.points // scrape * scrape)


def fill(query: Asked, values: Mapping[str, str], seconds: float, scrape: float = SCRAPE_INTERVAL) -> str:
    """The expression with Grafana's own variables for a time range of `seconds`, and with `values`.

    Raises KeyError for a variable that neither Grafana nor `values` has.
    """
    points = step(query, seconds, scrape=scrape)
    every = {
        "__range": f"{seconds:.0f}s",
        "__interval": f"{points:.0f}s",
        "__rate_interval": f"{max(points + scrape, 4 * scrape):.0f}s",
        **values,
    }
    return _VARIABLE.sub(lambda match: every[match[1] or match[2]], query.expression)
