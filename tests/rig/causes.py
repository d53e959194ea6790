"""A service with twelve views, each slow for another cause that is known, and a fast one."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from tempfile import NamedTemporaryFile
from threading import Lock
from urllib.error import URLError
from urllib.request import urlopen

from flask import Flask, Response, render_template

from exporter import FlaskExporter

SECONDS = 0.7
"""How long each of them takes at least, which is slow by default."""

app = Flask(__name__, template_folder="causes_templates")
exporter = FlaskExporter(app)

CAUSES = {
    "sleep": "wait_for_stock",
    "database": "write_order",
    "http": "fetch_price",
    "socket": "read_reply",
    "lock": "refresh",
    "loop": "compute",
    "regex": "check_name",
    "json": "encode",
    "garbage": "build_tree",
    "template": "causes_templates/report.html",
    "generator": "rows",
    "async": "report",
}
"""The function of each cause, or the template."""
HOLDERS = ("regex", "json", "garbage")
"""They keep the interpreter for themselves, in calls of C that last."""

_lock = Lock()
_lock.acquire()
_file = NamedTemporaryFile(suffix=".db")  # noqa: SIM115  for as long as the process lives
_holder = sqlite3.connect(_file.name, check_same_thread=False)
_holder.execute("CREATE TABLE orders (id)")
_holder.commit()
_holder.execute("BEGIN EXCLUSIVE")


def where(cause: str) -> str:
    """What is said of its requests."""
    place = CAUSES[cause]
    return place if "/" in place else f"{__name__}:{place}"


def _size(work: Callable[[int], object], size: int, larger: Callable[[int], int]) -> int:
    """The size at which the work takes a third of that time."""
    while True:
        started = time.perf_counter()
        work(size)
        if time.perf_counter() - started > SECONDS / 6:
            return larger(size)
        size = larger(size)


@app.get("/fast")
def fast() -> str:
    return "fast"


@app.get("/sleep")
def sleep() -> str:
    wait_for_stock()
    return ""


def wait_for_stock() -> None:
    time.sleep(SECONDS)


@app.get("/database")
def database() -> str:
    write_order()
    return ""


def write_order() -> None:
    connection = sqlite3.connect(_file.name, timeout=SECONDS)
    with closing(connection), suppress(sqlite3.OperationalError):
        connection.execute("INSERT INTO orders VALUES (1)")


@app.get("/http")
def http() -> str:
    fetch_price()
    return ""


def fetch_price() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, suppress(URLError, TimeoutError):
        urlopen(f"http://127.0.0.1:{silent.getsockname()[1]}/price", timeout=SECONDS)


@app.get("/socket")
def asks_a_socket() -> str:
    read_reply()
    return ""


def read_reply() -> None:
    one, other = socket.socketpair()
    with one, other, suppress(TimeoutError):
        one.settimeout(SECONDS)
        one.recv(1)


@app.get("/lock")
def lock() -> str:
    refresh()
    return ""


def refresh() -> None:
    _lock.acquire(timeout=SECONDS)


@app.get("/loop")
def loop() -> str:
    compute()
    return ""


def compute() -> None:
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        pass


@app.get("/regex")
def regex() -> str:
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        check_name(_length)
    return ""


def check_name(length: int) -> None:
    re.match("(a+)+$", "a" * length + "b")


@app.get("/json")
def large_json() -> str:
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        encode(_numbers)
    return ""


def encode(numbers: list[float]) -> str:
    return json.dumps(numbers)


@app.get("/garbage")
def garbage() -> str:
    build_tree()
    return ""


def build_tree() -> None:
    tree = [[number] for number in range(300_000)]
    end = time.perf_counter() + SECONDS
    while tree and time.perf_counter() < end:
        gc.collect()


@app.get("/template")
def template() -> str:
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        text = render_report(_rows)
    return text


def render_report(count: int) -> str:
    return render_template("report.html", count=count)


@app.get("/generator")
def generator() -> Response:
    return Response(rows())


def rows() -> Iterator[str]:
    for number in range(10):
        time.sleep(SECONDS / 10)
        yield f"{number}\n"


@app.get("/async")
async def report() -> str:
    await asyncio.sleep(SECONDS)
    return ""


_length = _size(check_name, 14, lambda size: size + 1)
_numbers = [0.1] * _size(lambda size: json.dumps([0.1] * size), 1000, lambda size: 2 * size)
with app.app_context():
    _rows = _size(render_report, 1000, lambda size: 2 * size)
