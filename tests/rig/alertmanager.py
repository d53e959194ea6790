"""A real Alertmanager with the shipped configuration."""

import contextlib
import json
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from prometheus.run import scale
from prometheus.tools.toolbox import executable
from tests.rig.deadline import eventually
from tests.rig.network import free_ports
from tests.rig.places import ROOT


class Alertmanager:
    """Alertmanager as start.sh starts it, with the shipped configuration and its times divided by `factor`.

    It gossips with nobody, unless flags say with whom.
    """

    factor = 300.0

    def __init__(self, directory: Path, *gossip: str, **environ: str) -> None:
        shutil.copytree(ROOT / "prometheus/alertmanager", directory / "prometheus/alertmanager")
        scale.alertmanager(directory / "prometheus", self.factor)
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.path = directory / "alertmanager.log"
        """Its log."""
        self._log = self.path.open("w+")
        self._process = subprocess.Popen(
            [
                "sh",
                directory / "prometheus/alertmanager/start.sh",
                executable("alertmanager"),
                f"--config.file={directory}/alertmanager.yml",
                f"--storage.path={directory}/data",
                *(gossip or ("--cluster.listen-address=",)),
                "--enable-feature=receiver-name-in-metrics",
                f"--web.listen-address=127.0.0.1:{port}",
                f"--web.external-url={self.url}",
            ],
            env={**os.environ, **environ},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> "Alertmanager":
        eventually(self._ready, "Alertmanager is ready")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()

    def _ready(self) -> bool:
        assert self._process.poll() is None, self.log
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
            return True
        return False

    @property
    def log(self) -> str:
        """The text of the log."""
        self._log.seek(0)
        return self._log.read()

    def send(self, *alerts: dict[str, Any]) -> None:
        """Hand alerts over as Prometheus does."""
        request = urllib.request.Request(
            f"{self.url}/api/v2/alerts", json.dumps(alerts).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10):
            pass


def secret(directory: Path, text: str) -> str:
    """Path of a new secret file."""
    file = directory / "secret"
    file.write_text(text)
    return str(file)
