"""Gunicorn's configuration: run `gunicorn -c app/gunicorn.conf.py` in the top folder of the repository."""

import os

# The hooks manage the workers' metric files; gunicorn finds them by their names in this module.
from exporter.gunicorn import *  # noqa: F403


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise SystemExit(f"{name} is {text!r}: give a whole number from 1 on")
    return int(text)


wsgi_app = "app:create_app()"
bind = os.environ.get("APP_BIND", "127.0.0.1:8000")
workers = _number("WEB_CONCURRENCY", 2)
worker_class = "gthread"
threads = _number("APP_THREADS", 8)

graceful_timeout = 15  # seconds; the slowest answer takes 10
worker_tmp_dir = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108 -- a heartbeat must not wait for a disk
control_socket_disable = True  # gunicorn puts it under $HOME, where a container may not write
accesslog = None  # the exporter's request log says more
