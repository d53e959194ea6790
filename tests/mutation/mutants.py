"""Changed copies of a rule: each differs in one threshold, comparison, label, window or time."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prometheus.run.scale import DURATION, milliseconds, spell

# Strings are left to the changes of matchers; a number that is a part of a name is none.
STRING = r'"(?:\\.|[^"\\])*"'
TOKEN = re.compile(
    rf"(?P<matcher>(?P<label>\w+)\s*(?P<operator>=~|!~|!=|=)\s*(?P<value>{STRING}))"
    rf"|(?P<string>{STRING})"
    rf"|(?P<duration>{DURATION})"
    r"|(?P<clause>\b(?:without|by|on|ignoring)\s*\((?P<labels>[^)]+)\))"
    r"|(?P<name>[a-zA-Z_][\w:]*)"
    r"|(?P<comparison>==|>=|<=|!=|>|<)"
    r"|(?P<number>\d+(?:\.\d+)?(?:e\d+)?)"
)
OPPOSITES = {">": "<", "<": ">", ">=": "<", "<=": ">", "==": "!=", "!=": "=="}
EQUAL = {"=": "!=", "!=": "=", "=~": "!~", "!~": "=~"}
TIMES = ("for", "keep_firing_for")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: `rule` is the number of the rule in its group, `what` says what was changed there."""

    group: int
    rule: int
    name: str
    what: str
    key: str
    value: str


def mutants(document: dict[str, Any]) -> Iterator[Mutant]:
    """Yield every change of the rules of a file."""
    for group_number, group in enumerate(document["groups"]):
        for rule_number, rule in enumerate(group["rules"]):
            name = rule.get("alert") or rule["record"]
            place = (group_number, rule_number, name)
            for what, expression in changes(rule["expr"]):
                yield Mutant(*place, what, "expr", expression)
            for key in TIMES:
                if key in rule:
                    yield Mutant(*place, f"{key}: twice {rule[key]}", key, times(rule[key], 2))
                    yield Mutant(*place, f"{key}: half of {rule[key]}", key, times(rule[key], 0.5))
            for label in rule.get("labels", {}):
                yield Mutant(*place, f"label {label}", f"labels.{label}", "changed")


def changes(promql: str) -> Iterator[tuple[str, str]]:
    """Yield what was changed in an expression, and the expression."""
    for token in TOKEN.finditer(promql):
        start, end = token.span()
        before = promql[max(0, start - 24) : start].replace("\n", " ").strip()
        for text in replacements(token):
            yield f"… {before} {token[0]} → {text}", promql[:start] + text + promql[end:]


def replacements(token: "re.Match[str]") -> list[str]:
    """Return what may stand in the place of a token."""
    if token["matcher"]:
        return [f"{token['label']}{EQUAL[token['operator']]}{token['value']}"]
    if token["duration"]:
        return [times(token[0], factor) for factor in (2, 0.5)]
    if token["clause"]:
        names = [name.strip() for name in token["labels"].split(",")]
        rests = [", ".join(other for other in names if other != name) for name in names]
        return [token[0].replace(token["labels"], rest) for rest in rests]
    if token["comparison"]:
        return [OPPOSITES[token[0]]]
    if token["number"]:
        number = float(token[0])
        return [f"{changed:.9g}" for changed in ((number * 1.25, number * 0.8) if number else (1.0,))]
    return []


def times(duration: str, factor: float) -> str:
    """Return a duration so many times as long."""
    return spell(milliseconds(duration) * factor)
