"""reference/alerts.md: every alert with its rules and its runbook."""

from __future__ import annotations

from typing import Any

from docs.writers import rules
from docs.writers.markdown import code, fence, page, section, table

INTRODUCTION = """\
Critical is what a person must act on now. Each alert carries a value, since when, a dashboard and a runbook. Their numbers come
from [slo.yml](../../prometheus/slo.yml) and the [rules](../../prometheus/rules);
[what they tell, and when](../../prometheus/detection.md) was tried on a fortnight of history."""


def rows() -> list[tuple[str, str, str]]:
    """The name, the severities and the summaries of each alert."""
    return [
        (
            name,
            ", ".join(dict.fromkeys(rule["labels"]["severity"] for rule in alerts)),
            " ".join(dict.fromkeys(rule["annotations"]["summary"] for rule in alerts)),
        )
        for name, alerts in rules.by_name("alert").items()
    ]


def text() -> str:
    """The page."""
    alerts = rules.by_name("alert")
    return page(
        "Alerts",
        "docs/writers/alerts.py and prometheus/rules",
        INTRODUCTION,
        table(
            ["alert", "severity", "meaning"],
            [[f"[{name}](#{name.lower()})", severity, meaning] for name, severity, meaning in rows()],
        ),
        *(section(name, _runbook(name), *map(_rule, alerts[name])) for name in alerts),
    )


def _runbook(name: str) -> str:
    return f"What to do: [runbook of {name}](../../prometheus/runbooks/{name}.md)."


def _rule(rule: dict[str, Any]) -> str:
    labels = [f"{label} {code(value)}" for label, value in rule["labels"].items() if label != "severity"]
    times = [
        text
        for name, text in (
            ("for", f"once this holds for {rule.get('for')}"),
            ("keep_firing_for", f"goes on for {rule.get('keep_firing_for')} after it"),
        )
        if name in rule
    ]
    head = "; ".join([f"**{rule['labels']['severity']}**", *labels, *times])
    return f"{rule['annotations']['summary']} {head}.\n\n{fence('promql', rule['expr'])}"
