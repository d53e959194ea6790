"""What a key changes in `python -m exporter top`, and which rows stay on the screen."""

from __future__ import annotations

from exporter.commands.view import SORTS, View

ENDPOINTS = [("endpoint", str(number)) for number in range(10)]
REQUEST = ("request", "known-1")


def pressed(view: View, *keys: str) -> View:
    for key in keys:
        assert view.press(key)
    return view


def test_the_window_of_a_table_follows_its_rows() -> None:
    """It stays where it is while another table is used, and goes back when rows are gone."""
    view = View(selected=ENDPOINTS[-1], rows={key: {} for key in (*ENDPOINTS, REQUEST)})
    assert view.window("endpoint", 3) == slice(7, 10)
    assert view.window("request", 3) == slice(0, 3)

    view.selected = REQUEST
    assert view.window("endpoint", 3) == slice(7, 10)
    for left, window in ((5, slice(2, 5)), (2, slice(0, 3))):
        view.rows = {key: {} for key in (*ENDPOINTS[:left], REQUEST)}
        view.tops = {"endpoint": 7}
        assert view.window("endpoint", 3) == window


def test_the_first_window_begins_with_the_first_row() -> None:
    view = View(selected=REQUEST, rows={key: {} for key in (*ENDPOINTS, REQUEST)})

    assert view.window("endpoint", 3) == slice(0, 3)


def test_escape_closes_one_thing_after_the_other() -> None:
    """Help or the request, then the endpoint, then the filter."""
    view = View(rows={ENDPOINTS[1]: {}, REQUEST: {"path": "/boom"}}, filter="o")
    pressed(view, "j", "\r", "\t", "\r")
    assert (view.endpoint, view.detail, view.filter) == ("1", {"path": "/boom"}, "o")

    pressed(view, "\x1b")
    assert (view.endpoint, view.detail, view.filter) == ("1", None, "o")
    pressed(view, "?")
    assert view.help
    pressed(view, "\x1b")
    assert (view.help, view.endpoint, view.filter) == (False, "1", "o")
    pressed(view, "\x1b")
    assert (view.endpoint, view.filter, view.selected) == ("", "o", REQUEST)
    pressed(view, "\x1b")
    assert (view.endpoint, view.filter, view.selected) == ("", "", None)


def test_a_row_that_is_gone_is_not_opened() -> None:
    for gone in (ENDPOINTS[1], REQUEST):
        view = pressed(View(selected=gone, rows={ENDPOINTS[0]: {}}), "\r")

        assert (view.endpoint, view.detail) == ("", None)


def test_each_order_has_its_turn() -> None:
    view = View()
    orders = [pressed(view, "s").sort for _ in SORTS]

    assert orders == [*list(SORTS)[1:], "requests"]
