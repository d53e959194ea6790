"""Templates: routes of frameworks whose own objects are not like Werkzeug's, and of none."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from exporter.labels import UNMATCHED
from exporter.observation import EXCHANGE, Route

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

ROUTE = "exporter.route"
"""Where hooks of ours leave the match of a request in its environ."""

# Whatever is not a word, such as a number, a name with a digit or a hash, is somebody's choice.
_WORD = re.compile(r"[A-Za-z][A-Za-z._~-]{0,30}|v\d{1,2}").fullmatch
_DEPTH = 6


class Template(NamedTuple):
    """A route: the template of its paths, and the name of what answers."""

    rule: str
    endpoint: str = ""


NOWHERE = Template(UNMATCHED)
"""The route of a request that a framework has looked at and found none for."""


@lru_cache(1000)
def likely(path: str) -> Template:
    """The route that a path looks like, where no framework tells one: `/orders/<id>` for `/orders/7`."""
    first, *parts = path.split("/")
    parts = [part if not part or _WORD(part) else "<id>" for part in parts]
    if len(parts) > _DEPTH:
        parts[_DEPTH:] = ["<path>"]
    return Template("<id>" if first else "/".join(["", *parts]) or "/")


def note(environ: WSGIEnvironment, route: Route) -> None:
    """Leave the match in the environ of the observation, of which a mount may have made a copy."""
    exchange = environ.get(EXCHANGE)
    if exchange is not None and not exchange.recorded:
        exchange.environ[ROUTE] = route


def report(environ: WSGIEnvironment, error: BaseException | None) -> None:
    """Tell the request's observation, if it has one, what the framework is about to answer."""
    exchange = environ.get(EXCHANGE)
    if exchange is not None and error is not None:
        exchange.report(error)
