"""The exporter watching itself: what fails inside it is counted, logged once a minute, and dropped."""

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
    "worker_file",
    "request_log",
    "scrape",
    "fold",
    "health",
)
LOG_INTERVAL = 60.0

logger = logging.getLogger("exporter")


class Failures:
    """Counts into `flask_exporter_failures_total{stage}`; its methods never raise."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self._family = Counter(
            "flask_exporter_failures",
            "Failures inside the exporter, by the stage in which they happened",
            ["stage"],
            registry=registry,
        )
        self._logged: dict[str, float] = {}
        self._pending: dict[str, int] = {}
        for stage in STAGES:
            self._family.labels(stage)

    def count(self, stage: str, error: BaseException, times: int = 1) -> None:
        """Count a failure. Where the counter itself cannot be written, it is counted with the next one."""
        self._pending[stage] = self._pending.get(stage, 0) + times
        with suppress(Exception):
            for waiting in list(self._pending):
                self._family.labels(waiting).inc(self._pending[waiting])
                del self._pending[waiting]
        now = time.monotonic()
        if now - self._logged.get(stage, -LOG_INTERVAL) < LOG_INTERVAL:
            return
        self._logged[stage] = now
        with suppress(Exception):  # a broken log handler must not reach the response
            logger.error("the exporter failed in %s; the request is not affected", stage, exc_info=error)
