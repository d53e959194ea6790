"""The service under drill: the shipped app, and faults that nobody should be able to ask a shop for."""

import threading

from flask import Blueprint, Flask, request

import app as shop

blueprint = Blueprint("drill", __name__, url_prefix="/drill")

CHUNK = 0.25  # seconds between two pieces of a leak

_leak: list[bytes] = []
_pace = [0.0]
_leaking = threading.Lock()


@blueprint.post("/leak")
def leak() -> dict[str, float]:
    """From now on leak ?rate= megabytes a second; 0 gives everything back."""
    _pace[0] = float(request.args["rate"])
    if _pace[0]:
        threading.Thread(target=_drip, daemon=True).start()
    else:
        _leak.clear()
    return {"rate": _pace[0]}


def _drip() -> None:
    with _leaking:
        while _pace[0]:
            _leak.append(b"x" * int(_pace[0] * CHUNK * 1_000_000))
            threading.Event().wait(CHUNK)
        _leak.clear()


def create_app() -> Flask:
    """The shop with the drill's faults."""
    app = shop.create_app()
    app.register_blueprint(blueprint)
    return app
