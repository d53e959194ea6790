"""The tables of `python -m exporter top`: their columns, what is in a cell, and which rows there are."""

from __future__ import annotations

import io
from datetime import datetime
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.commands import tables
from exporter.commands.history import History
from exporter.commands.remote import Snapshot
from exporter.commands.view import SORTS, View


def printed(table: Table, width: int = 300) -> list[str]:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def names(
    endpoints: dict[str, dict[str, Any]], view: View, earlier: dict[str, int] | None = None
) -> list[str]:
    """The endpoints in their order; `earlier` are their requests a second before."""
    history = History()
    before = {name: {"request_count": count} for name, count in (earlier or {}).items()}
    history.add(Snapshot(1.0, {}, before, [], [], None))
    snapshot = Snapshot(2.0, {}, endpoints, [], [], None)
    history.add(snapshot)
    return [name for name, *_ in tables.endpoints(snapshot, history, view)]


@pytest.mark.parametrize(
    ("width", "endpoint_columns", "request_columns"),
    [
        (50, {"p95 ms"}, {"ms"}),
        (60, {"max ms"}, {"method"}),
        (70, {"rate"}, set()),
        (80, {"p99 ms"}, set()),
        (90, {"p50 ms"}, {"error"}),
        (100, {"mean ms"}, set()),
        (110, set(), {"request id"}),
    ],
)
def test_a_column_comes_where_there_is_room(
    width: int, endpoint_columns: set[str], request_columns: set[str]
) -> None:
    """In so many columns of the terminal, and not in one less."""
    endpoint_tables = (tables.endpoint_table([], View(), size) for size in (width, width - 1))
    request_tables = (tables.request_table([], View(), size) for size in (width, width - 1))
    headers = [
        {str(column.header) for column in table.columns} for table in (*endpoint_tables, *request_tables)
    ]

    assert (headers[0] - headers[1], headers[2] - headers[3]) == (endpoint_columns, request_columns)


@pytest.mark.parametrize(("width", "digits"), [(59, 8), (60, 12)])
def test_a_request_of_which_little_is_known(width: int, digits: int) -> None:
    """The time has thousandths where there is room."""
    epoch = datetime.fromtimestamp(0).strftime("%H:%M:%S.%f")[:digits]
    row = printed(tables.request_table([{}], View(), width))[1]

    assert row.split() == [epoch, *["-"] * (2 if width >= 60 else 1), "0", "-"]


@pytest.mark.parametrize(("status", "style"), [(399, ""), (400, "yellow"), (499, "yellow"), (500, "red")])
def test_a_bad_status_has_its_colour(status: int, style: str) -> None:
    """And so has its error."""
    table = tables.request_table([{"status_code": status, "error_type": "KeyError"}], View(), 120)
    cells = {str(column.header): next(iter(column.cells)) for column in table.columns}

    for name, text in (("status", str(status)), ("error", "KeyError")):
        cell = cells[name]
        assert isinstance(cell, Text)
        assert (cell.plain, {str(span.style) for span in cell.spans} - {""}) == (text, {style} - {""})


@pytest.mark.parametrize("more", [0, 1])
def test_what_is_too_long_for_a_cell_is_cut(more: int) -> None:
    cut = "…" * more
    request = {"method": "M" * (8 + more), "error_type": "E" * (30 + more), "request_id": "I" * (64 + more)}
    row = printed(tables.request_table([request], View(), 300))[1].split()
    types = {"error_types": {"T" * (40 + more): 12, "Other": 3}}
    table = tables.error_types(Snapshot(1.0, types, {}, [], [], None), 6)

    assert row[1] == "M" * (8 - more) + cut
    assert row[-2:] == ["E" * (30 - more) + cut, "I" * (64 - more) + cut]
    assert printed(table) == ["error types", "T" * (40 - more) + cut + "  12", "Other" + " " * 38 + "3"]


def test_no_errors_are_said() -> None:
    assert printed(tables.error_types(Snapshot(1.0, {}, {}, [], [], None), 6)) == ["error types", "none"]


@pytest.mark.parametrize(("width", "room"), [(60, 22), (31, 11), (20, 10)])
def test_a_name_takes_the_room_that_the_others_leave(width: int, room: int) -> None:
    """At least ten columns."""
    table = tables.endpoint_table([("/" + "x" * 98, None, {})], View(), width)

    assert printed(table)[1].split() == [
        "/" + "x" * (room - 2) + "…",
        *("-", "0.0%", *["-"] * (len(table.columns) - 3)),
    ]


def test_a_row_takes_one_line() -> None:
    """On a terminal that is narrower than the figures too."""
    rows: list[tables.Row] = [(f"/a b {number}", None, {"request_count": 10**9}) for number in range(3)]
    snapshot = Snapshot(1.0, {"error_types": {"A error": 1000, "B error": 2}}, {}, [], [], None)

    assert len(printed(tables.endpoint_table(rows, View(), 12), 12)) == 4
    assert printed(tables.error_types(snapshot, 6), 15) == ["error ty…", "A error    1,0…", "B error       2"]


@pytest.mark.parametrize(
    ("view", "shown"),
    [
        (View(), ["/a", "/b"]),
        (View(filter="A"), ["/a"]),
        (View(errors_only=True), ["/b"]),
        (View(filter="a", errors_only=True), []),
    ],
)
def test_endpoints_are_filtered(view: View, shown: list[str]) -> None:
    assert names({"/a": {"error_count": 0}, "/b": {"error_count": 1}}, view) == shown


@pytest.mark.parametrize(
    ("view", "shown"),
    [
        (View(), ["/a/1", "/a/2", "/b/1"]),
        (View(filter="/1"), ["/a/1", "/b/1"]),
        (View(filter="SHOW"), ["/a/1", "/a/2"]),
        (View(endpoint="/a/<id>"), ["/a/1", "/a/2"]),
        (View(endpoint="list"), ["/b/1"]),
        (View(endpoint="show", filter="2"), ["/a/2"]),
        (View(endpoint="gone"), []),
    ],
)
def test_requests_are_filtered(view: View, shown: list[str]) -> None:
    found = [
        {"path": "/a/1", "url_rule": "/a/<id>", "endpoint": "show"},
        {"path": "/a/2", "url_rule": "/a/<id>", "endpoint": "show"},
        {"path": "/b/1", "url_rule": "/b/<id>", "endpoint": "list"},
    ]

    assert [row["path"] for row in tables.requests(Snapshot(1.0, {}, {}, found, [], None), view)] == shown


def test_an_error_without_a_time_is_the_oldest() -> None:
    errors: list[dict[str, Any]] = [
        {"path": "/new", "error_occurred": True, "timestamp": 0.5},
        {"path": "/old", "error_occurred": True},
    ]
    snapshot = Snapshot(1.0, {}, {}, errors[1:], errors[:1], None)

    assert tables.requests(snapshot, View(errors_only=True)) == errors


@pytest.mark.parametrize("sort", SORTS)
def test_what_is_not_known_counts_as_nothing(sort: str) -> None:
    """It comes last, or first when the order is reversed; names go from a to z."""
    figures: dict[str, Any] = {
        "request_count": 1, "error_rate": 0.5, "average_response_time_ms": 0.5, "max_response_time_ms": 0.5,
        "response_time_percentiles": {"p95": 0.5},
    }  # fmt: skip
    unknown, known = ("a", "b") if sort != "endpoint" else ("b", "a")
    endpoints = {unknown: {"request_count": 0}, known: figures}

    assert names(endpoints, View(sort=sort)) == [known, unknown]
    assert names(endpoints, View(sort=sort, reverse=True)) == [unknown, known]


def test_an_endpoint_without_a_rate_comes_after_a_slow_one() -> None:
    history = History()
    for at, count in ((0.0, 0), (2.0, 1)):
        history.add(Snapshot(at, {}, {"slow": {"request_count": count}}, [], [], None))
    late = Snapshot(2.0, {}, {"new": {}, "slow": {}}, [], [], None)

    assert [name for name, *_ in tables.endpoints(late, history, View(sort="rate"))] == ["slow", "new"]
