"""A Prometheus of a test's own, with the shipped rules, that scrapes what it is told."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from prometheus.run import dialect
from prometheus.tools.toolbox import executable
from tests.rig.network import free_ports, get_json
from tests.rig.places import ROOT
from tests.rig.program import Program


class Scraper:
    """A running Prometheus."""

    def __init__(self, program: Program, address: str) -> None:
        self.program = program
        self.address = address

    def value(self, expression: str) -> float:
        """The value of a query that has one series; 0 where it has none."""
        result = get_json(f"{self.address}/api/v1/query?query={quote(expression)}")["data"]["result"]
        return float(result[0]["value"][1]) if result else 0.0

    def count(self, names: str) -> int:
        """How many series have a name that matches, and a sample within the last five minutes."""
        return int(self.value(f'count({{__name__=~"{names}"}})'))

    def status(self) -> dict[str, Any]:
        """What it says of its series in memory."""
        document: dict[str, Any] = get_json(f"{self.address}/api/v1/status/tsdb")["data"]["headStats"]
        return document


@contextmanager
def scraper(
    directory: Path, targets: Sequence[dict[str, Any]], seconds: float, *, minute: float = 60.0
) -> Iterator[Scraper]:
    """Scrape these groups of the job app at this interval, and evaluate the rules.

    Groups of rules with an interval of a minute are evaluated every `minute` seconds.
    """
    configuration = directory / "configuration"
    shutil.copytree(ROOT / "prometheus/rules", configuration / "rules")
    for file in (configuration / "rules").glob("*.yml"):
        file.write_text(file.read_text().replace("interval: 1m\n", f"interval: {minute * 1000:.0f}ms\n"))
    document = dialect.translate(yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text()))
    pace = f"{seconds * 1000:.0f}ms"
    document["global"] |= dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), pace)
    document["scrape_configs"] = [job for job in document["scrape_configs"] if job["job_name"] == "app"]
    del document["alerting"]
    (configuration / "prometheus.yml").write_text(yaml.safe_dump(document))
    (configuration / "targets").mkdir()
    (configuration / "targets/app.yml").write_text(yaml.safe_dump(list(targets)))
    (port,) = free_ports(1)
    command = [
        str(executable("prometheus")),
        f"--config.file={configuration}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
        f"--enable-feature={dialect.features()}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with Program(command, directory / "prometheus.log", {}) as program:
        program.await_text("Server is ready to receive web requests")
        yield Scraper(program, f"http://127.0.0.1:{port}")
