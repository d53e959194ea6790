"""The tables of README.md and docs/ say what the repository has, no less and no more."""

import re
import subprocess
from pathlib import Path

import yaml

from tests.rig.places import ROOT
from tests.rig.readme import PAGES


def test_urls() -> None:
    """Each port that compose publishes has its line."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    published = {
        port.rpartition(":")[2] for part in compose["services"].values() for port in part.get("ports", ())
    }

    assert {f"<http://127.0.0.1:{port}>" for port in published} == {
        url for _, url, _ in PAGES["README.md"].table("Start")
    }


def test_dashboards() -> None:
    """Every dashboard but the one that leads to them."""
    files = (file.relative_to(ROOT) for file in (ROOT / "grafana/dashboards").glob("*/*.json"))
    linked = [
        match[1]
        for name, _ in PAGES["README.md"].table("What you see")
        if (match := re.search(r"\((.*)\)", name))
    ]

    assert sorted(linked) == sorted(map(str, files))


def test_layout() -> None:
    """Every directory at the top that is in the repository."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    directories = {
        f"{Path(name).parts[0]}/" for name in tracked.splitlines() if "/" in name and name[0] != "."
    }
    documented = {path for path, _ in PAGES["docs/contributing.md"].table("Layout")}

    assert {path for path in documented if path.endswith("/")} == directories
    assert all((ROOT / path).exists() for path in documented)
