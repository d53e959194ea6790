"""The state of one Flask application, which is kept under `app.extensions["flask_exporter"]`."""

from __future__ import annotations

from dataclasses import dataclass

from flask import Flask

from exporter.measure.exceptions import ErrorWatch
from exporter.pages.endpoints import OwnEndpoints
from exporter.parent import Parent

KEY = "flask_exporter"


@dataclass(slots=True)
class State:
    """One application's exporter, endpoints and hooks."""

    endpoints: OwnEndpoints
    exporter: Parent | None = None
    """None before `init_app`."""
    exceptions: ErrorWatch | None = None
    """None where the requests of the application are not measured."""

    @classmethod
    def of(cls, app: Flask) -> State:
        """The state of this application, created at the first call. Raises TypeError for anything else."""
        if not isinstance(app, Flask):
            raise TypeError(
                f"{app!r} cannot be measured: give FlaskExporter, init_app and export_defaults the Flask "
                "application itself, not a Blueprint of it or what is wrapped around it"
            )
        if KEY not in app.extensions:
            app.extensions[KEY] = cls(OwnEndpoints(app.url_map))
        state: State = app.extensions[KEY]
        return state
