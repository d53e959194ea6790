"""Latency and errors on demand, which show the way from a fault to its alert."""

from __future__ import annotations

import ctypes
import random
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from threading import Lock
from typing import NoReturn

from flask import Blueprint, Response, abort, request

from app.errors import InvalidField

SLOWEST = 10.0  # seconds
STUCK = 120.0  # seconds: twice what FlaskRequestStuck takes for long
LONGEST = 3600.0  # seconds
CHUNKS = 10
CHUNK_PAUSE = 0.1  # seconds

blueprint = Blueprint("faults", __name__, url_prefix="/test")


@blueprint.get("/normal")
def normal() -> dict[str, str]:
    """Answers at once."""
    return {"status": "ok"}


@blueprint.get("/slow")
def slow() -> dict[str, float | str]:
    """Answers after 1 to 3 seconds, or as seconds= in the query says; on= says what it waits for."""
    seconds = _seconds(random.uniform(1, 3), SLOWEST)  # noqa: S311 -- nobody gains by guessing it
    cause = _cause(request.args.get("on"))
    WAITS[cause](seconds)
    return {"seconds": seconds, "on": cause}


@blueprint.get("/error")
def error() -> NoReturn:
    """Raises a ValueError that nobody handles."""
    raise ValueError("raised on demand by /test/error")


@blueprint.get("/notfound")
def notfound() -> NoReturn:
    """Answers 404 from a route that exists."""
    abort(404)


@blueprint.get("/server-error")
def server_error() -> NoReturn:
    """Answers 500 without an exception of its own."""
    abort(500)


@blueprint.get("/stream")
def stream() -> Response:
    """Sends its answer in ten chunks over a second."""
    return Response(_chunks(), mimetype="text/plain")


@blueprint.get("/stuck")
def stuck() -> dict[str, float]:
    """Gives no answer for 2 minutes, or as long as seconds= in the query says."""
    seconds = _seconds(STUCK, LONGEST)
    time.sleep(seconds)
    return {"seconds": seconds}


@blueprint.get("/crash")
def crash() -> NoReturn:
    """Ends its worker with a segmentation fault; another one takes its place."""
    ctypes.string_at(0)
    raise AssertionError("address 0 can be read")


def run_report(seconds: float) -> None:
    """A query for which the database needs so long."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.create_function("report", 1, time.sleep)
        connection.execute("SELECT report(?)", (seconds,))


def refresh_prices(seconds: float) -> None:
    """A lock that another thread has and does not give back."""
    lock = Lock()
    with lock:
        lock.acquire(timeout=seconds)


def ask_warehouse(seconds: float) -> None:
    """A call to a service that does not answer in time."""
    connection, other = socket.socketpair()
    with connection, other, suppress(TimeoutError, BlockingIOError):
        connection.settimeout(seconds)
        connection.recv(1)


WAITS: dict[str, Callable[[float], None]] = {
    "query": run_report,
    "lock": refresh_prices,
    "call": ask_warehouse,
}


def _cause(text: str | None) -> str:
    if text is None:
        return random.choice(list(WAITS))  # noqa: S311 -- nor this
    if text not in WAITS:
        raise InvalidField("on", f"must be one of {', '.join(WAITS)}, not {text[:20]!r}")
    return text


def _seconds(default: float, limit: float) -> float:
    """What seconds= in the query says."""
    text = request.args.get("seconds")
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= limit:  # NaN too
        raise InvalidField("seconds", f"must be a number from 0 to {limit:g}, not {text[:20]!r}")
    return seconds


def _chunks() -> Iterator[str]:
    for number in range(1, CHUNKS + 1):
        time.sleep(CHUNK_PAUSE)
        yield f"chunk {number} of {CHUNKS}\n"
