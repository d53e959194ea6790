"""What a user gets wrong; every checker must object to each line that says so, and to no other."""

from __future__ import annotations

from flask import Flask

from exporter import FlaskExporter, Settings, request_id

app = Flask(__name__)
exporter = FlaskExporter(app, max_seires=5)  # wrong
FlaskExporter(app, max_series="many")  # wrong
FlaskExporter.for_app_factory(recnt=5)  # wrong
exporter.init_app("orders")  # wrong
exporter.health_check(5)  # wrong


@exporter.counter("orders", "Orders shown")
def show(number: int) -> str:
    return str(number)


show("seven")  # wrong
count: int = request_id()  # wrong
print(Settings.load().max_seires)  # wrong
