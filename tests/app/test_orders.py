"""The shop's orders."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry

from app import create_app, orderbook
from app.orderbook import LARGEST_ID, OrderBook


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def client(tmp_path: Path, registry: CollectorRegistry) -> Iterator[FlaskClient]:
    with create_app({"DATABASE": tmp_path / "orders.db"}, registry).test_client() as client:
        yield client


def test_order_can_be_placed_and_read(client: FlaskClient) -> None:
    """A placed order is answered with 201 and the address that it can be read at."""
    placed = client.post("/orders", json={"item": "coffee", "quantity": 3})

    assert placed.status_code == 201
    assert placed.location == "/orders/1"
    assert placed.get_json() == {
        "id": 1,
        "item": "coffee",
        "quantity": 3,
        "value_cents": 960,
        "placed_at": placed.get_json()["placed_at"],
    }
    assert client.get("/orders/1").get_json() == placed.get_json()


def test_list_is_paged(client: FlaskClient) -> None:
    """Following `next` gives every order once, newest first."""
    for _ in range(5):
        client.post("/orders", json={"item": "tea", "quantity": 1})

    pages: list[list[int]] = []
    address = "/orders?limit=2"
    while address:
        page = client.get(address).get_json()
        pages.append([order["id"] for order in page["orders"]])
        address = page["next"]

    assert pages == [[5, 4], [3, 2], [1]]


def test_full_last_page_has_no_next(client: FlaskClient) -> None:
    """A last page that happens to be full does not point to an empty one."""
    for _ in range(2):
        client.post("/orders", json={"item": "tea", "quantity": 1})

    assert client.get("/orders?limit=2").get_json()["next"] is None


def test_empty_list(client: FlaskClient) -> None:
    """A shop without orders answers an empty page."""
    assert client.get("/orders").get_json() == {"orders": [], "next": None}


NO_OBJECT = "body must be a JSON object, sent as application/json"
NO_ITEM = "item must be one of cake, coffee, sandwich, tea, not "
NO_QUANTITY = "quantity must be a whole number from 1 to 100, not "


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", NO_OBJECT),
        (b"[1]", NO_OBJECT),
        (b"{", NO_OBJECT),
        (b"[" * 10_000, NO_OBJECT),
        (b"{}", NO_ITEM + "None"),
        (b'{"item": ["tea"]}', NO_ITEM + "['tea']"),
        (b'{"item": "\\ud800"}', NO_ITEM + "'\\ud800'"),
        (b'{"item": "tea"}', NO_QUANTITY + "None"),
        (b'{"item": "tea", "quantity": 0}', NO_QUANTITY + "0"),
        (b'{"item": "tea", "quantity": 101}', NO_QUANTITY + "101"),
        (b'{"item": "tea", "quantity": true}', NO_QUANTITY + "True"),
        (b'{"item": "tea", "quantity": 1.5}', NO_QUANTITY + "1.5"),
    ],
)
def test_wrong_order_is_refused(client: FlaskClient, body: bytes, message: str) -> None:
    """A wrong order is a 400 that names the field and the value, and is not kept."""
    answer = client.post("/orders", data=body, content_type="application/json")

    assert answer.status_code == 400
    assert answer.get_json()["field"] == message.split()[0]
    assert answer.get_json()["message"] == message
    assert client.get("/orders").get_json()["orders"] == []


def test_form_is_refused(client: FlaskClient) -> None:
    """Anything but JSON is refused, so that no form on another site can place an order."""
    answer = client.post("/orders", data='{"item": "tea", "quantity": 1}', content_type="text/plain")

    assert (answer.status_code, answer.get_json()["field"]) == (400, "body")


def test_large_body_is_refused(client: FlaskClient) -> None:
    """A body above 16 KiB is not read."""
    answer = client.post("/orders", data=b" " * (16 * 1024 + 1), content_type="application/json")

    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("query", "field", "shown"),
    [
        ("limit=0", "limit", "1 to 100, not '0'"),
        ("limit=101", "limit", "1 to 100, not '101'"),
        ("limit=ten", "limit", "1 to 100, not 'ten'"),
        ("limit=-1", "limit", "1 to 100, not '-1'"),
        ("before=0", "before", f"1 to {LARGEST_ID}, not '0'"),
        (f"before={LARGEST_ID + 1}", "before", f"1 to {LARGEST_ID}, not '{LARGEST_ID + 1}'"),
        ("before=" + "9" * 5000, "before", f"1 to {LARGEST_ID}, not '999999999999...9999999999999'"),
    ],
)
def test_wrong_page_is_refused(client: FlaskClient, query: str, field: str, shown: str) -> None:
    """A wrong value in the query is a 400 that names it."""
    answer = client.get(f"/orders?{query}")

    assert answer.status_code == 400
    assert answer.get_json()["field"] == field
    assert answer.get_json()["message"] == f"{field} must be a whole number from {shown}"


@pytest.mark.parametrize("number", [1, LARGEST_ID, LARGEST_ID + 1])
def test_missing_order(client: FlaskClient, number: int) -> None:
    """An order that does not exist is a 404, also where SQLite could not even look for it."""
    answer = client.get(f"/orders/{number}")

    assert (answer.status_code, answer.get_json()["message"]) == (404, f"There is no order {number}.")


def test_orders_are_counted(client: FlaskClient, registry: CollectorRegistry) -> None:
    """Every attempt is counted by its status; only what was placed has a value."""
    client.post("/orders", json={"item": "tea", "quantity": 2})
    client.post("/orders", json={"item": "sandwich", "quantity": 10})
    client.post("/orders", json={"item": "moon", "quantity": 1})
    client.get("/orders")

    assert registry.get_sample_value("orders_total", {"status": "201"}) == 2
    assert registry.get_sample_value("orders_total", {"status": "400"}) == 1
    assert registry.get_sample_value("order_value_euros_count") == 2
    assert registry.get_sample_value("order_value_euros_sum") == 64
    assert registry.get_sample_value("order_value_euros_bucket", {"le": "5.0"}) == 1
    assert registry.get_sample_value("order_value_euros_bucket", {"le": "100.0"}) == 2


def test_only_the_newest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file does not grow without bound, and no id is given twice."""
    monkeypatch.setattr(orderbook, "CAPACITY", 3)
    book = OrderBook(tmp_path / "orders.db")
    for _ in range(5):
        book.add("tea", 1, 250)

    assert [order.id for order in book.latest(limit=10)] == [5, 4, 3]


def test_vanished_file_is_an_error(client: FlaskClient, tmp_path: Path) -> None:
    """A database that was deleted is a 500, and not an empty shop."""
    for file in tmp_path.glob("orders.db*"):
        file.unlink()

    assert client.get("/orders").status_code == 500
    assert not (tmp_path / "orders.db").exists()


def test_healthy_database(client: FlaskClient) -> None:
    """The service is ready while orders can be kept."""
    assert client.get("/health/ready").status_code == 200
    assert client.get("/health").get_json()["checks"]["database"]["up"] is True


def test_vanished_database_is_down(client: FlaskClient, tmp_path: Path) -> None:
    """Without its database the service is not ready, and says which check fails."""
    for file in tmp_path.glob("orders.db*"):
        file.unlink()

    assert client.get("/health/ready").status_code == 503
    assert client.get("/health").get_json()["checks"]["database"]["up"] is False


def test_locked_database_is_down(client: FlaskClient, tmp_path: Path) -> None:
    """Readers alone do not make a service: where nothing can be written within a second, it is not ready."""
    with closing(sqlite3.connect(tmp_path / "orders.db")) as other:
        other.execute("BEGIN IMMEDIATE")

        assert client.get("/orders").status_code == 200
        assert client.get("/health/ready").status_code == 503


def work(path: Path, start: Barrier, orders: int) -> None:
    """Open the shop at the same moment as the others, and order from four threads."""
    start.wait()
    book = OrderBook(path)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: book.add("tea", 1, 250), range(orders)))


def test_workers_share_the_file(tmp_path: Path) -> None:
    """Workers that start at once and order at once lose nothing."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(4)
    workers = [context.Process(target=work, args=(tmp_path / "orders.db", start, 50)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)

    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert [order.id for order in OrderBook(tmp_path / "orders.db").latest(1000)] == list(range(200, 0, -1))
