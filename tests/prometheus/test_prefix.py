"""Rules and dashboards for metrics that do not begin with `flask_`."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from prometheus import prefix
from prometheus.tools.toolbox import executable
from tests.rig.places import ROOT

FOLDERS = ["prometheus/rules", "prometheus/runbooks", "tests/rules", "grafana/dashboards"]


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them for `web_`."""
    directory = tmp_path_factory.mktemp("web")
    prefix.write("web", FOLDERS, directory)
    return directory


def test_no_name_begins_with_flask_any_more(web: Path) -> None:
    """And every one that did begins with web."""
    for file in (file for folder in FOLDERS for file in (ROOT / folder).rglob("*.*")):
        text, copy = file.read_text(), (web / file.relative_to(ROOT)).read_text()

        assert re.findall(r"flask_\w+", copy) == []
        assert len(re.findall(r"\bweb_\w+", copy)) == len(re.findall(r"flask_\w+", text))


@pytest.mark.parametrize("file", ["requests", "monitoring-edges"])
def test_the_rules_do_what_their_tests_say(web: Path, file: str) -> None:
    rules = sorted(map(str, (web / "prometheus/rules").glob("*.yml")))
    for command in (["check", "rules", *rules], ["test", "rules", str(web / f"tests/rules/{file}.yml")]):
        done = subprocess.run(
            [executable("promtool"), *command], capture_output=True, text=True, check=False, timeout=120
        )

        assert done.returncode == 0, done.stdout + done.stderr


def test_dashboards_are_the_same_but_for_the_names(web: Path) -> None:
    for file in (ROOT / "grafana/dashboards").rglob("*.json"):
        copy = json.loads((web / file.relative_to(ROOT)).read_text())

        assert copy["uid"] == json.loads(file.read_text())["uid"]


def test_a_prefix_that_no_name_can_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert prefix.main("we-b", "prometheus/rules") == 1
    assert capsys.readouterr().err == "PREFIX=we-b: give small letters, digits and '_', such as web\n"
