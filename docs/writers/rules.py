"""The shipped rules as data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

RULES = Path(__file__).resolve().parents[2] / "prometheus/rules"


def by_name(kind: str) -> dict[str, list[dict[str, Any]]]:
    """The rules of this kind, `alert` or `record`, with the `interval` of their group, by name."""
    rules: dict[str, list[dict[str, Any]]] = {}
    for rule in _rules():
        if kind in rule:
            rules.setdefault(rule[kind], []).append(rule)
    return rules


def _rules() -> Iterator[dict[str, Any]]:
    """Those of the service first, and those of the monitoring last."""
    order = ("requests", "dashboards", "service", "slo", "probe", "host", "monitoring")
    files = sorted(RULES.glob("*.yml"), key=lambda file: order.index(file.stem))
    for file in files:
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
            for rule in group["rules"]:
                yield {"interval": group.get("interval", ""), **rule}
