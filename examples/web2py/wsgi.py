"""web2py for a WSGI server, with this folder as its place: `gunicorn wsgi:application`."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [os.environ.get("WEB2PY", ""), str(HERE)]
os.chdir(HERE)
if not (HERE / "VERSION").exists():  # web2py wants one; the package on PyPI comes without
    (HERE / "VERSION").write_text("Version 2.26.1-stable+timestamp.2023.11.23.00.00.00\n")

from gluon.main import wsgibase  # noqa: E402

from exporter.wsgi import WSGIExporter  # noqa: E402

application = WSGIExporter(wsgibase)
