"""uWSGI: prepares the worker directory in the master. In uWSGI's configuration:

    master = true
    enable-threads = true
    shared-import = exporter.uwsgi

PROMETHEUS_MULTIPROC_DIR has to be set before uWSGI starts: an `env` in its configuration comes too late for
pyuwsgi, whose Python is running by then. uWSGI tells nobody of a worker's end, so the next scrape folds the
files of the dead, and the cause of a death is `unknown`.
"""

from __future__ import annotations

import sys

import uwsgi  # type: ignore[import-untyped]

from exporter import prefork

# The master imports this before it forks; each worker of `lazy-apps` could do so again.
if uwsgi.worker_id() == 0:
    try:
        prefork.start(uwsgi.numproc)
    except RuntimeError as error:  # uWSGI would print any other exception and go on
        sys.exit(f"exporter.uwsgi: {error}")
    from exporter.worker.worker import serve_with

    serve_with(uwsgi.cores)
