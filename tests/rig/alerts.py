"""The shipped rules and runbooks as data."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tests.rig.places import ROOT

RULES = sorted((ROOT / "prometheus/rules").glob("*.yml"))
RUNBOOKS = sorted((ROOT / "prometheus/runbooks").glob("*.md"))


@dataclass(frozen=True, slots=True)
class Query:
    """An expression and its place."""

    place: str
    promql: str


def rules() -> list[dict[str, Any]]:
    """All rules of all files."""
    return [
        rule
        for file in RULES
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


ALERTS = [rule for rule in rules() if "alert" in rule]


def queries() -> Iterator[Query]:
    """Every expression of a rule and every line of a runbook's queries."""
    for rule in rules():
        yield Query(rule.get("alert") or rule["record"], rule["expr"])
    for file in RUNBOOKS:
        for block in re.findall(r"```promql\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.splitlines():
                yield Query(file.name, line)
