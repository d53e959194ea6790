"""The plan of a run: environment variables become one validated, frozen object."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]

# The address of each part in compose and in the target files → the setting of its port here.
PORTS = {
    "app:8000": "APP_PORT",
    "prometheus:9090": "PROMETHEUS_PORT",
    "alertmanager:9093": "ALERTMANAGER_PORT",
    "blackbox:9115": "BLACKBOX_PORT",
    "node-exporter:9100": "NODE_PORT",
    "grafana:3000": "GRAFANA_PORT",
}

# Settings of the parts, with their lowest and highest value, and whether the value is whole. A part would log
# a wrong value in its own file only.
PART_SETTINGS = {
    "WEB_CONCURRENCY": (1, 1000, True),
    "APP_THREADS": (1, 1000, True),
    "TRAFFIC_ERROR_RATIO": (0, 1, False),
}


class PlanError(Exception):
    """The stack cannot start like this; the message names the culprit and the remedy in one line."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan: `ports` by part, the directory `run` of all output, and `targets`, that of the target files.

    `scale` divides every duration of the rules; `users` is the number of simulated customers.
    """

    ports: Mapping[str, int]
    run: Path
    targets: Path
    scale: float
    users: int

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ) -> "Plan":
        """Read the ports, RUN_DIR, TARGETS_DIR, TIME_SCALE and TRAFFIC_USERS, and check `PART_SETTINGS`.

        Raises:
            PlanError: a value is malformed, or two parts have the same port.
        """
        for setting, (low, high, whole) in PART_SETTINGS.items():
            _number(environ, setting, f"{low:g}", low, high, whole=whole)
        offset = int(_number(environ, "PORT_OFFSET", "0", 0, 50000, whole=True))
        ports: dict[str, int] = {}
        for address, setting in PORTS.items():
            part, _, default = address.partition(":")
            port = int(_number(environ, setting, str(int(default) + offset), 1, 65535, whole=True))
            if port in ports.values():
                other = next(PORTS[key] for key in PORTS if ports.get(key.partition(":")[0]) == port)
                raise PlanError(f"{setting} and {other} are both {port}: give each its own port")
            ports[part] = port
        return cls(
            ports=ports,
            run=Path(environ.get("RUN_DIR") or TOP / ".run").absolute(),
            targets=Path(environ.get("TARGETS_DIR") or TOP / "prometheus/targets").absolute(),
            scale=_number(environ, "TIME_SCALE", "1", 1, 300),
            users=int(_number(environ, "TRAFFIC_USERS", "5", 0, 1000, whole=True)),
        )

    def local(self, part: str) -> str:
        """The address of a part on this machine, `127.0.0.1:port`."""
        return f"127.0.0.1:{self.ports[part]}"

    def url(self, part: str) -> str:
        """The URL of a part on this machine, without a path."""
        return f"http://{self.local(part)}"

    @property
    def configuration(self) -> Path:
        """The directory of this run's configuration: a copy of the shipped one, with this run's addresses."""
        return self.run / "configuration"

    @property
    def alertmanager(self) -> Path:
        """The configuration file of Alertmanager, with this run's receiver."""
        return self.run / "alertmanager.yml"

    @property
    def logs(self) -> Path:
        """The directory with one log file for each part."""
        return self.run / "logs"

    def data(self, part: str) -> Path:
        """The directory for the data of a part that must survive a restart."""
        return self.run / "data" / part


def _number(
    environ: Mapping[str, str], setting: str, default: str, low: float, high: float, *, whole: bool = False
) -> float:
    text = environ.get(setting) or default
    try:
        number = float(int(text)) if whole else float(text)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        kind = "whole number" if whole else "number"
        raise PlanError(f"{setting}={text!r}: give a {kind} from {low:g} to {high:g}")
    return number
