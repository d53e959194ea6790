"""Counts log records by level, without a handler.

A handler on the root logger would silence a host application: `logging.basicConfig()` does nothing where the
root has one, Flask adds none of its own then, and the last resort to standard error is gone. Every record
that passes its logger's level is made by the record factory, so it is counted there.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol
from weakref import WeakSet

from prometheus_client import CollectorRegistry, Counter

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class Listener(Protocol):
    """A counter of records; called for each record, in the thread that logs."""

    def count_log(self, level: str) -> None:
        """Note a record of this level; must not raise, nor wait for a lock.

        A finalizer may log at any moment, also while this very thread holds one.
        """


_listeners: WeakSet[Any] = WeakSet()


def tell(listener: Listener) -> None:
    """Call `listener` for every log record from now on; the reference to it is weak."""
    if not _listeners:
        _install()
    _listeners.add(listener)


def family(registry: CollectorRegistry, prefix: str) -> Counter:
    """The counter of log records, with a series for each level."""
    counter = Counter(f"{prefix}log_messages", "Log records, by level", ["level"], registry=registry)
    for level in LEVELS:
        counter.labels(level)
    return counter


def level_name(number: int) -> str:
    """The standard level at or below this one, so that custom levels add no series."""
    return LEVELS[min(max(number // 10, 1), 5) - 1]


def _install() -> None:
    make = logging.getLogRecordFactory()
    if getattr(make, "counts", False):
        return

    def make_and_count(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        if isinstance(record.levelno, int):  # logging.makeLogRecord() makes one without a level
            for listener in list(_listeners):
                listener.count_log(level_name(record.levelno))
        return record

    make_and_count.counts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(make_and_count)
