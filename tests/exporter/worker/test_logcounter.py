"""Log records are counted by level, and nobody's logging is the worse for it."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry

from exporter import FlaskExporter
from exporter.worker.logcounter import level_name


def _counts(app: Flask) -> dict[str, float]:
    """The counts of the levels that have any, as a scrape sees them."""
    text = app.test_client().get("/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("flask_log_messages_total{")]
    counts = {line.split('"')[1]: float(line.split()[-1]) for line in lines}

    assert set(counts) == {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}
    return {level: count for level, count in counts.items() if count}


@pytest.fixture
def app() -> Flask:
    app = Flask("orders")
    FlaskExporter(app, registry=CollectorRegistry())
    return app


@pytest.fixture
def logger() -> logging.Logger:
    """One that nobody listens to."""
    logger = logging.getLogger("tests.logcounter")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


def test_each_record_counts_once_under_its_level(app: Flask, logger: logging.Logger) -> None:
    logger.info("one")
    for _ in range(3):
        logger.error("three")
    try:
        raise ValueError
    except ValueError:
        logger.exception("four")
    logger.critical("five")

    assert _counts(app) == {"INFO": 1.0, "ERROR": 4.0, "CRITICAL": 1.0}


def test_what_its_logger_drops_does_not_count(app: Flask, logger: logging.Logger) -> None:
    logger.debug("dropped")

    assert _counts(app) == {}


def test_custom_levels_make_no_series_of_their_own(app: Flask, logger: logging.Logger) -> None:
    for level in (21, 29, 35, 55, 1000):
        logger.log(level, "odd")

    assert _counts(app) == {"INFO": 2.0, "WARNING": 1.0, "CRITICAL": 2.0}
    assert level_name(0) == level_name(5) == "DEBUG"


def test_a_record_of_somebody_else_is_not_made_here(app: Flask) -> None:
    """`logging.makeLogRecord` rebuilds one that came over the network."""
    logging.makeLogRecord({"levelno": logging.ERROR})

    assert _counts(app) == {}


def test_several_exporters_all_count(app: Flask, logger: logging.Logger) -> None:
    second = Flask("stock")
    FlaskExporter(second, registry=CollectorRegistry())
    logger.warning("both")

    assert _counts(app) == _counts(second) == {"WARNING": 1.0}


def test_a_finalizer_may_log_while_its_thread_holds_the_lock(app: Flask, logger: logging.Logger) -> None:
    """The collector runs finalizers anywhere: a count that waits for a lock may wait for ever."""
    exporter = app.extensions["flask_exporter"].exporter
    with exporter.core.worker.lock, exporter.core.worker.log_messages._lock:
        logger.error("from a finalizer")

    assert _counts(app) == {"ERROR": 1.0}


def test_the_host_s_own_logging_is_as_it_was() -> None:
    """No handler: `basicConfig()`, Flask's default handler and the last resort all still work."""
    program = """
import logging
from flask import Flask
from exporter import FlaskExporter

app = Flask("orders")
FlaskExporter(app)
logging.getLogger("stock").warning("by the last resort")
app.logger.error("by flask")
logging.basicConfig(format="%(message)s")
logging.getLogger("stock").warning("by basicConfig")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    lines = done.stderr.splitlines()

    assert lines[0] == "by the last resort"
    assert lines[1].endswith("ERROR in <string>: by flask")
    assert lines[2:] == ["by basicConfig"]


def test_exporters_that_come_after_the_last_one_count_once() -> None:
    """In a process whose first exporter is its only one for a while, too."""
    program = """
import gc, logging
from flask import Flask
from prometheus_client import CollectorRegistry
from exporter import FlaskExporter

for _ in range(2):
    app = Flask("orders")
    FlaskExporter(app, registry=CollectorRegistry())
    logging.getLogger("stock").warning("once")
    lines = app.test_client().get("/metrics").text.splitlines()
    print(*[line for line in lines if line.startswith('flask_log_messages_total{level="WARNING"}')])
    del app
    gc.collect()
    gc.collect()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert done.stdout.splitlines() == ['flask_log_messages_total{level="WARNING"} 1.0'] * 2
