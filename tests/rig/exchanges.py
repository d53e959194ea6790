"""Finished requests as the middleware hands them on, for tests of recorders and sinks."""

from __future__ import annotations

from typing import Any

from exporter.measure.exchange import Exchange
from exporter.worker.flightrecorder import FlightRecorder


def exchange(**changes: Any) -> Exchange:
    """A finished request for an order, with these changes."""
    fields: dict[str, Any] = {
        "path_info": "/orders/7",
        "environ": {"REQUEST_METHOD": "GET", "QUERY_STRING": "", "REMOTE_ADDR": "192.0.2.7"},
        "started": 1.0,
        "start_time": 1_767_225_600.25,
        "duration": 0.0125,
        "method": "GET",
        "rule": "/orders/<int:id>",
        "group": "/orders/<int:id>",
        "endpoint": "orders.show",
        "status": 200,
        "failed": False,
        "error_type": "",
        "request_size": 0,
        "response_size": 512,
        "request_id": "5f2b7c1e9a3d4f60000003e8",
        "trace_id": "",
        "disconnected": False,
    }
    path = changes.pop("path", None)
    if path is not None:
        changes["path_info"] = path
    request = Exchange.__new__(Exchange)
    for name, value in {**fields, **changes}.items():
        setattr(request, name, value)
    return request


def keep(recorder: FlightRecorder, **changes: Any) -> Exchange:
    """Let the recorder have such a request, from its beginning to its end."""
    request = exchange(**changes)
    recorder.enter(request)
    recorder.record(request)
    recorder.leave(request)
    return request


def opened(recent: int, directory: str | None = None, threads: int = 0) -> FlightRecorder:
    """A flight recorder that is ready for requests."""
    recorder = FlightRecorder(recent, directory)
    recorder.open(threads)
    return recorder
