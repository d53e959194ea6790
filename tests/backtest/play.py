"""Plays history through the real rules in the real promtool: which alerts fired in which minute."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Set
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from prometheus.tools.toolbox import executable
from tests.backtest.history import STEP
from tests.rig import ruletests
from tests.rig.places import ROOT

RULES = ("requests", "service", "slo")
FIRING = 'ALERTS{alertstate="firing"}'
GROUP_INTERVAL = 5  # minutes, as in alertmanager.yml
LABELS = re.compile(r'(\w+)="((?:\\.|[^"\\])*)"')

Timeline = dict[int, list[dict[str, str]]]
"""Minute → the labels of the alerts that fire then."""


def play(series: list[tuple[str, str]], first: int, last: int, share: Set[str]) -> Timeline:
    """Evaluate a share of the rules once a minute; return its alerts from minute `first` to `last`."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        groups = rules({labels.partition("{")[0] for labels, _ in series}, share)
        (directory / "rules.yml").write_text(yaml.safe_dump({"groups": groups}, sort_keys=False))
        with (directory / "tests.yml").open("w", encoding="utf-8") as out:
            order = ", ".join(f'"{group["name"]}"' for group in groups)
            out.write(f"rule_files: [rules.yml]\nevaluation_interval: 1m\ngroup_eval_order: [{order}]\n")
            out.write(f"tests:\n- interval: {STEP}s\n  input_series:\n")
            for labels, values in series:
                out.write(f"  - series: '{labels}'\n    values: '{values}'\n")
            out.write("  promql_expr_test:\n")
            for minute in range(first, last):
                out.write(f"  - {{expr: '{FIRING}', eval_time: {minute}m, exp_samples: []}}\n")
        command = [str(executable("promtool")), "test", "rules", str(directory / "tests.yml")]
        # Memory is cheaper here than collecting garbage; and Ctrl-C lets promtool leave a database in TMPDIR.
        environ = os.environ | {"GOGC": "400", "TMPDIR": name}
        answer = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    return _timeline(answer.stdout + answer.stderr)


def rules(known: Set[str], share: Set[str]) -> list[dict[str, Any]]:
    """Return the groups with the alerts of a share that `known` series can raise, and what these read.

    Annotations are left out: they change nothing, and ask much.
    """
    documents = {name: ruletests.rules_of(ROOT / f"prometheus/rules/{name}.yml") for name in RULES}
    places = {
        place: {key: value for key, value in rule.items() if key != "annotations"}
        for place, rule in ruletests.by_place(documents).items()
        if _objective(rule) in {"", *share}
    }
    fed = ruletests.fed(places, {"input_series": [{"series": name} for name in known]})
    names = {rule["alert"] for place, rule in places.items() if "alert" in rule and _objective(rule) in share}
    needed = set().union(*(fed & ruletests.seen(places, {"alertname": name}) for name in names))
    groups = [
        {**group, "rules": [places[place] for place in sorted(needed) if place[:2] == (name, number)]}
        for name, document in documents.items()
        for number, group in enumerate(document["groups"])
    ]
    return [group for group in groups if group["rules"]]


def _objective(rule: dict[str, Any]) -> str:
    """The objective that a rule is about, or nothing; every alert of latency counts as about that."""
    label = re.search(r'slo="(\w+)"', rule["expr"])
    default = "latency" if rule.get("alert", "").startswith("FlaskLatency") else ""
    return str(rule.get("labels", {}).get("slo") or (label and label[1]) or default)


def _timeline(output: str) -> Timeline:
    timeline: Timeline = {}
    blocks = re.findall(r"time: (\w+),\s*exp: nil\s*got: (.*)", output)
    if not blocks and "SUCCESS" not in output:
        raise RuntimeError(output[:2000])
    for time, got in blocks:
        timeline[_minutes(time)] = [dict(LABELS.findall(one)) for one in re.findall(r"\{[^}]*\}", got)]
    return timeline


def _minutes(duration: str) -> int:
    units = {"d": 1440, "h": 60, "m": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([dhm])(?!s)", duration))


def told(timeline: Timeline) -> Mapping[str, list[tuple[int, str]]]:
    """Return the messages about each service as (minute, alerts that are new), as Alertmanager sends them.

    Alerts of a service and a severity are a group. It is looked at when its first alert begins and every 5
    minutes from then on, and what is new is told. What is held back then is no news; nor is the end of an
    alert, or information.
    """
    messages: dict[str, list[tuple[int, str]]] = {}
    opened: dict[tuple[str, str], int] = {}
    notified: dict[tuple[str, str], set[frozenset[tuple[str, str]]]] = {}
    for minute in range(min(timeline, default=0), max(timeline, default=0) + 1):
        firing = [alert for alert in timeline.get(minute, []) if alert["severity"] != "info"]
        groups: dict[tuple[str, str], list[dict[str, str]]] = {group: [] for group in opened}
        for alert in firing:
            groups.setdefault((alert.get("service", ""), alert["severity"]), []).append(alert)
        for group, alerts in groups.items():
            if (minute - opened.setdefault(group, minute)) % GROUP_INTERVAL:
                continue
            notified[group] = notified.get(group, set()) & {frozenset(alert.items()) for alert in alerts}
            visible = [alert for alert in alerts if not _held_back(alert, firing)]
            new = [alert for alert in visible if frozenset(alert.items()) not in notified[group]]
            if new:
                messages.setdefault(group[0], []).append((minute, ", ".join(sorted(map(_name, new)))))
                notified[group] = {frozenset(alert.items()) for alert in visible}
            elif not alerts:
                del opened[group]
    return messages


def _name(alert: Mapping[str, str]) -> str:
    window = f" ({alert['window']})" if "window" in alert else ""
    return alert["alertname"] + window


def _held_back(alert: Mapping[str, str], firing: Iterable[Mapping[str, str]]) -> bool:
    return any(
        _matches(alert, rule["target_matchers"])
        and any(
            _matches(other, rule["source_matchers"])
            and all(alert.get(label) == other.get(label) for label in rule["equal"])
            for other in firing
            if other is not alert
        )
        for rule in _inhibitions()
    )


@cache
def _inhibitions() -> list[dict[str, Any]]:
    file = ROOT / "prometheus/alertmanager/alertmanager.yml"
    rules: list[dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))["inhibit_rules"]
    return rules


def _matches(alert: Mapping[str, str], matchers: Iterable[str]) -> bool:
    for matcher in matchers:
        label, operator, value = re.fullmatch(r'(\w+)(=~|!~|!=|=)"(.*)"', matcher).groups()  # type: ignore[union-attr]
        here = alert.get(label, "")
        same = bool(re.fullmatch(value, here)) if "~" in operator else here == value
        if same == operator.startswith("!"):
            return False
    return True
