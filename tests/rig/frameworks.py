"""The same service in each framework, as modules that know nothing of the exporter."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

APART = Path(sys.prefix, "frameworks")
"""What `make test` has installed apart, because it cannot live beside the tools of the tests."""

needs_apart = pytest.mark.skipif(not APART.is_dir(), reason=f"NOT TESTED: make test installs it into {APART}")
needs_imp = pytest.mark.skipif(
    sys.version_info >= (3, 12),
    reason="NOT TESTED: web2py imports imp, which Python has no longer from 3.12 on",
)


def import_path(directory: Path) -> str:
    """The PYTHONPATH of a service in `directory`, with the old releases of `make matrix`."""
    return os.pathsep.join([str(directory), *filter(None, [os.environ.get("PYTHONPATH")]), str(APART)])


BARE = """
import logging

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/orders/"):
        logging.getLogger("shop").warning("order %s", path.rpartition("/")[2])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"an order"]
    if path == "/boom":
        raise ValueError("bug")
    start_response("404 Not Found", [("Content-Type", "text/plain")])
    return [b"nothing here"]
"""

DJANGO = """
import logging
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="secret")

def show(request, number):
    logging.getLogger("shop").warning("order %s", number)
    return HttpResponse("an order")

def boom(request):
    raise ValueError("bug")

def mine(request):
    return HttpResponse("mine")

urlpatterns = [
    path("orders/<int:number>", show, name="show"),
    path("boom", boom, name="boom"),
    path("monitoring/endpoints", mine),
]
app = get_wsgi_application()
"""

BOTTLE = """
import logging
import bottle

app = bottle.Bottle()

@app.get("/orders/<number:int>")
def show(number):
    logging.getLogger("shop").warning("order %s", number)
    return "an order"

@app.get("/boom")
def boom():
    raise ValueError("bug")

@app.get("/monitoring/endpoints")
def mine():
    return "mine"
"""

PYRAMID = """
import logging
from pyramid.config import Configurator
from pyramid.response import Response

def show(request):
    logging.getLogger("shop").warning("order %s", request.matchdict["number"])
    return Response("an order")

def boom(request):
    raise ValueError("bug")

def mine(request):
    return Response("mine")

def polite(error, request):
    return Response("sorry", status=500)

config = Configurator()
config.add_route("show", "/orders/{number}")
config.add_view(show, route_name="show")
config.add_route("boom", "boom")
config.add_view(boom, route_name="boom")
config.add_route("mine", "monitoring/endpoints")
config.add_view(mine, route_name="mine")
config.add_exception_view(polite, context=ValueError)
app = config.make_wsgi_app()
"""

FALCON = """
import logging
import falcon

class Order:
    def on_get(self, request, response, number):
        logging.getLogger("shop").warning("order %s", number)
        response.text = "an order"

class Boom:
    def on_get(self, request, response):
        raise ValueError("bug")

class Mine:
    def on_get(self, request, response):
        response.text = "mine"

app = falcon.App()
app.add_route("/orders/{number}", Order())
app.add_route("/boom", Boom())
app.add_route("/monitoring/endpoints", Mine())
"""

# Each worker makes the files, and none may read half of one that another makes.
WRITE = """
import os

def write(path, text):
    with open(f"{path}.{os.getpid()}", "w") as file:
        file.write(text)
    os.replace(file.name, path)
"""

PY4WEB = f"""{WRITE}
os.makedirs("apps/shop", exist_ok=True)
os.makedirs("apps/.service", exist_ok=True)  # of two workers that find none, py4web stops one
write("apps/__init__.py", "")
write("apps/shop/__init__.py", '''
import logging
from py4web import action

@action("orders/<number:int>", method="GET")
def show(number):
    logging.getLogger("shop").warning("order %s", number)
    return "an order"

@action("boom")
def boom():
    raise ValueError("bug")

@action("monitoring/endpoints")
def mine():
    return "mine"
''')
from py4web.core import wsgi

app = wsgi(apps_folder="apps", yes=True, password_file="password", dashboard_mode="none")
"""

WEB2PY = f"""{WRITE}
for name in ("controllers", "models", "views", "languages", "errors", "sessions", "private", "cache"):
    os.makedirs("applications/shop/" + name, exist_ok=True)
write("applications/__init__.py", "")
# The package on PyPI has forgotten it.
write("VERSION", "Version 2.26.1-stable+timestamp.2023.11.23.00.00.00")
write("applications/shop/controllers/orders.py", '''
import logging

def show():
    logging.getLogger("shop").warning("order %s", request.args(0))
    return "an order"

def boom():
    raise ValueError("bug")

def sorry():
    return "sorry: " + request.vars.ticket
''')
write("routes.py", "routes_onerror = [('shop/500', '/shop/orders/sorry')]")
from gluon.main import wsgibase as app
"""


@dataclass(frozen=True, slots=True)
class Service:
    """A service, and what is to be known of it."""

    source: str
    order: str
    """The path of orders, without the number."""
    rule: str
    """The rule of orders."""
    endpoint: str = "show"
    """The name of what answers orders."""
    boom: str = "/boom"
    """The path, and the rule, of what raises a ValueError."""
    nothing: str = "/nothing"
    """What there is no route for."""
    monitoring: str = "/monitoring"
    """Where the exporter's figures are."""
    mine: bool = True
    """Whether the service has a page of its own in the place of one of those."""


CONDITIONS = {"py4web": needs_apart, "web2py": needs_imp}
"""What a framework needs to be tested."""

SERVICES = {
    "bare": Service(BARE, "/orders/", "/orders/<id>", "", mine=False),
    "django": Service(DJANGO, "/orders/", "/orders/<int:number>"),
    "bottle": Service(BOTTLE, "/orders/", "/orders/<number:int>"),
    "pyramid": Service(PYRAMID, "/orders/", "/orders/{number}"),
    "falcon": Service(FALCON, "/orders/", "/orders/{number}", "Order"),
    "py4web": Service(
        PY4WEB,
        "/shop/orders/",
        "/shop/orders/<number:int>",
        boom="/shop/boom",
        nothing="/shop/nothing",
        monitoring="/shop/monitoring",
    ),
    "web2py": Service(
        WEB2PY,
        "/shop/orders/show/",
        "/shop/orders/show",
        "orders.show",
        boom="/shop/orders/boom",
        nothing="/shop/orders/nothing",
        mine=False,  # nobody can ask web2py whether it has one
    ),
}
