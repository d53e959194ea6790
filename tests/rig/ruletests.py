"""Rule tests as data: read, changed, and run on a copy of the rules, each with the few that matter to it.

Every scalar stays the text that it is: YAML 1.1 would read the sixty times 0 of `0x60` as 96.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Set
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from prometheus.tools.toolbox import executable
from tests.rig.places import ROOT

FILES = {file.stem: file for file in sorted((ROOT / "tests/rules").glob("*.yml"))}
KINDS = ("promql_expr_test", "alert_rule_test")
NAME = re.compile(r"[a-zA-Z_][\w:]*")
STRING = re.compile(r'"(?:\\.|[^"\\])*"')

Place = tuple[str, int, int]
"""A rule: its file, the number of its group, and its number there."""
Rules = dict[Place, dict[str, Any]]


class _Plain(yaml.CSafeDumper):
    """Quotes nothing that needs no quotes."""


_Plain.yaml_implicit_resolvers = {}


def load(name: str) -> dict[str, Any]:
    """The rule tests of tests/rules/<name>.yml."""
    return parse(FILES[name].read_text(encoding="utf-8"))


def parse(text: str) -> dict[str, Any]:
    """The document that a file of rule tests holds."""
    document: dict[str, Any] = yaml.load(text, yaml.CBaseLoader)
    return document


def write(document: dict[str, Any], directory: Path) -> Path:
    """Write the tests beside the copy of the rules that `directory` holds, and have them read that."""
    document = {**document, "rule_files": [Path(rules).name for rules in document["rule_files"]]}
    file = directory / "tests.yml"
    file.write_text(yaml.dump(document, Dumper=_Plain, sort_keys=False, width=1 << 20), encoding="utf-8")
    return file


def check(document: dict[str, Any], rules: Path, directory: Path) -> None:
    """Run tests on a folder of rules, by way of copies in `directory`; fails with what promtool says."""
    answer = subprocess.run(
        [executable("promtool"), "test", "rules", *write_slices(document, rules, directory)],
        env={**os.environ, "GOGC": "400"},  # collects garbage less often, for a third of the time
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def write_slices(document: dict[str, Any], rules: Path, directory: Path) -> list[Path]:
    """Write the tests, and to each those of `rules` that its checks look at; return the files of tests.

    All rules in each of the tests take ten times as long.
    """
    files = [Path(file).stem for file in document["rule_files"]]
    known = {file: rules_of(rules / f"{file}.yml") for file in files}
    places = by_place(known)
    slices = defaultdict(list)
    for test in document["tests"]:
        checks = [check for kind in KINDS for check in test.get(kind, ())]
        slices[frozenset().union(*(seen(places, check) for check in checks)) & fed(places, test)].append(test)
    written = []
    for number, (needed, tests) in enumerate(slices.items()):
        part = directory / f"slice-{number}"
        part.mkdir(parents=True)
        for file in files:
            text = only(file, known[file], needed)
            (part / f"{file}.yml").write_text(text, encoding="utf-8")
        written.append(write({**document, "tests": tests}, part))
    return written


@cache
def rules_of(file: Path) -> Any:
    """The document of a rule file, which is not to be changed."""
    return yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader)


def by_place(documents: dict[str, Any]) -> Rules:
    """The rules of several files, by their places."""
    return {
        (file, group_number, number): rule
        for file, document in documents.items()
        for group_number, group in enumerate(document["groups"])
        for number, rule in enumerate(group["rules"])
    }


def only(file: str, document: Any, places: Set[Place]) -> str:
    """The text of a rule file that holds these rules alone."""
    groups = []
    for group_number, group in enumerate(document["groups"]):
        rules = [rule for number, rule in enumerate(group["rules"]) if (file, group_number, number) in places]
        if rules:
            groups.append({**group, "rules": rules})
    return str(yaml.dump({"groups": groups}, Dumper=yaml.CSafeDumper, sort_keys=False))


def fed(rules: Rules, test: dict[str, Any]) -> set[Place]:
    """The rules that read something which is there in the test."""
    known = {series["series"].partition("{")[0] for series in test["input_series"]}
    places: set[Place] = set()
    while more := {
        place
        for place, rule in rules.items()
        if place not in places and (known & _names(rule["expr"]) or "vector(1)" in rule["expr"])
    }:
        places |= more
        known |= {rules[place].get("record", "ALERTS") for place in more}
    return places


def seen(rules: Rules, check: dict[str, Any]) -> set[Place]:
    """The rules that a check looks at, also through other rules and through the texts of alerts."""
    expression = check.get("expr", "")
    if "__name__" in expression or re.search(r'ALERTS(?!\{.*alertname=")', expression):
        return set(rules)
    wanted = _wanted(expression) | {check.get("alertname", "")}
    places: set[Place] = set()
    while more := {
        place
        for place, rule in rules.items()
        if place not in places and (rule.get("record") or rule["alert"]) in wanted
    }:
        places |= more
        for place in more:
            wanted |= _wanted(rules[place]["expr"])
            wanted |= {
                name for text in rules[place].get("annotations", {}).values() for name in NAME.findall(text)
            }
    return places


def _wanted(promql: str) -> set[str]:
    """The series that an expression reads, and the alerts that it names."""
    return _names(promql) | set(re.findall(r'alertname="(\w+)"', promql))


def _names(promql: str) -> set[str]:
    return set(NAME.findall(STRING.sub("", promql)))


def labelled(series: str, labels: str) -> str:
    """A series with further labels; `{}`, the sum of all series, has none."""
    if series == "{}":
        return series
    name, _, rest = series.partition("{")
    return f"{name}{{{labels}{', ' if rest.strip('} ') else ''}{rest or '}'}"


def everywhere(test: dict[str, Any], places: list[str]) -> dict[str, Any]:
    """The test with all its series and expectations once in each of `places`, which are labels as text."""

    def spread(samples: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
        return [
            {**sample, key: labelled(sample[key], place)}
            for sample in samples
            for place in _of(sample[key], places)
        ]

    def alerts(check: dict[str, Any]) -> dict[str, Any]:
        if check["alertname"] == "MonitoringDeadMansSwitch":  # comes from no series
            return check
        expected = [
            {**alert, "exp_labels": {**alert["exp_labels"], **dict(re.findall(r'(\w+)="(\w*)"', place))}}
            for alert in check["exp_alerts"]
            for place in places
        ]
        return {**check, "exp_alerts": expected}

    return {
        **test,
        "input_series": spread(test["input_series"], "series"),
        "alert_rule_test": [alerts(check) for check in test.get("alert_rule_test", ())],
        "promql_expr_test": [
            {**check, "exp_samples": spread(check["exp_samples"], "labels")}
            for check in test.get("promql_expr_test", ())
        ],
    }


def _of(series: str, places: list[str]) -> list[str]:
    return places[:1] if series == "{}" else places
