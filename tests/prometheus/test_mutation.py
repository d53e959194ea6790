"""The tool that changes rules: what it changes, and that the rule tests notice it."""

from dataclasses import replace

import pytest
import yaml

from tests.mutation.__main__ import main, notices
from tests.mutation.mutants import changes, mutants
from tests.rig.places import ROOT


@pytest.mark.parametrize(
    ("promql", "changed"),
    [
        ("x > 0.5", ["x < 0.5", "x > 0.625", "x > 0.4"]),
        ("x == 0", ["x != 0", "x == 1"]),
        ("rate(x[5m])", ["rate(x[10m])", "rate(x[2m30s])"]),
        ('x{a="5m", b!~"c"}', ['x{a!="5m", b!~"c"}', 'x{a="5m", b=~"c"}']),
        ("sum without (a, b) (x5)", ["sum without (b) (x5)", "sum without (a) (x5)"]),
        ('label_replace(x, "a", "$1", "b", "(.+)")', []),
    ],
)
def test_one_thing_is_changed_at_a_time(promql: str, changed: list[str]) -> None:
    """Thresholds, comparisons, labels and windows; not names and strings."""
    assert [expression for _, expression in changes(promql)] == changed


def test_times_and_labels_are_changed() -> None:
    """`for` is doubled and halved, and a label gets another value."""
    rule = {"alert": "A", "expr": "x", "for": "2m", "labels": {"severity": "critical"}}

    assert [(mutant.key, mutant.value) for mutant in mutants({"groups": [{"rules": [rule]}]})] == [
        ("for", "4m"),
        ("for", "1m"),
        ("labels.severity", "changed"),
    ]


def test_a_change_is_noticed_and_none_is_not() -> None:
    """With another threshold the rule does not pass its tests; with the same it does."""
    document = yaml.safe_load((ROOT / "prometheus/rules/probe.yml").read_text(encoding="utf-8"))
    changed = next(
        mutant for mutant in mutants(document) if mutant.name == "ProbeSlow" and " 1 →" in mutant.what
    )
    rule = document["groups"][changed.group]["rules"][changed.rule]

    assert notices("probe", changed)
    assert not notices("probe", replace(changed, value=rule["expr"]))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nosuch"], "there is no nosuch; there are dashboards, host,"),
        (["slo", "--only", "Nosuch"], "no rule of slo has Nosuch in its name"),
    ],
)
def test_what_is_not_there_is_named(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    complaint: str,
) -> None:
    """A misspelt file or rule is an error with the names, not a score of nothing."""
    monkeypatch.setattr("sys.argv", ["mutation", *arguments])

    with pytest.raises(SystemExit, match="2"):
        main()
    assert complaint in capsys.readouterr().err


@pytest.mark.soak
def test_rule_tests_notice_changes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least 97 % of the changes make a test fail."""
    monkeypatch.setattr("sys.argv", ["mutation"])

    assert main() == 0, capsys.readouterr().out
