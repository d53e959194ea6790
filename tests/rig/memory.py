"""The memory of an application with many series."""

from __future__ import annotations

import gc
import re
from pathlib import Path

from flask import Flask, abort
from prometheus_client import CollectorRegistry

from exporter import FlaskExporter


def label_sets() -> tuple[Flask, list[str]]:
    """An application and the paths for 1,000 label sets: 10 statuses of 100 rules."""
    app = Flask("host", static_folder=None)
    FlaskExporter(app, registry=CollectorRegistry())

    def answer(status: int) -> tuple[str, int]:
        if status >= 400:
            abort(status)
        return "ok", status

    for number in range(100):
        app.add_url_rule(f"/rule{number}/<int:status>", f"rule{number}", answer)
    statuses = (200, 201, 202, 203, 206, 400, 403, 404, 500, 503)
    return app, [f"/rule{number}/{status}" for number in range(100) for status in statuses]


def resident() -> int:
    """Resident memory of this process in bytes, after a collection."""
    gc.collect()
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * 4096


def own(pid: int) -> int:
    """Memory that this process shares with no other, in bytes."""
    private = re.findall(r"^Private_\w+: +(\d+) kB$", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
    return sum(map(int, private)) * 1024
