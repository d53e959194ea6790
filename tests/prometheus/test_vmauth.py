"""One address for Grafana: what is kept comes from VictoriaMetrics, and runbooks come from Prometheus."""

import re
import urllib.request
from pathlib import Path

import pytest

from tests.rig import engines
from tests.rig.engines import Engine
from tests.rig.network import free_ports
from tests.rig.places import ROOT


@pytest.mark.parametrize("name", ["cluster", "longterm"])
def test_queries_and_runbooks(tmp_path: Path, name: str) -> None:
    """The dashboards' links lead to a runbook wherever the samples are, also with one of a pair gone."""
    runbooks = f"--web.user-assets={ROOT}/prometheus/runbooks"
    (gone, port) = free_ports(2)
    with (
        engines.prometheus(tmp_path / "prometheus", "global: {}\n", runbooks) as prometheus,
        engines.victoriametrics(tmp_path / "store") as store,
    ):
        text = (ROOT / f"prometheus/{name}/vmauth.yml").read_text(encoding="utf-8")
        text = re.sub(r"http://prometheus-2:9090", f"http://127.0.0.1:{gone}", text)
        text = re.sub(r"http://prometheus:9090", prometheus.url, text)
        text = re.sub(r"http://(vmselect|victoriametrics):[\w/]+", store.url, text)
        (tmp_path / "vmauth.yml").write_text(text, encoding="utf-8")
        command = [engines.needed("vmauth"), f"-auth.config={tmp_path}/vmauth.yml"]
        with Engine([*command, f"-httpListenAddr=127.0.0.1:{port}"], tmp_path, port) as entry:
            entry.ready("/health")
            for alert in ("FlaskTargetDown", "ProbeFailed"):
                with urllib.request.urlopen(f"{entry.url}/user/{alert}.md", timeout=10) as answer:
                    assert answer.read() == (ROOT / f"prometheus/runbooks/{alert}.md").read_bytes()
            assert entry.value("vector(42)") == 42
