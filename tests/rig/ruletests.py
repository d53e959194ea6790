"""Rule tests as data: read, changed, and run on a copy of the rules.

Every scalar stays the text that it is: YAML 1.1 would read the sixty times 0 of `0x60` as 96.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests.rig.places import ROOT

FILES = {file.stem: file for file in sorted((ROOT / "tests/rules").glob("*.yml"))}


class _Plain(yaml.SafeDumper):
    """Quotes nothing that needs no quotes."""


_Plain.yaml_implicit_resolvers = {}


def load(name: str) -> dict[str, Any]:
    """The rule tests of tests/rules/<name>.yml."""
    document: dict[str, Any] = yaml.load(FILES[name].read_text(encoding="utf-8"), yaml.BaseLoader)
    return document


def write(document: dict[str, Any], directory: Path) -> Path:
    """Write the tests beside the copy of the rules that `directory` holds, and have them read that."""
    document = {**document, "rule_files": [Path(rules).name for rules in document["rule_files"]]}
    file = directory / "tests.yml"
    file.write_text(yaml.dump(document, Dumper=_Plain, sort_keys=False, width=1 << 20), encoding="utf-8")
    return file


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
