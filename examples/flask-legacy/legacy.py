"""An application from long ago, which nobody wants to touch: it knows nothing of any exporter."""

import logging

from flask import Flask, request

app = Flask(__name__)
app.logger.setLevel(logging.INFO)


@app.route("/orders/<int:number>")
def order(number):  # type: ignore[no-untyped-def]
    """Show an order."""
    app.logger.info("order %s for %s", number, request.remote_addr)
    return f"order {number}\n"


@app.route("/boom")
def boom():  # type: ignore[no-untyped-def]
    """Fail."""
    raise ValueError(f"no {request.path} today")


@app.errorhandler(500)
def sorry(error):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """Answer what nobody has handled."""
    return "Sorry, that went wrong.\n", 500
