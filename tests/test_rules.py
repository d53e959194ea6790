"""The configurations load, and every rule does what its tests in tests/rules/ say."""

import subprocess
from pathlib import Path

import pytest

from prometheus.tools import executable

ROOT = Path(__file__).resolve().parent.parent
PROMETHEUS = ROOT / "prometheus"


def run(tool: str, *arguments: object) -> str:
    """Output of a program of `.tools/`, which must succeed."""
    answer = subprocess.run(
        [executable(tool), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def test_prometheus_takes_the_configuration() -> None:
    """Scrape jobs, target files and every rule file are valid."""
    run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")


@pytest.mark.parametrize("file", sorted((ROOT / "tests/rules").glob("*.yml")), ids=lambda file: file.stem)
def test_rules_do_what_their_tests_say(file: Path) -> None:
    """Recorded values are exact; alerts fire when they should, with these annotations, and not before."""
    run("promtool", "test", "rules", file)


def test_every_rule_file_has_tests() -> None:
    """A rule file without a file of tests is a mistake."""
    rules = {file.name for file in (PROMETHEUS / "rules").glob("*.yml")}

    assert rules == {file.name for file in (ROOT / "tests/rules").glob("*.yml")}


def test_alertmanager_takes_the_default_configuration() -> None:
    """Without any receiver or secret, Alertmanager's configuration is valid as it is in the repository."""
    run("amtool", "check-config", PROMETHEUS / "alertmanager/alertmanager.yml")
