"""Finished requests as the middleware hands them on, for tests of recorders and sinks."""

from __future__ import annotations

from typing import Any

from exporter.measure.exchange import Exchange


def exchange(**changes: Any) -> Exchange:
    """A finished request for an order, with these changes."""
    fields: dict[str, Any] = {
        "path_info": "/orders/7",
        "environ": {"QUERY_STRING": "", "REMOTE_ADDR": "192.0.2.7"},
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
