"""Failures inside the exporter are counted, logged once a minute, and dropped."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter

STAGES = (
    "middleware",
    "labels",
    "instruments",
    "slots",
    "recent",
    "deaths",
    "slow",
    "worker_file",
    "error_groups",
    "request_log",
    "scrape",
    "fold",
    "health",
)
LOG_INTERVAL = 60.0

logger = logging.getLogger("exporter")


class Failures:
    """Counts into `…_exporter_failures_total{stage}`; its methods never raise."""

    def __init__(self, registry: CollectorRegistry | None, prefix: str = "flask_") -> None:
        self._family = Counter(
            f"{prefix}exporter_failures",
            "Failures inside the exporter, by the stage in which they happened",
            ["stage"],
            registry=registry,
        )
        self._log_times: dict[str, float] = {}
        self._backlog: dict[str, int] = {}
        for stage in STAGES:
            self._family.labels(stage)

    def count(self, stage: str, error: BaseException, times: int = 1) -> None:
        """Count a failure; if the counter cannot be written, count it with the next failure."""
        self._backlog[stage] = self._backlog.get(stage, 0) + times
        with suppress(Exception):
            for name in list(self._backlog):
                self._family.labels(name).inc(self._backlog[name])
                del self._backlog[name]
        now = time.monotonic()
        if now - self._log_times.get(stage, -LOG_INTERVAL) < LOG_INTERVAL:
            return
        self._log_times[stage] = now
        with suppress(Exception):  # a broken log handler must not reach the response
            logger.error("the exporter failed in %s; the request is not affected", stage, exc_info=error)
