"""The look of the dashboards: colours that everybody tells apart, and the rules of the field's linter.

The rules are those of https://github.com/grafana/dashboard-linter (docs/rules).
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import pytest

from grafana.build import documents
from tests.rig.queries import queries_of

BOARDS = {board["uid"]: board for board in map(json.loads, documents().values())}

# Grafana's palette on its dark theme (packages/grafana-data/src/themes/createVisualizationColors.ts).
PALETTE = {
    "red": "#F2495C",
    "dark-orange": "#FA6400",
    "yellow": "#FADE2A",
    "super-light-yellow": "#FFF899",
    "blue": "#5794F2",
    "text": "#CCCCDC",
    "#808080": "#808080",
}
# Machado, Oliveira, Fernandes 2009: what is left of linear red, green and blue without the second cone.
DEUTERANOPIA = (
    (0.367322, 0.860646, -0.227968),
    (0.280085, 0.672501, 0.047413),
    (-0.011820, 0.042940, 0.968881),
)
XYZ = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
WHITE = (0.95047, 1.0, 1.08883)
UNSEEN = {"transparent", "rgba(255,0,255,0.7)"}
"""The second is a heat map's for exemplars, of which it has none."""
APART = 20
"""The smallest difference in CIELAB (1976)."""

# Pixels of Grafana's controls at the top of a page, as its own components draw them: the margins, the time
# with its refresh and Share, the list of dashboards, the menu, a variable, and each letter of its label.
MARGINS, TIME, LINKS, MENU, VARIABLE, LETTER = 32, 419, 134, 75, 136, 7

# What a query averages or adds up over, and how a title, or the legend of a line, says it.
WINDOWS = {
    r"\[\$window\]": r"\$\{window:raw\}",
    r"(?<!usual_rate)_5m\b|\[5m\]": r"\b5m\b",
    r"\[\$__range\](?! @)": "in this time range",
}
# What operators search for, and a private word that once stood in its place.
WORDS = {
    "4xx": "Refusals",
    "error types": "Kinds",
    "Series capped": "Folded",
    "Attained": "Kept",
    "Objectives": "Promises",
    "Target": "Promised",
    "Budget left": "Left",
    "Exhausted in": "Gone in",
    "Error ratio": "Error share",
    "Burn rate": "How fast",
    "p95": "95th",
    "Apdex": "Satisfaction",
}

FAILURES = "Failures|Error ratio (of|by)|Error ratio, 5m|Exporter failures|Deaths|Lost requests"

# Findings of the linter that are meant so, by rule and, where it is not for all, by dashboard.
EXCLUSIONS = {
    "template-job-rule": "All is every job of the exporter: an empty allValue lists them",
    "panel-datasource-rule": "Requests asks Loki, by a variable of its own",
    "target-rate-interval-rule": "one window a page ($window), which its titles name; bars have $__interval",
    "target-job-rule": "alerts, hosts, probes and Prometheus itself are of other jobs than the exporter's",
    "target-counter-agg-rule": "0 * a counter stands for no errors, and what a series begins with counts",
    "target-instance-rule": "recorded series of whole services have no instance; hosts have $host",
}


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every panel but rows, those in closed rows too."""
    for panel in board["panels"]:
        yield from (inner for inner in [panel, *panel.get("panels", ())] if inner["type"] != "row")


def colors(found: object) -> set[str]:
    """Every colour that a dashboard names."""
    if isinstance(found, dict):
        own = {found[key] for key in ("color", "fixedColor", "iconColor") if isinstance(found.get(key), str)}
        return own.union(*map(colors, found.values()))
    return set().union(*map(colors, found)) if isinstance(found, list) else set()


def lab(color: str) -> tuple[float, float, float]:
    """A colour in CIELAB, as somebody sees it who has no cones for green."""
    linear = [
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4
        for share in (int(color[place : place + 2], 16) / 255 for place in (1, 3, 5))
    ]
    seen = [min(1.0, max(0.0, sum(a * b for a, b in zip(row, linear, strict=True)))) for row in DEUTERANOPIA]
    x, y, z = (
        (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116)
        for row, white in zip(XYZ, WHITE, strict=True)
        for t in [sum(a * b for a, b in zip(row, seen, strict=True)) / white]
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def difference(one: str, other: str) -> float:
    """How far two colours are apart, in units of which a practised eye sees two."""
    return math.dist(lab(one), lab(other))


def test_colours_differ_without_green_cones() -> None:
    """Each pair of the colours in use."""
    used = set().union(*map(colors, BOARDS.values())) - UNSEEN
    pairs = itertools.combinations(sorted(used), 2)

    assert used <= PALETTE.keys()
    assert [pair for pair in pairs if difference(*(PALETTE[name] for name in pair)) < APART] == []


def test_red_and_green_would_not_differ() -> None:
    """The measure finds what it is for."""
    assert difference("#F2495C", "#73BF69") < 10


every_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)


@every_board
def test_a_graph_of_errors_is_red_and_no_other_is(board: dict[str, Any]) -> None:
    """The more of them, the redder is its series; no palette makes an error green."""
    for panel in panels(board):
        if panel["type"] != "timeseries":
            continue
        color = panel["fieldConfig"]["defaults"]["color"]
        failures = re.match(FAILURES, panel["title"])

        assert color["mode"] in {"continuous-YlRd", "shades", "palette-colorblind"}, panel["title"]
        assert (color["mode"] == "continuous-YlRd") == bool(failures), panel["title"]
        assert color.get("fixedColor") != "red", panel["title"]


@every_board
def test_a_coloured_state_is_a_word(board: dict[str, Any]) -> None:
    """A background of a colour has a text for each of its values."""
    for panel in panels(board):
        options = panel.get("options", {})
        if panel["type"] == "stat" and options["colorMode"].startswith("background"):
            (mapping,) = panel["fieldConfig"]["defaults"]["mappings"]
            assert all(state["text"] for state in mapping["options"].values()), panel["title"]


@every_board
def test_a_number_with_limits_has_their_colours(board: dict[str, Any]) -> None:
    """A column whose limits are never to be seen would judge nothing."""
    for panel in panels(board):
        for override in panel.get("fieldConfig", {}).get("overrides", ()):
            properties = {entry["id"]: entry["value"] for entry in override["properties"]}
            if "thresholds" in properties:
                cell = properties["custom.cellOptions"]["type"]
                assert cell.startswith("color-"), (panel["title"], override["matcher"]["options"])


@every_board
def test_a_share_of_a_stack_has_no_line(board: dict[str, Any]) -> None:
    """The line of a thin share would lie on top of all the others."""
    for panel in panels(board):
        custom = panel.get("fieldConfig", {}).get("defaults", {}).get("custom", {})
        if custom.get("stacking", {}).get("mode") == "normal" and custom["drawStyle"] == "line":
            assert custom["lineWidth"] == 0, panel["title"]


@every_board
def test_the_header_is_one_line_at_1280_pixels(board: dict[str, Any]) -> None:
    """The switches of marks, and filters that are seldom changed, are in the menu."""
    labels = [variable["label"] for variable in board["templating"]["list"] if not variable.get("hide")]
    width = MARGINS + TIME + LINKS + MENU + sum(VARIABLE + LETTER * len(label) for label in labels)

    assert all(event["placement"] == "inControlsMenu" for event in board["annotations"]["list"])
    assert width <= 1280


@every_board
def test_a_title_says_what_is_chosen_in_the_menu(board: dict[str, Any]) -> None:
    """Nobody takes some requests for all, because a link or a bookmark chose them."""
    titles = " ".join(panel["title"] for panel in board["panels"])
    menu = [variable["name"] for variable in board["templating"]["list"] if variable.get("hide") == 3]

    assert [name for name in menu if f"${{{name}:text}}" not in titles] == []


@every_board
def test_a_title_says_over_which_time_a_number_is(board: dict[str, Any]) -> None:
    """Two numbers over different times would contradict each other."""
    silent = {
        (panel["title"], said)
        for panel in panels(board)
        if panel["type"] != "table"
        for target in panel["targets"]
        for window, said in WINDOWS.items()
        if re.search(window, target["expr"])
        if not re.search(said, f"{panel['title']} {target.get('legendFormat')}")
    }

    assert silent == set()


def test_titles_have_the_words_that_operators_search_for() -> None:
    """And none of a language of their own."""
    titles = [panel["title"] for board in BOARDS.values() for panel in panels(board)]
    titles += [
        title for board in BOARDS.values() for panel in panels(board) for title in columns(panel).values()
    ]
    text = "\n".join(titles)

    assert [word for word in WORDS if word not in text] == []
    assert [word for word in WORDS.values() if re.search(rf"^{word}\b", text, re.M)] == []


def test_the_same_thing_has_the_same_name_on_every_page() -> None:
    """In the columns of all tables; a probe's instance is a URL."""
    names: dict[str, set[str]] = {}
    for board in BOARDS.values():
        for panel in panels(board):
            for label, title in columns(panel).items():
                if not label.startswith("Value") and title != label:
                    names.setdefault(label, set()).add(title)

    assert {label: titles for label, titles in names.items() if len(titles) > 1} == {
        "instance": {"Instance", "URL"}
    }


def columns(panel: dict[str, Any]) -> dict[str, str]:
    """The titles of a table's columns, by their fields."""
    titles: dict[str, str] = {}
    for transformation in panel.get("transformations", ()):
        titles |= transformation["options"].get("renameByName", {})
    return titles


def test_tables_fit_1280_pixels() -> None:
    """No column is cut off; one without a width has Grafana's least, 150."""
    wide = {}
    for uid, board in BOARDS.items():
        for panel in panels(board):
            if panel["type"] == "table":
                room = panel["gridPos"]["w"] / 24 * 1256 - 26  # without margins and the panel's padding
                width = sum(widths(panel).values())
                if width > room:
                    wide[uid, panel["title"]] = f"{width} of {room:.0f}"

    assert wide == {}


@every_board
def test_an_empty_cell_does_not_say_that_the_table_is_empty(board: dict[str, Any]) -> None:
    """Each column has a text of its own for no value."""
    for panel in panels(board):
        if panel["type"] == "table":
            texts = {
                override["matcher"]["options"]: entry["value"]
                for override in panel["fieldConfig"]["overrides"]
                for entry in override["properties"]
                if entry["id"] == "noValue"
            }
            assert texts.keys() >= set(columns(panel).values()), panel["title"]
            assert panel["fieldConfig"]["defaults"]["noValue"] not in texts.values(), panel["title"]


def widths(panel: dict[str, Any]) -> dict[str, int]:
    """The pixels of each column that is to be seen."""
    columns = dict.fromkeys(panel["transformations"][-1]["options"]["renameByName"].values(), 150)
    for override in panel["fieldConfig"]["overrides"]:
        for entry in override["properties"]:
            if entry["id"] == "custom.width":
                columns[override["matcher"]["options"]] = entry["value"]
            elif entry["id"] == "custom.hideFrom":
                columns[override["matcher"]["options"]] = 0
    return columns


def lint(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The findings of the linter: a rule, and where it is broken."""
    yield from lint_variables({variable["name"]: variable for variable in board["templating"]["list"]})
    if board["editable"]:
        yield "uneditable-dashboard", "editable"
    for panel in panels(board):
        yield from ((rule, panel["title"]) for rule in lint_panel(panel))
    for query in queries_of(board):
        if not query.title.startswith(("variable", "annotation")):
            yield from ((rule, str(query)) for rule in lint_expression(query.expression))


def lint_variables(variables: dict[str, dict[str, Any]]) -> Iterator[tuple[str, str]]:
    source = variables["datasource"]
    if (source["type"], source["label"], source["query"]) != ("datasource", "Data source", "prometheus"):
        yield "template-datasource-rule", "datasource"
    for name in ("job", "instance"):
        variable = variables[name]
        if variable["type"] == "constant":
            continue
        if (variable["label"], variable["multi"], variable.get("allValue")) != (name.title(), True, ".+"):
            yield f"template-{name}-rule", name
    for name, variable in variables.items():
        if variable["type"] == "query" and variable["refresh"] != 2:
            yield "template-on-time-change-reload-rule", name


def lint_panel(panel: dict[str, Any]) -> Iterator[str]:
    if panel["datasource"]["uid"] != "${datasource}":
        yield "panel-datasource-rule"
    if not (panel["title"] and panel.get("description")):
        yield "panel-title-description-rule"
    if panel["type"] != "heatmap" and not panel["fieldConfig"]["defaults"].get("unit"):
        yield "panel-units-rule"
    if not panel["targets"]:
        yield "panel-no-targets-rule"


def lint_expression(expression: str) -> Iterator[str]:
    selectors = re.findall(r"\w+\{([^}]*)\}", expression)
    for name in ("job", "instance"):
        if not selectors or any(f'{name}=~"${name}"' not in selector for selector in selectors):
            yield f"target-{name}-rule"
    if {*re.findall(r"rate\([^[]*\[([^]]*)\]", expression)} - {"$__rate_interval"}:
        yield "target-rate-interval-rule"
    if "_total{" in re.sub(r"(rate|increase|resets)\([^)]*\)", "", expression):
        yield "target-counter-agg-rule"


@every_board
def test_the_linter_finds_nothing(board: dict[str, Any]) -> None:
    """Nothing but EXCLUSIONS."""
    assert [finding for finding in lint(board) if finding[0] not in EXCLUSIONS] == []


def test_every_exclusion_is_needed() -> None:
    assert EXCLUSIONS.keys() <= {rule for board in BOARDS.values() for rule, _ in lint(board)}
