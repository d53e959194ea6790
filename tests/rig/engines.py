"""Programs that scrape, store and evaluate, each on a free port and in a directory of its own."""

from __future__ import annotations

import json
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from prometheus.tools.toolbox import MissingToolError, executable
from tests.rig.deadline import eventually
from tests.rig.network import free_ports
from tests.rig.places import ROOT
from tests.rig.program import Program

Labels = dict[str, str]
"""What tells series of one answer apart."""


def ask(api: str, path: str, **parameters: object) -> Any:
    """The data of an answer of Prometheus' API; an error is an AssertionError with its reason."""
    body = urllib.parse.urlencode(parameters).encode()
    try:
        with urllib.request.urlopen(f"{api}/api/v1/{path}", body, timeout=30) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error


class Engine(Program):
    """A running program that answers at `url`; its API begins at `api`.

    Asked for `flush` it shows what it has taken, which would else take some seconds.
    """

    def __init__(
        self,
        command: Sequence[object],
        directory: Path,
        port: int,
        api: str = "",
        *,
        flush: str = "",
        **environ: str,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        log = directory / f"log-{port}"
        super().__init__([str(part) for part in command], log, {**os.environ, **environ}, directory)
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.api = f"{self.url}{api}"
        self._flush = flush

    def ready(self, path: str) -> None:
        """Wait until `path` answers 200."""

        def answers() -> bool:
            assert self.process.poll() is None, self.text()
            try:
                with urllib.request.urlopen(f"{self.url}{path}", timeout=5) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        eventually(answers, f"{self.process.args!r} answers {path}", 60)

    def ask(self, path: str, **parameters: object) -> Any:
        """The data of an answer of the API."""
        return ask(self.api, path, **parameters)

    def value(self, promql: str, **parameters: object) -> float | None:
        """The value of the one series of an instant query, or None."""
        result = self.ask("query", query=promql, **parameters)["result"]
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None

    def samples(self, selector: str) -> list[tuple[Labels, list[tuple[float, float]]]]:
        """Every stored sample of the last hour, as (time, value), of each series."""
        if self._flush:
            urllib.request.urlopen(f"{self.url}{self._flush}", timeout=30).close()
        result = self.ask("query", query=f"{selector}[1h]")["result"]
        return [
            (series["metric"], [(float(time), float(value)) for time, value in series["values"]])
            for series in result
        ]


def needed(name: str) -> Path:
    """The program in `.tools/`. Where all has to be tested its absence is an error."""
    try:
        return executable(name)
    except MissingToolError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"NOT TESTED: {error}")


def on_path(*names: str) -> list[str]:
    """The programs on the PATH; without them the test is skipped, since no package has them."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        pytest.skip(f"NOT TESTED: no {', '.join(missing)} on the PATH (see prometheus/scale.md)")
    return [str(shutil.which(name)) for name in names]


def prometheus(directory: Path, configuration: str, *flags: str, port: int = 0, **environ: str) -> Engine:
    """A Prometheus with this configuration, as start.sh starts it; an agent with the flag `--agent`."""
    shipped = directory / "shipped"
    (shipped / "rules").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "prometheus/start.sh", shipped)
    (shipped / "prometheus.yml").write_text(configuration, encoding="utf-8")
    (shipped / "rules/none.yml").write_text("groups: []\n", encoding="utf-8")
    port = port or free_ports(1)[0]
    data = "--storage.agent.path" if "--agent" in flags else "--storage.tsdb.path"
    engine = Engine(
        [
            *("sh", shipped / "start.sh", executable("prometheus")),
            f"--config.file={directory}/copy/prometheus.yml",
            f"{data}={directory}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            *flags,
        ],
        directory,
        port,
        **environ,
    )
    engine.ready("/-/ready")
    return engine


def victoriametrics(directory: Path, *flags: str, port: int = 0) -> Engine:
    """A VictoriaMetrics of one process, which shows a sample as soon as it has it."""
    port = port or free_ports(1)[0]
    engine = Engine(
        [
            needed("victoria-metrics"),
            f"-storageDataPath={directory}/data",
            f"-httpListenAddr=127.0.0.1:{port}",
            "-retentionPeriod=35d",
            "-search.latencyOffset=0s",
            "-http.maxGracefulShutdownDuration=1s",  # else 7 s for idle connections
            *flags,
        ],
        directory,
        port,
        flush="/internal/force_flush",
    )
    engine.ready("/health")
    return engine


def vmagent(directory: Path, configuration: Path, receiver: str, *flags: str, port: int = 0) -> Engine:
    """A vmagent that scrapes what a prometheus.yml says."""
    port = port or free_ports(1)[0]
    engine = Engine(
        [
            needed("vmagent"),
            f"-promscrape.config={configuration}",
            "-promscrape.config.strictParse=false",
            f"-remoteWrite.url={receiver}",
            f"-remoteWrite.tmpDataPath={directory}/data",
            "-remoteWrite.flushInterval=1s",
            f"-httpListenAddr=127.0.0.1:{port}",
            *flags,
        ],
        directory,
        port,
    )
    engine.ready("/health")
    return engine


def metric(engine: Engine, name: str) -> float:
    """The sum of a metric that the program tells of itself."""
    with urllib.request.urlopen(f"{engine.url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)
