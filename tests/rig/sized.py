"""A service of any size, as `served:app`: endpoints with methods, each of which answers with every status."""

from tests.rig.clients import drive

STATUSES = (200, 500, 404, 503)
METHODS = ("GET", "POST", "PUT")


def source(endpoints: int, methods: int) -> str:
    """The module of a service with so many endpoints, each with so many methods."""
    return f"""
from flask import Flask, abort, request
from exporter import FlaskExporter

app = Flask("sized")
exporter = FlaskExporter(app)

def view():
    status = int(request.args["status"])
    return "done" if status == 200 else abort(status)

for number in range({endpoints}):
    app.add_url_rule(f"/{{number}}", str(number), view, methods={METHODS[:methods]})
"""


def use(port: int, endpoints: int, methods: int, statuses: int) -> None:
    """Ask every endpoint for every method and status once."""
    drive(
        port,
        1,
        lambda _: (
            (method, f"/{number}?status={status}", {})
            for number in range(endpoints)
            for method in METHODS[:methods]
            for status in STATUSES[:statuses]
        ),
    )
