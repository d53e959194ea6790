"""Writers: the functions that write the requests of this process into its ring.

They are the whole cost of a record: see `exporter.worker.requests` for the layout and the order of fields.
"""

from __future__ import annotations

import struct
import sys
import threading
from _thread import get_ident
from collections import deque
from collections.abc import Callable
from mmap import mmap
from time import perf_counter, time
from typing import TYPE_CHECKING, Any, NamedTuple

from exporter.observation import Observation
from exporter.worker import requests
from exporter.worker.requests import HEAD_AT, HEADER, LASTING, NAMES_LIMIT, RECORD, Header

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_NO_TIME = 1e-9  # a duration of 0.0 means that there is none yet
_duration = struct.Struct("<d")


class CrowdedError(Exception):
    """More requests are in progress than there are places for them."""


class Writers(NamedTuple):
    enter: Callable[[Observation], None]
    lasts: Callable[[Observation], None]
    record: Callable[[Observation], None]
    leave: Callable[[Observation], None]
    turn: Callable[[mmap], None]


def writers(  # noqa: C901  five functions
    header: Header,
    memory: mmap,
    live: list[Observation | None],
    places: deque[int],
    surplus: set[Observation],
) -> Writers:
    """What writes into a ring: closures, which cost less than methods.

    Places are taken in the order in which they were freed, so a record is overwritten when all others are
    younger, and never while its request is in progress. To take the latest would save 0.5 µs.
    """
    take, give = places.popleft, places.append
    pack_head, pack_tail, pack_duration = (
        requests.head.pack_into,
        requests.tail.pack_into,
        _duration.pack_into,
    )
    records_at, heads_at = header.first, header.first + HEAD_AT
    current, has_greenlets = _current()
    starts = _starts(memory, header)
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
        exchange.thread = thread = current()
        live[slot] = exchange
        environ, path, script = exchange.environ, exchange.path_info, exchange.script_name
        if script:
            path = script + path
        pack_head(
            memory,
            slot * RECORD + heads_at,
            LASTING if "HTTP_UPGRADE" in environ and _is_websocket(environ) else 0.0,
            exchange.request_id.encode(),
            environ["REQUEST_METHOD"].encode(),
            len(script),
            path.encode("latin-1", "replace"),
            id(thread) if has_greenlets else thread,
            lead,
            exchange.started,
        )
        starts[slot] = exchange.started

    def lasts(exchange: Observation) -> None:
        slot = exchange.slot
        if live[slot] is exchange and not exchange.recorded:
            pack_duration(memory, slot * RECORD + heads_at, LASTING)

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
            exchange.trace_id.encode(),
            names,
            exchange.request_size,
            exchange.response_size,
            exchange.duration or _NO_TIME,
        )

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

    def turn(other: mmap) -> None:
        """Write into this memory, which has been copied; the wall clock may have been set."""
        nonlocal memory, starts, lead
        lead = time() - perf_counter()
        if other is memory:
            return
        former, memory, starts = memory, other, _starts(other, header)
        for slot, exchange in enumerate(live):  # what came or went while it was copied
            if exchange is not None:
                at = records_at + slot * RECORD
                other[at : at + RECORD] = former[at : at + RECORD]
                starts[slot] = exchange.started
            elif slot:
                starts[slot] = 0.0

    return Writers(enter, lasts, record, leave, turn)


def ignore(_: Any) -> None:
    """Stands for the writers where there is no ring yet."""


def _starts(memory: mmap, header: Header) -> memoryview[float]:
    return memoryview(memory)[HEADER : header.first].cast("d")


def _current() -> tuple[Callable[[], Any], bool]:
    """What tells the thread of a request, or its greenlet; and whether threads are greenlets."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if (gevent and gevent.is_module_patched("threading")) or (
        eventlet and eventlet.is_monkey_patched("thread")
    ):
        return sys.modules["greenlet"].getcurrent, True
    return get_ident, False


def _is_websocket(environ: WSGIEnvironment) -> bool:
    return str(environ["HTTP_UPGRADE"]).lower() == "websocket"  # and not h2c, which clients offer


def _names(observation: Observation) -> bytes:
    """The part of a record that is the same for all requests of a rule with the same outcome."""
    observation.name()
    flags = f"{observation.failed:d}{observation.disconnected:d}"
    names = (observation.method, observation.error_type, observation.endpoint, observation.rule)
    return (f"{observation.status:03d}{flags}" + "\0".join(names)).encode("utf-8", "replace")[:NAMES_LIMIT]
