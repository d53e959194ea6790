"""Facts about the exporter and about the application that it observes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class Facts(Collector):
    """The application's version, the exporter's mode, and the number of its files."""

    def __init__(
        self,
        app_version: str,
        worker_files: Callable[[], Mapping[str, int]] | None,
        prefix: str = "flask_",
    ) -> None:
        """`worker_files` counts the worker files by state; None in single-process mode."""
        self._app_version = app_version
        self._worker_files = worker_files
        self._prefix = prefix

    def describe(self) -> Iterable[Metric]:
        """The families, without samples."""
        return self._families()

    def collect(self) -> Iterable[Metric]:
        """The families as they are now."""
        version, mode, files = families = self._families()
        version.add_metric([self._app_version], 1)
        mode.add_metric(["multiprocess" if self._worker_files else "single"], 1)
        counts = self._worker_files() if self._worker_files else {}
        for state in ("live", "archive", "corrupt"):
            files.add_metric([state], counts.get(state, 0))
        return families

    def _families(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
        prefix = self._prefix
        return (
            GaugeMetricFamily(
                f"{prefix}app_info", "The observed application's own version", labels=["version"]
            ),
            GaugeMetricFamily(
                f"{prefix}exporter_mode", "Whether one process or several serve", labels=["mode"]
            ),
            GaugeMetricFamily(
                f"{prefix}exporter_worker_files", "Files in the worker directory", labels=["state"]
            ),
        )
