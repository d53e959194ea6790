"""Frameworks: which of them run in this process, and what they tell of a request."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from exporter.labels import clean
from exporter.observation import Observation, Route
from exporter.routes.table import Finder
from exporter.routes.template import Template, likely

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

# What is imported where a framework runs, and the module of this package that knows it.
_MODULES = {
    "django.core.handlers.wsgi": "django",
    "flask.app": "flask",
    "bottle": "bottle",
    "pyramid.router": "pyramid",
    "falcon.app": "falcon",
    "ombott": "py4web",
    "gluon.main": "web2py",
}


class Framework(Protocol):
    """A module of this package."""

    def watch(self) -> None:
        """Hook into the framework, where it leaves no trace of its own; further calls do nothing."""

    def route(self, environ: WSGIEnvironment) -> Route | None:
        """The route that it has found, or `NOWHERE`; None for a request that it has not seen."""

    def finder(self, application: WSGIApplication) -> Finder | None:
        """The routing of an application, for requests that are not routed yet; None where nobody can ask."""


def frameworks() -> Iterator[Framework]:
    """The frameworks that have been imported."""
    for module, name in _MODULES.items():
        if module in sys.modules:
            framework: Any = import_module(f"exporter.routes.{name}")
            yield cast("Framework", framework)


class Frameworks:
    """Gives the labels of a WSGI application's requests."""

    by_rule = True

    def __init__(
        self, application: WSGIApplication, route: Callable[[WSGIEnvironment], str | None] | None
    ) -> None:
        """`route` takes the place of what the frameworks, or else the path, tell."""
        self.finders: list[Finder] = []
        """The routing of each framework that can be asked."""
        self._readers: list[Callable[[WSGIEnvironment], Route | None]] = []
        self._guess = _likely if route is None else _named(route)
        if route is None:
            for framework in frameworks():
                framework.watch()
                self._readers.append(framework.route)
                finder = framework.finder(application)
                if finder is not None:
                    self.finders.append(finder)

    def route(self, environ: WSGIEnvironment) -> Route | None:
        """The route of a request whose answer begins."""
        for read in self._readers:
            route = read(environ)
            if route is not None:
                return route
        return self._guess(environ)

    def resolve(self, observation: Observation, environ: WSGIEnvironment) -> None:
        """Fill in the route; one that nobody but the client may have made up is not the application's own."""
        for read in self._readers:
            route = read(environ)
            if route is not None:
                observation.matched = route
                return
        observation.own_group = False
        if observation.code != "404":
            observation.matched = self._guess(environ)


def _likely(environ: WSGIEnvironment) -> Route | None:
    return likely(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""))


def _named(
    route: Callable[[WSGIEnvironment], str | None],
) -> Callable[[WSGIEnvironment], Route | None]:
    def read(environ: WSGIEnvironment) -> Route | None:
        name = route(environ)
        return None if name is None else Template(clean(str(name)))

    return read
