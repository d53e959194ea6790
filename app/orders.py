"""The shop's orders over HTTP, and what they are worth as a metric."""

from __future__ import annotations

from dataclasses import asdict
from reprlib import repr as shortened
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
    """Make the routes on the orders kept in the file ``database``, and their metrics.

    Raises OSError when the file cannot be made.
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
        found = book.latest(limit + 1, before)  # one more, to know whether there is a next page
        orders = found[:limit]
        following = url_for("orders.page", limit=limit, before=orders[-1].id) if len(found) > limit else None
        return {"orders": [asdict(order) for order in orders], "next": following}

    @routes.get("/<int:order_id>")
    def one(order_id: int) -> dict[str, Any]:
        order = book.get(order_id) if order_id <= LARGEST_ID else None
        if order is None:
            abort(404, f"There is no order {order_id}.")
        return asdict(order)

    @routes.post("")
    @count  # type: ignore[untyped-decorator]  # its parent is not typed
    def place() -> tuple[dict[str, Any], int, dict[str, str]]:
        item, quantity = _wanted()
        order = book.add(item, quantity, PRICES[item] * quantity)
        value.observe(order.value_cents / 100)
        return asdict(order), 201, {"Location": url_for("orders.one", order_id=order.id)}

    return routes


def _wanted() -> tuple[str, int]:
    """Read item and quantity from the body."""
    try:
        body = request.get_json(silent=True)
    except RecursionError:  # thousands of brackets
        body = None
    if not isinstance(body, dict):
        raise InvalidField("body", "must be a JSON object, sent as application/json")
    item, quantity = body.get("item"), body.get("quantity")
    if not isinstance(item, str) or item not in PRICES:
        raise InvalidField("item", f"must be one of {', '.join(PRICES)}, not {shortened(item)}")
    if type(quantity) is not int or not 1 <= quantity <= LARGEST_QUANTITY:
        raise InvalidField(
            "quantity", f"must be a whole number from 1 to {LARGEST_QUANTITY}, not {shortened(quantity)}"
        )
    return item, quantity


def _number(name: str, default: int, largest: int) -> int:
    """Read a whole number from 1 to ``largest`` from the query."""
    given = request.args.get(name)
    if given is None:
        return default
    if not given.isdecimal() or len(given) > len(str(largest)) or not 1 <= int(given) <= largest:
        raise InvalidField(name, f"must be a whole number from 1 to {largest}, not {shortened(given)}")
    return int(given)
