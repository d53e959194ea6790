"""Orders in an SQLite file, which any number of workers and threads share."""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

LARGEST_ID = 2**63 - 1  # SQLite's
CAPACITY = 10_000  # orders; the file stays at about a megabyte under any load

_TABLE = """
CREATE TABLE IF NOT EXISTS orders (
    id INTEGER PRIMARY KEY,
    item TEXT NOT NULL,
    quantity INTEGER NOT NULL,
    value_cents INTEGER NOT NULL,
    placed_at TEXT NOT NULL
)
"""


@dataclass(frozen=True, slots=True)
class Order:
    """An order; ``placed_at`` is ISO 8601 in UTC."""

    id: int
    item: str
    quantity: int
    value_cents: int
    placed_at: str


class OrderBook:
    """The newest orders, in a file.

    Every call opens the file (0.1 ms), so threads and forked workers share no connection.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Create the file and its directory if they are missing.

        Raises OSError with the path if that is impossible.
        """
        file = Path(path).absolute()
        self._address = f"{file.as_uri()}?mode=rw"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with _lock(file.parent), closing(sqlite3.connect(file)) as connection, connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise OSError(
                f"cannot keep orders in {str(path)!r} ({error}): name a file in a writable directory"
            ) from error

    def add(self, item: str, quantity: int, value_cents: int) -> Order:
        """Store a new order, and delete the oldest above CAPACITY."""
        placed_at = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        with self._connection() as connection:
            connection.execute(
                "INSERT INTO orders (item, quantity, value_cents, placed_at) VALUES (?, ?, ?, ?)",
                (item, quantity, value_cents, placed_at),
            )
            (number,) = connection.execute("SELECT last_insert_rowid()").fetchone()
            connection.execute("DELETE FROM orders WHERE id <= ?", (number - CAPACITY,))
        return Order(number, item, quantity, value_cents, placed_at)

    def get(self, number: int) -> Order | None:
        """Return the order with this id, or None."""
        with self._connection() as connection:
            row = connection.execute("SELECT * FROM orders WHERE id = ?", (number,)).fetchone()
        return row and Order(*row)

    def latest(self, limit: int, before: int = LARGEST_ID) -> list[Order]:
        """Return at most ``limit`` orders with an id below ``before``, newest first."""
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT * FROM orders WHERE id < ? ORDER BY id DESC LIMIT ?", (before, limit)
            ).fetchall()
        return [Order(*row) for row in rows]

    def check(self) -> None:
        """Raise sqlite3.Error unless the file can be read and written."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")  # the lock that a writer needs
            connection.execute("SELECT id FROM orders LIMIT 1")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        # The address has mode=rw, so a file that has vanished is an error, not an empty shop.
        with closing(sqlite3.connect(self._address, uri=True)) as connection, connection:
            # In WAL mode, NORMAL can lose the last orders only when the machine loses power.
            connection.execute("PRAGMA synchronous = NORMAL")
            yield connection


@contextmanager
def _lock(directory: Path) -> Iterator[None]:
    """Keep other workers out: SQLite fails if two of them switch a file to WAL at the same time."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
