"""The package installs beside others that want older releases of what it stands on, and counts there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.clients import drive
from tests.rig.deadline import eventually
from tests.rig.places import ROOT
from tests.rig.server import WORKER_IDS, serving

COUNT = 'flask_http_request_duration_seconds_count{method="GET",status="200",url_rule="/orders/<int:number>"}'


def _orders(_: int) -> Iterator[tuple[str, str, dict[str, str]]]:
    for number in range(50):
        yield "GET", f"/orders/{number}", {}


@pytest.mark.soak
@pytest.mark.parametrize(
    ("neighbour", "versions", "distribution", "release"),
    [("feast", "==0.67", "prometheus-client", "0.24."), ("flask", "<2.4", "flask", "2.3.")],
)
def test_counts_are_exact(
    tmp_path: Path, neighbour: str, versions: str, distribution: str, release: str
) -> None:
    """Two workers in an environment of their own, and a third in place of one that is killed."""
    scripts = f"{tmp_path}/venv/bin"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def python(*arguments: str) -> str:
        answer = subprocess.run(
            [f"{scripts}/python", *arguments],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert answer.returncode == 0, answer.stdout + answer.stderr
        return answer.stdout

    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python("-m", "pip", "install", "--quiet", ".", "gunicorn", neighbour + versions)
    python("-m", "pip", "check")
    version = python("-c", f"from importlib.metadata import version; print(version('{distribution}'))")
    assert version.startswith(release)

    # feast takes longer to import than a worker may take to answer.
    source = f"import {neighbour}\n{WORKER_IDS}"
    with serving(tmp_path, "--preload", source=source, workers=2, scripts=scripts, PYTHONPATH="") as master:
        assert drive(master.port, 4, _orders) == {("GET", 200): 200}
        assert master.samples()[COUNT] == 200.0

        worker = int(master.get("/orders/1").text)
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: master.text().count("Booting worker") == 3, "a new worker")
        assert drive(master.port, 4, _orders) == {("GET", 200): 200}

        assert master.samples()[COUNT] == 401.0
