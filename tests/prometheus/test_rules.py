"""The configurations load, and every rule does what its tests in tests/rules/ say."""

import re
import subprocess
from pathlib import Path

import pytest

from prometheus.slo import objectives, rules
from prometheus.slo import ruletests as slo_tests
from prometheus.tools.toolbox import executable
from tests.rig import ruletests
from tests.rig.places import ROOT

PROMETHEUS = ROOT / "prometheus"


def run(tool: str, *arguments: object) -> str:
    """Output of a program of `.tools/`, which must succeed."""
    answer = subprocess.run(
        [executable(tool), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.mark.parametrize("name", ruletests.FILES)
def test_rules_do_what_their_tests_say(tmp_path: Path, name: str) -> None:
    """Recorded values are exact; alerts fire when they should, with these annotations, and not before."""
    ruletests.check(ruletests.load(name), PROMETHEUS / "rules", tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("file", ruletests.FILES.values(), ids=ruletests.FILES)
def test_no_rule_disturbs_the_tests_of_others(file: Path) -> None:
    """The files of tests pass as they are, with all rules in each test."""
    run("promtool", "test", "rules", file)


def test_every_rule_file_has_tests() -> None:
    """A rule file without a file of tests is a mistake."""
    files = {file.name for file in (PROMETHEUS / "rules").glob("*.yml")}

    assert files <= {file.name for file in (ROOT / "tests/rules").glob("*.yml")}


@pytest.mark.parametrize("pattern", ["prometheus/rules/*.yml", "grafana/dashboards/**/*.json"])
def test_victoriametrics_knows_every_function(pattern: str) -> None:
    """vmalert refuses a whole file for one function of native histograms that MetricsQL does not have."""
    text = "".join(file.read_text(encoding="utf-8") for file in ROOT.glob(pattern))

    assert set(re.findall(r"\bhistogram_\w+(?=\()", text)) == {"histogram_quantile"}


def test_alertmanager_takes_the_default_configuration() -> None:
    """Without any receiver or secret, Alertmanager's configuration is valid as it is in the repository."""
    run("amtool", "check-config", PROMETHEUS / "alertmanager/alertmanager.yml")


def test_slo_rules_are_current() -> None:
    """rules/slo.yml and its tests are what `make rules` makes of slo.yml."""
    promises = objectives.load(PROMETHEUS / "slo.yml")

    assert rules.rules(promises) == (PROMETHEUS / "rules/slo.yml").read_text()
    assert slo_tests.tests(promises) == (ROOT / "tests/rules/slo.yml").read_text()
    assert slo_tests.window_tests(promises) == (ROOT / "tests/rules/slo-windows.yml").read_text()


def test_own_objectives_make_rules_that_pass_their_tests(tmp_path: Path) -> None:
    """A service's own objective replaces the general one there, and an endpoint can have one of its own."""
    given = (PROMETHEUS / "slo.yml").read_text().replace("  # - {slo", "  - {slo")
    (tmp_path / "slo.yml").write_text(given)
    promises = objectives.load(tmp_path / "slo.yml")
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/slo.yml").write_text(rules.rules(promises))
    document = ruletests.parse(slo_tests.tests(promises))
    # The others are those of the test above.
    own = [test for test in document["tests"] if 'service="orders"' in str(test)]

    assert [objective.services for objective in promises.objectives] == [
        'service!~"orders"',
        "",
        "",
        'service="orders"',
        'service="orders", url_rule="/orders"',
    ]
    run("promtool", "check", "rules", tmp_path / "rules/slo.yml")
    assert len(own) == 2 * (
        len(promises.burns) + 2
    )  # each objective has tests of its events and of its burst
    ruletests.check({**document, "tests": own}, tmp_path / "rules", tmp_path)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ("percent: 99.9", "percent: 100"),
        ("within: 0.5", "within: -1"),
        ("within: 0.5", "within: 0.3"),
        ("within: 0.5", "url_rule: /orders"),
        ("long: 1h", "long: 4m"),
        ("period: 30d", "period: a month"),
        ("severity: critical", "severity: page"),
        ("slo: errors", "slo: Errors!"),
        ("slo: latency, percent: 95, within: 0.5", "slo: errors, percent: 99"),
    ],
)
def test_objectives_that_make_no_sense_are_refused(tmp_path: Path, wrong: str, complaint: str) -> None:
    """The message names the file and the value."""
    file = tmp_path / "slo.yml"
    file.write_text((PROMETHEUS / "slo.yml").read_text().replace(wrong, complaint, 1))

    with pytest.raises(
        objectives.SloError, match=r"slo.yml: .*" + re.escape(complaint.split(": ")[1].split(",")[0])
    ):
        objectives.load(file)
