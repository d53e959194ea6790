"""What the tests in prometheus_flask_exporter's source distribution expect beside them, and do not ship.

`PARENT_SUITE_CLASS` says which class is under test: `parent` or `ours`.
"""

from __future__ import annotations

import os
import re
import unittest
from importlib.metadata import version as version_of
from itertools import count
from time import monotonic
from typing import Any

import flask
import prometheus_flask_exporter
from packaging.version import Version
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

# The suite counts requests under 0.1 s, which a busy machine does not promise: each look is 1 µs later here.
clock = count(monotonic(), 1e-6).__next__
prometheus_flask_exporter.default_timer = clock
if os.environ["PARENT_SUITE_CLASS"] == "ours":
    from exporter import FlaskExporter
    from exporter.measure import exchange, middleware

    for module in (exchange, middleware):
        vars(module)["perf_counter"] = clock

    class GroupedByPath(FlaskExporter):
        """The parent groups by path, and its tests rely on it."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.setdefault("group_by", "path")
            super().__init__(*args, **kwargs)

    prometheus_flask_exporter.PrometheusMetrics = GroupedByPath  # before the test modules import it


class BaseTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.app = flask.Flask(__name__)
        self.app.testing = True
        self.client = self.app.test_client()

    def metrics(self, **kwargs: Any) -> Any:
        registry = kwargs.pop("registry", CollectorRegistry(auto_describe=True))
        return prometheus_flask_exporter.PrometheusMetrics(self.app, registry=registry, **kwargs)

    def assertMetric(  # noqa: N802  the suite's name
        self, name: str, value: object, *labels: tuple[str, object], endpoint: str = "/metrics"
    ) -> None:
        found = self._values(name, labels, endpoint)
        assert len(found) == 1, f"{name} {labels}: {found}"
        assert re.search(str(value), str(found[0]))

    def assertAbsent(self, name: str, *labels: tuple[str, object], endpoint: str = "/metrics") -> None:  # noqa: N802
        assert self._values(name, labels, endpoint) == []

    def assumeMinimumFlaskVersion(self, version: str) -> None:  # noqa: N802
        if Version(version_of("flask")) < Version(version):
            self.skipTest(f"for Flask {version} and later")

    def assumeBeforeFlaskVersion(self, version: str) -> None:  # noqa: N802
        if Version(version_of("flask")) >= Version(version):
            self.skipTest(f"for Flask before {version}")

    def _values(self, name: str, labels: tuple[tuple[str, object], ...], endpoint: str) -> list[float]:
        wanted = {key: str(value) for key, value in labels}
        text = self.client.get(endpoint).text
        return [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and sample.labels == wanted
        ]
