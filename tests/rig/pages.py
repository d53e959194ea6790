"""What the dashboards' pages show at a moment, as a Prometheus answers their queries."""

from __future__ import annotations

import json
import math
import urllib.parse
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple, TypeAlias
from urllib.request import urlopen

from grafana.build import documents
from tests.rig.queries import SCRAPE_INTERVAL, Query, fill, queries_of, step

BOARDS = {board["uid"]: board for board in map(json.loads, documents().values())}
ALL = dict.fromkeys(("service", "instance", "url_rule", "error_type", "slo", "host", "status_class"), ".*")
ALL |= {"job": "app", "compare": "10m"}

Table: TypeAlias = dict[tuple[str, ...], dict[str, float]]


class Row(NamedTuple):
    """A row of an answer: a label set, and its value at the end or the values on the way there."""

    labels: dict[str, str]
    values: list[float]


class Pages:
    """The dashboards over the last `seconds` before `end` of a Prometheus that scrapes every `scrape`."""

    def __init__(self, address: str, end: float, seconds: float, scrape: float = SCRAPE_INTERVAL) -> None:
        self.address = address
        self.end = end
        self._seconds = seconds
        self._scrape = scrape
        self._answers: dict[str, list[Row]] = {}

    def ask(self, query: Query, **chosen: str) -> list[Row]:
        """The rows of one query."""
        if query.instant:
            return self.now(query, **chosen)
        begin = self.end - self._seconds
        every = step(query, self._seconds, self._scrape)
        return self._ask("query_range", query, chosen, start=begin, end=self.end, step=every)

    def now(self, query: Query, **chosen: str) -> list[Row]:
        """The rows of one query at the end alone."""
        return self._ask("query", query, chosen, time=self.end)

    def _ask(self, path: str, query: Query, chosen: dict[str, str], **moments: float) -> list[Row]:
        expression = fill(query, ALL | chosen, self._seconds, self._scrape)
        body = urllib.parse.urlencode({"query": expression, **moments})
        if body not in self._answers:
            with urlopen(f"{self.address}/api/v1/{path}", body.encode(), timeout=10) as answer:
                result = json.load(answer)["data"]["result"]
            self._answers[body] = [
                Row(series["metric"], [float(v) for _, v in series.get("values") or [series["value"]]])
                for series in result
            ]
        return self._answers[body]

    def table(self, uid: str, title: str, *keys: str, **chosen: str) -> Table:
        """The values of a table, by the values of the labels `keys` and by the title of the column."""
        rows: Table = defaultdict(dict)
        for column, answer in self._columns(uid, title, chosen):
            for labels, values in answer:
                rows[tuple(labels.get(key, "") for key in keys)][column] = values[-1]
        for cells in rows.values():
            cells |= dict(_differences(panel(uid, title), cells))
        return rows

    def cells(self, uid: str, title: str, **chosen: str) -> list[dict[str, Any]]:
        """The rows of a table as a person sees them, sorted, each with its cells by the columns' titles."""
        columns = list(self._columns(uid, title, chosen))
        labels = [set(row.labels) for _, answer in columns for row in answer]
        common = sorted(set.intersection(*labels)) if labels else []
        titles = _titles(panel(uid, title))
        rows: dict[tuple[str, ...], dict[str, Any]] = defaultdict(dict)
        for column, answer in columns:
            for each in answer:
                cells = rows[tuple(each.labels[name] for name in common)]
                cells |= {titles[name]: text for name, text in each.labels.items() if name in titles}
                cells[column] = each.values[-1]
        for cells in rows.values():
            cells |= dict(_differences(panel(uid, title), cells))
        result = list(rows.values())
        for order in reversed(panel(uid, title)["options"]["sortBy"]):
            name = order["displayName"]
            result.sort(key=partial(_rank, name), reverse=order["desc"])
        return result

    def _columns(self, uid: str, title: str, chosen: dict[str, str]) -> Iterator[tuple[str, list[Row]]]:
        names = _titles(panel(uid, title))
        several = len(panel(uid, title)["targets"]) > 1
        for query in queries_of(BOARDS[uid]):
            if query.title == title:
                field = f"Value #{query.ref}" if several else "Value"
                yield names.get(field, field), self.ask(query, **chosen)

    def page(self, uid: str, **chosen: str) -> list[Row]:
        """The answers to every query of a page's panels."""
        names = ("variable", "annotation")
        queries = [query for query in queries_of(BOARDS[uid]) if not query.title.startswith(names)]
        return [row for query in queries for row in self.ask(query, **chosen)]

    def lines(self, uid: str, title: str, **chosen: str) -> list[list[Row]]:
        """The answers to each query of a panel."""
        return [self.ask(query, **chosen) for query in queries_of(BOARDS[uid]) if query.title == title]


def panels(uid: str) -> Iterator[dict[str, Any]]:
    """Every panel of a page, those in closed rows too."""
    for outer in BOARDS[uid]["panels"]:
        yield from (inner for inner in [outer, *outer.get("panels", ())] if inner["type"] != "row")


def panel(uid: str, title: str) -> dict[str, Any]:
    """The panel of this title."""
    (result,) = (each for each in panels(uid) if each["title"] == title)
    return result


def _rank(title: str, cells: dict[str, Any]) -> tuple[bool, Any]:
    """What Grafana sorts by: an empty cell is less than any other."""
    return title in cells, cells.get(title, "")


def _titles(table: dict[str, Any]) -> dict[str, str]:
    """The title of each column of a table, by its field."""
    titles: dict[str, str] = table["transformations"][-1]["options"]["renameByName"]
    return titles


def _differences(table: dict[str, Any], cells: dict[str, float]) -> Iterator[tuple[str, float]]:
    """The columns that Grafana calculates from two others, where a missing cell makes none."""
    for each in table["transformations"]:
        if each["id"] == "calculateField":
            fields = (each["options"]["binary"][side]["matcher"]["options"] for side in ("left", "right"))
            now, past = (cells.get(_titles(table).get(field, field), math.nan) for field in fields)
            yield each["options"]["alias"], now - past
