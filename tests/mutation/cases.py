"""Rule tests one by one, each with the few rules that matter to it: a whole file takes minutes."""

import copy
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from prometheus.run.scale import milliseconds
from prometheus.tools.toolbox import executable
from tests.rig import ruletests
from tests.rig.places import ROOT
from tests.rig.ruletests import Place


def rules_of(file: str) -> Any:
    """The document of a shipped rule file, which is not to be changed."""
    return ruletests.rules_of(ROOT / f"prometheus/rules/{file}.yml")


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
            environ = {**os.environ, "TMPDIR": name}  # promtool leaves a database there when Ctrl-C ends it
            return subprocess.run(command, env=environ, capture_output=True, check=False).returncode == 0

    def _rules(self, file: str, place: Place | None, key: str, value: str) -> str:
        document = rules_of(file)
        if place and place[0] == file:
            document = copy.deepcopy(document)
            rule = document["groups"][place[1]]["rules"][place[2]]
            *labels, last = key.split(".")
            (rule["labels"] if labels else rule)[last] = value
        return ruletests.only(file, document, self.places)


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
    rules = ruletests.by_place({file: rules_of(file) for file in files})
    fed = ruletests.fed(rules, test)
    checks = [
        (kind, check, fed & ruletests.seen(rules, check))
        for kind in ruletests.KINDS
        for check in test.get(kind, ())
    ]
    return _Test({**document, "rule_files": [f"{file}.yml" for file in files], "tests": [test]}, checks)
