"""Rule tests one by one, each with the few rules that matter to it: a whole file takes minutes."""

import copy
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from prometheus.run.scale import milliseconds
from prometheus.tools.toolbox import executable
from tests.rig import ruletests
from tests.rig.places import ROOT

NAME = re.compile(r"[a-zA-Z_][\w:]*")
STRING = re.compile(r'"(?:\\.|[^"\\])*"')

Place = tuple[str, int, int]
"""A rule: its file, the number of its group, and its number there."""


@cache
def rules_of(file: str) -> Any:
    """The document of a rule file, which is not to be changed."""
    return yaml.safe_load((ROOT / f"prometheus/rules/{file}.yml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Case:
    """One rule test, and the rules that it needs."""

    document: dict[str, Any]
    places: frozenset[Place]

    @property
    def name(self) -> str:
        """What is tested."""
        return str(self.document["tests"][0]["name"])

    @property
    def cost(self) -> float:
        """How long it takes, compared with others: evaluations of rules."""
        (test,) = self.document["tests"]
        checks = [*test.get("promql_expr_test", ()), *test.get("alert_rule_test", ())]
        end = max(milliseconds(check["eval_time"]) for check in checks)
        return end / milliseconds(self.document["evaluation_interval"]) * len(self.places)

    def passes(self, place: Place | None = None, key: str = "", value: str = "") -> bool:
        """Run the test, with another text in the place of one that a rule has."""
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            for file in {file for file, _, _ in self.places}:
                (directory / f"{file}.yml").write_text(self._rules(file, place, key, value), encoding="utf-8")
            tests = ruletests.write(self.document, directory)
            command = [str(executable("promtool")), "test", "rules", str(tests)]
            return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def _rules(self, file: str, place: Place | None, key: str, value: str) -> str:
        groups = []
        for group_number, group in enumerate(rules_of(file)["groups"]):
            rules = []
            for number, rule in enumerate(group["rules"]):
                if (file, group_number, number) in self.places:
                    changed = copy.deepcopy(rule)
                    if (file, group_number, number) == place:
                        *labels, last = key.split(".")
                        (changed["labels"] if labels else changed)[last] = value
                    rules.append(changed)
            if rules:
                groups.append({**group, "rules": rules})
        return yaml.safe_dump({"groups": groups}, sort_keys=False)


@cache
def cases(place: Place) -> list[Case]:
    """What the rule tests say about a rule, the cheapest first."""
    found = [case for test in _tests() for case in test.about(place)]
    return sorted(found, key=lambda case: case.cost)


@dataclass(frozen=True)
class _Test:
    """One rule test with its checks, each with the rules that it looks at."""

    document: dict[str, Any]
    checks: list[tuple[str, dict[str, Any], set[Place]]]

    def about(self, place: Place) -> Iterator[Case]:
        """Yield the test with the checks that look at a rule, if there are any."""
        mine = [(kind, check, places) for kind, check, places in self.checks if place in places]
        if mine:
            (test,) = self.document["tests"]
            kinds: dict[str, list[dict[str, Any]]] = {"promql_expr_test": [], "alert_rule_test": []}
            for kind, check, _ in mine:
                kinds[kind].append(check)
            places = frozenset().union(*(places for _, _, places in mine))
            needed = {f"{file}.yml" for file, _, _ in places}
            files = [file for file in self.document["rule_files"] if file in needed]
            yield Case({**self.document, "rule_files": files, "tests": [{**test, **kinds}]}, places)


@cache
def _tests() -> list[_Test]:
    return [
        _test(document, test)
        for document in map(ruletests.load, ruletests.FILES)
        for test in document["tests"]
    ]


def _test(document: dict[str, Any], test: dict[str, Any]) -> _Test:
    files = [Path(file).stem for file in document["rule_files"]]
    rules = {
        (file, group_number, number): rule
        for file in files
        for group_number, group in enumerate(rules_of(file)["groups"])
        for number, rule in enumerate(group["rules"])
    }
    fed = _fed(rules, test)
    checks = [
        (kind, check, fed & _seen(rules, check))
        for kind in ("promql_expr_test", "alert_rule_test")
        for check in test.get(kind, ())
    ]
    return _Test({**document, "rule_files": [f"{file}.yml" for file in files], "tests": [test]}, checks)


def _fed(rules: dict[Place, dict[str, Any]], test: dict[str, Any]) -> set[Place]:
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


def _seen(rules: dict[Place, dict[str, Any]], check: dict[str, Any]) -> set[Place]:
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
