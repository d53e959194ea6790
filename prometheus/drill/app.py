"""The service under drill: the shipped app, with faults that no real shop should offer."""

import threading

from flask import Blueprint, Flask, request

import app as shop

blueprint = Blueprint("drill", __name__, url_prefix="/drill")

CHUNK = 0.25  # seconds between two pieces of a leak

_leak: list[bytes] = []
_pace = [0.0]
_lock = threading.Lock()


@blueprint.post("/leak")
def leak() -> dict[str, float]:
    """Leak ?rate= megabytes a second from now on; 0 releases everything."""
    _pace[0] = float(request.args["rate"])
    if _pace[0]:
        threading.Thread(target=_drip, daemon=True).start()
    else:
        _leak.clear()
    return {"rate": _pace[0]}


def _drip() -> None:
    with _lock:
        while _pace[0]:
            _leak.append(b"x" * int(_pace[0] * CHUNK * 1_000_000))
            threading.Event().wait(CHUNK)
        _leak.clear()


def create_app() -> Flask:
    """Return the shop with the drill's faults."""
    app = shop.create_app()
    app.register_blueprint(blueprint)
    return app
