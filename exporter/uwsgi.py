"""uWSGI: prepares the worker directory in the master, and measures the application. In uWSGI's configuration:

    master = true
    enable-threads = true
    shared-import = exporter.uwsgi

PROMETHEUS_MULTIPROC_DIR has to be set before uWSGI starts: an `env` in its configuration comes too late for
pyuwsgi, whose Python is running by then. uWSGI tells nobody of a worker's end, so the next scrape folds the
files of the dead, and the cause of a death is `unknown`. An application that `module` or `mount` names is
measured if it has no exporter; one in a `wsgi-file` cannot be reached.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from types import ModuleType

import uwsgi  # type: ignore[import-untyped]

from exporter import prefork
from exporter.servers import result, when_imported


def _applications() -> Iterator[tuple[str, str]]:
    """Module and name of each application that uWSGI has been told to load."""
    name = uwsgi.opt.get("callable", b"application")
    for option in ("module", "wsgi", "mount"):
        values = uwsgi.opt.get(option, [])
        for value in values if isinstance(values, list) else [values]:
            module, _, own_name = value.decode().rpartition("=")[2].partition(":")
            yield module, own_name or name.decode()


def _instrument(name: str, module: ModuleType) -> None:
    from exporter.auto import instrument

    factory = name.removesuffix("()")
    application = getattr(module, factory, None)
    if application is not None:  # uWSGI says what is not there
        setattr(module, factory, instrument(application) if factory == name else result(application))


# The master imports this before it forks, and before an application, which `lazy-apps` loads in each worker.
if uwsgi.worker_id() == 0:
    try:
        prefork.start(uwsgi.numproc)
    except RuntimeError as error:  # uWSGI would print any other exception and go on
        sys.exit(f"exporter.uwsgi: {error}")
    from exporter.worker.failures import logger
    from exporter.worker.worker import serve_with

    serve_with(uwsgi.cores)
    if {"wsgi-file", "file"} & uwsgi.opt.keys():
        logger.warning(
            "An application in a wsgi-file is measured only if it has an exporter: name its `module` instead"
        )
    when_imported({module: partial(_instrument, name) for module, name in _applications()})
