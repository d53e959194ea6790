"""Servers: where each is given its application, which is instrumented there if it has no exporter."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

Change = Callable[[ModuleType], None]
"""Changes a module that has just been imported."""

# By module: the function, and its parameter, or "" where the function returns the application. Those of ASGI
# servers say that what they are given is not measured.
_GATES = {
    "a2wsgi.wsgi": [("WSGIMiddleware.__init__", "app")],
    "asgiref.wsgi": [("WsgiToAsgi.__init__", "wsgi_application")],
    "cheroot.wsgi": [("Server.__init__", "wsgi_app")],
    "gevent.pywsgi": [("WSGIServer.__init__", "application")],
    "granian.asgi": [("_callback_wrapper", "callback")],
    "granian.wsgi": [("_callback_wrapper", "callback")],
    "gunicorn.app.base": [("BaseApplication.wsgi", "")],
    "hypercorn.app_wrappers": [("WSGIWrapper.__init__", "app"), ("ASGIWrapper.__init__", "app")],
    "uvicorn.middleware.proxy_headers": [("ProxyHeadersMiddleware.__init__", "app")],
    "uvicorn.middleware.wsgi": [("_WSGIMiddleware.__init__", "app")],
    "waitress.server": [("create_server", "application")],
    # The first, because the second may get the application inside of Werkzeug's debugger.
    "werkzeug.serving": [("run_simple", "application"), ("BaseWSGIServer.__init__", "app")],
    "wsgiref.simple_server": [("WSGIServer.set_app", "application")],
}


def watch() -> None:
    """Instrument what a server is given in this process."""
    when_imported({module: partial(_gate, gates) for module, gates in _GATES.items()})


def when_imported(changes: Mapping[str, Change]) -> None:
    """Change modules as soon as they are imported."""
    sys.meta_path.insert(0, _Watcher(changes))


class _Watcher(MetaPathFinder):
    """Finds modules as Python does, and has some of them changed when they have been executed."""

    def __init__(self, changes: Mapping[str, Change]) -> None:
        self._changes = changes

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        change = self._changes.get(fullname)
        spec = None if change is None else PathFinder.find_spec(fullname, path, target)
        if change is not None and spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_change(module: ModuleType) -> None:
                execute(module)
                change(module)

            spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


def _gate(gates: Sequence[tuple[str, str]], module: ModuleType) -> None:
    for place, parameter in gates:
        owner: Any = module
        *parents, name = place.split(".")
        for parent in parents:
            owner = getattr(owner, parent, None)
        function = getattr(owner, name, None)
        if function is not None:  # a release may have no such function
            setattr(owner, name, result(function) if not parameter else _argument(function, parameter))


def result(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the application that it returns instrumented."""

    @wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        from exporter.auto import instrument

        return instrument(function(*args, **keywords))

    return call


def _argument(function: Callable[..., Any], parameter: str) -> Callable[..., Any]:
    """The function with the application in this parameter instrumented."""

    @wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        from exporter.auto import instrument

        bound = inspect.signature(function).bind(*args, **keywords)
        if parameter in bound.arguments:
            bound.arguments[parameter] = instrument(bound.arguments[parameter])
        return function(*bound.args, **bound.kwargs)

    return call
