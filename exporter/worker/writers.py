"""Writers: the functions that write the requests of this process into its ring.

Their time is the whole cost of a record. `exporter.worker.requests` describes the layout and the order of
the fields.
"""

from __future__ import annotations

import sys
import threading
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from mmap import mmap
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, NamedTuple

from exporter.labels import METHODS
from exporter.observation import Delay, Observation
from exporter.worker import requests
from exporter.worker.requests import (
    DELAY,
    HEAD_AT,
    HEADER,
    NAMES_AT,
    NAMES_LIMIT,
    OPEN_STREAM,
    RECORD,
    Header,
)

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_METHODS = {method: method.encode() for method in METHODS}
_NO_TIME = 1e-9  # stands for a duration of 0.0, which means "no answer yet"


class CrowdedError(Exception):
    """There are more requests in progress than slots."""


class Writers(NamedTuple):
    """The five functions; `FlightRecorder` describes each as an attribute."""

    enter: Callable[[Observation], None]
    stream: Callable[[Observation], None]
    record: Callable[[Observation], None]
    explain: Callable[[Observation], None]
    leave: Callable[[Observation], None]
    switch: Callable[[mmap], None]


def writers(  # noqa: C901  five functions
    header: Header,
    memory: mmap,
    live: list[Observation | None],
    free_slots: deque[int],
    surplus: set[Observation],
) -> Writers:
    """The writers of a ring; they are closures, which cost less than methods.

    Slots are reused in the order in which they became free: so the oldest record is overwritten first, and
    none while its request is in progress. The reuse of the latest slot would save 0.5 µs.
    """
    take, give = free_slots.popleft, free_slots.append
    pack_head, pack_tail = requests.head.pack_into, requests.tail.pack_into
    records_at, heads_at = header.first, header.first + HEAD_AT
    current, has_greenlets = _current()
    starts, durations = _starts(memory, header), requests.durations(memory, header)
    lead = time() - perf_counter()
    crowd = threading.Lock()

    def enter(exchange: Observation) -> None:
        try:
            slot = take()
        except IndexError:
            exchange.thread = current()
            with crowd:
                surplus.add(exchange)
                starts[0] = len(surplus)
            return
        exchange.slot = slot
        exchange.durations = durations
        exchange.thread = thread = current()
        live[slot] = exchange
        environ, path, script = exchange.environ, exchange.path_info, exchange.script_name
        if script:
            path = script + path
        pack_head(
            memory,
            slot * RECORD + heads_at,
            OPEN_STREAM if "HTTP_UPGRADE" in environ and _is_websocket(environ) else 0.0,
            exchange.request_id.encode(),
            _METHODS.get(environ["REQUEST_METHOD"], b""),
            len(script),
            path.encode("latin-1", "replace"),
            id(thread) if has_greenlets else thread,
            lead,
            exchange.started,
        )
        starts[slot] = exchange.started

    def stream(exchange: Observation) -> None:
        slot = exchange.slot
        if live[slot] is exchange and not exchange.recorded:
            durations[slot] = OPEN_STREAM

    def record(exchange: Observation) -> None:
        slot = exchange.slot
        if live[slot] is not exchange:
            if exchange in surplus:
                raise CrowdedError(
                    f"more than {len(live) - 1} requests are in progress: set EXPORTER_RECENT to as many as "
                    "there can be, or some are not listed and not recorded"
                )
            return
        outcome = exchange.outcome
        names = b"" if outcome is None else outcome.packed
        if not names:
            names = _names(exchange)
            if outcome is not None:
                outcome.packed = names
        pack_tail(
            memory,
            slot * RECORD + records_at,
            exchange.trace_id.encode() if exchange.trace_id else b"",
            names,
            exchange.request_size,
            exchange.response_size,
            exchange.duration or _NO_TIME,
        )

    def explain(exchange: Observation) -> None:
        slot, delay = exchange.slot, exchange.delay
        if live[slot] is exchange and delay is not None:
            at = slot * RECORD + records_at + NAMES_AT
            names = _with_delay(_names(exchange), delay)
            memory[at : at + len(names)] = names

    def leave(exchange: Observation) -> None:
        slot = exchange.slot
        if live[slot] is exchange:
            starts[slot] = 0.0
            live[slot] = None
            give(slot)
        elif exchange in surplus:
            with crowd:
                surplus.discard(exchange)
                starts[0] = len(surplus)

    def switch(other: mmap) -> None:
        """Write into this memory, a copy of the former one, and read the wall clock again."""
        nonlocal memory, starts, durations, lead
        lead = time() - perf_counter()
        if other is memory:
            return
        former, memory = memory, other
        starts, durations = _starts(other, header), requests.durations(other, header)
        for slot, exchange in enumerate(live):  # requests that came or went during the copy
            if exchange is not None:
                at = records_at + slot * RECORD
                other[at : at + RECORD] = former[at : at + RECORD]
                starts[slot] = exchange.started
                exchange.durations = durations
            else:
                starts[slot] = 0.0
        with crowd:
            starts[0] = len(surplus)

    return Writers(enter, stream, record, explain, leave, switch)


def ignore(_: Any) -> None:
    """Stands for each of the writers as long as there is no ring."""


def _starts(memory: mmap, header: Header) -> memoryview[float]:
    return memoryview(memory)[HEADER : header.first].cast("d")


def _current() -> tuple[Callable[[], Any], bool]:
    """The function that gives the current thread or greenlet, and whether threads are greenlets."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if (gevent and gevent.is_module_patched("threading")) or (
        eventlet and eventlet.is_monkey_patched("thread")
    ):
        return sys.modules["greenlet"].getcurrent, True
    return get_ident, False


def _is_websocket(environ: WSGIEnvironment) -> bool:
    return str(environ["HTTP_UPGRADE"]).lower() == "websocket"  # clients also offer h2c, no websocket


def _names(observation: Observation) -> bytes:
    """The part of a record that is the same for all requests of a rule with the same outcome."""
    observation.name()
    flags = f"{observation.failed:d}{observation.disconnected:d}"
    names = (observation.method, observation.error_type, observation.endpoint, observation.rule)
    return (f"{observation.status:03d}{flags}" + "\0".join(names)).encode("utf-8", "replace")[:NAMES_LIMIT]


def _with_delay(names: bytes, delay: Delay) -> bytes:
    """The names, and those of the delay for which there is room."""
    longer, separator = names, DELAY
    for name in (delay.where, str(delay.line), delay.library, delay.call):
        longer += f"{separator}{name}".encode("utf-8", "replace")
        if len(longer) > NAMES_LIMIT:
            break
        names, separator = longer, "\0"
    return names
