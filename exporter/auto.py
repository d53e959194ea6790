"""Instruments an application that knows nothing of this package; one that has an exporter is left alone."""

from __future__ import annotations

import inspect
import sys
from itertools import chain
from typing import Any

from click import ClickException
from prometheus_client import REGISTRY

from exporter.settings import Settings
from exporter.worker.failures import logger


def instrument(application: Any) -> Any:
    """The application to serve in the place of this one, which may be the same.

    Raises SettingsError or TokenError if an `EXPORTER_*` variable cannot be used; whatever else fails leaves
    the application as it is.
    """
    settings = Settings.load()
    if not settings.auto or _has_exporter(application, settings.prefix):
        return application
    if _is_asgi(application):
        logger.warning("%r is an ASGI application, so it is not measured: only WSGI ones are", application)
        return application
    try:
        return _instrument(application)
    except ClickException:  # a setting or a token that cannot be used
        raise
    except Exception:
        logger.exception(
            "%r cannot be measured without a change of its code; it is served as it is", application
        )
        return application


def _instrument(application: Any) -> Any:
    flask: Any = sys.modules.get("flask")
    if flask is not None and isinstance(application, flask.Flask):
        from exporter.extension import FlaskExporter

        FlaskExporter(application)
        return application
    from exporter.wsgi import WSGIExporter

    return WSGIExporter(application)


def is_measured() -> bool:
    """Whether this process has an exporter of ours."""
    core: Any = sys.modules.get("exporter.core")
    return core is not None and len(core.cores) > 0


def _has_exporter(application: Any, prefix: str) -> bool:
    """Whether this process has an exporter of ours, or the application one of prometheus_flask_exporter's."""
    if is_measured():
        return True
    # Those for several workers have registries, and any of them may have a prefix, of their own.
    hooks = chain.from_iterable(getattr(application, "before_request_funcs", {}).values())
    if any(getattr(hook, "__module__", "") == "prometheus_flask_exporter" for hook in hooks):
        return True
    return any(REGISTRY.restricted_registry([f"{prefix}_exporter_info"]).collect())


def _is_asgi(application: Any) -> bool:
    return any(map(inspect.iscoroutinefunction, (application, type(application).__call__)))
