"""The shop's orders over HTTP, with metrics of their number and value."""

from __future__ import annotations

from dataclasses import asdict
from reprlib import repr as short
from typing import Any

from flask import Blueprint, abort, request, url_for
from prometheus_client import Histogram

from app.errors import InvalidField
from app.orderbook import LARGEST_ID, OrderBook
from exporter import FlaskExporter

PRICES = {"cake": 410, "coffee": 320, "sandwich": 590, "tea": 250}  # cents
LARGEST_QUANTITY = 100
LONGEST_PAGE = 100


def blueprint(exporter: FlaskExporter, database: str) -> Blueprint:
    """Make the routes and the metrics of the orders in the file ``database``.

    Raises OSError if it cannot create the file.
    """
    routes = Blueprint("orders", __name__, url_prefix="/orders")
    book = OrderBook(database)
    exporter.health_check("database", timeout=1.0)(book.check)
    count = exporter.counter(
        "orders_total",
        "Orders asked for, by the status of the answer",
        labels={"status": lambda response: response.status_code},
    )
    value = Histogram(
        "order_value_euros",
        "What the orders placed are worth",
        # From a single tea to a hundred sandwiches.
        buckets=(2.5, 5, 10, 20, 50, 100, 200, 500),
        registry=exporter.registry,
    )

    @routes.get("")
    def page() -> dict[str, Any]:
        limit = _number("limit", default=20, largest=LONGEST_PAGE)
        before = _number("before", default=LARGEST_ID, largest=LARGEST_ID)
        candidates = book.latest(limit + 1, before)  # an order beyond the limit means a next page
        orders = candidates[:limit]
        has_next = len(candidates) > limit
        link = url_for("orders.page", limit=limit, before=orders[-1].id) if has_next else None
        return {"orders": [asdict(order) for order in orders], "next": link}

    @routes.get("/<int:order_id>")
    def show(order_id: int) -> dict[str, Any]:
        order = book.get(order_id) if order_id <= LARGEST_ID else None
        if order is None:
            abort(404, f"There is no order {order_id}.")
        return asdict(order)

    @routes.post("")
    @count
    def place() -> tuple[dict[str, Any], int, dict[str, str]]:
        item, quantity = _item_and_quantity()
        order = book.add(item, quantity, PRICES[item] * quantity)
        value.observe(order.value_cents / 100)
        return asdict(order), 201, {"Location": url_for("orders.show", order_id=order.id)}

    return routes


def _item_and_quantity() -> tuple[str, int]:
    """Read item and quantity from the body."""
    try:
        body = request.get_json(silent=True)
    except RecursionError:  # the body nests thousands of brackets
        body = None
    if not isinstance(body, dict):
        raise InvalidField("body", "must be a JSON object, sent as application/json")
    item, quantity = body.get("item"), body.get("quantity")
    if not isinstance(item, str) or item not in PRICES:
        raise InvalidField("item", f"must be one of {', '.join(PRICES)}, not {short(item)}")
    if type(quantity) is not int or not 1 <= quantity <= LARGEST_QUANTITY:
        raise InvalidField(
            "quantity", f"must be a whole number from 1 to {LARGEST_QUANTITY}, not {short(quantity)}"
        )
    return item, quantity


def _number(name: str, default: int, largest: int) -> int:
    """Read a whole number from 1 to ``largest`` from the query."""
    text = request.args.get(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > len(str(largest)) or not 1 <= int(text) <= largest:
        raise InvalidField(name, f"must be a whole number from 1 to {largest}, not {short(text)}")
    return int(text)
