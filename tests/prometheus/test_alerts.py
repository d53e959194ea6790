"""Every alert says who must act, why and where."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from prometheus.tools.toolbox import executable
from tests.rig.alerts import ALERTS, RUNBOOKS, queries
from tests.rig.places import ROOT

DASHBOARDS = {
    dashboard["uid"]: {variable["name"] for variable in dashboard["templating"]["list"]}
    for file in (ROOT / "grafana/dashboards").glob("*/*.json")
    for dashboard in [json.loads(file.read_text(encoding="utf-8"))]
}


NAMES = sorted({rule["alert"] for rule in ALERTS})


def test_queries_of_runbooks_are_valid(tmp_path: Path) -> None:
    """Each line can be pasted as it is."""
    lines = [query.promql for query in queries() if query.place.endswith(".md")]
    recorded = [{"record": f"query:{number}", "expr": line} for number, line in enumerate(lines)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "runbooks", "rules": recorded}]}))
    answer = subprocess.run(
        [executable("promtool"), "check", "rules", "--lint=none", file],
        capture_output=True,
        text=True,
        check=False,
    )

    assert answer.returncode == 0, answer.stderr


def test_alert_names_say_what_they_are_about() -> None:
    """The service, its host, its users' side of the network, or the monitoring itself."""
    assert [name for name in NAMES if not re.match(r"(Flask|Host|Probe|Monitoring)[A-Z]", name)] == []


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_alert_is_complete(rule: dict[str, Any]) -> None:
    """Severity, texts for its beginning and its end, links with labels in them, a time that it must last."""
    name, annotations = rule["alert"], rule["annotations"]

    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert "{{" not in annotations["summary"]
    assert annotations["runbook_url"] == f"http://127.0.0.1:9090/user/{name}.md"
    if name == "MonitoringDeadMansSwitch":
        return
    assert "past" in annotations
    assert "headline" in annotations or "{{ $labels.service }}" in annotations["description"]
    assert "{{ $" in annotations["description"] or name == "MonitoringAlertmanagerGone"
    link = re.fullmatch(r"http://127\.0\.0\.1:3000/d/([a-z-]+)\?(.+)", annotations["dashboard_url"])
    assert link is not None
    for variable in link[2].split("&"):
        selects = re.fullmatch(r"var-(\w+)=(?:\{\{ \$labels\.(\w+)( \| urlquery)? \}\}|[a-z]+)", variable)
        assert selects is not None
        assert selects[1] in DASHBOARDS[link[1]]
        assert selects[2] in {None, selects[1], "instance"}
    if rule["labels"]["severity"] == "info":
        return
    assert "for" in rule or "keep_firing_for" in rule


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    """The link in the message leads to a page, and no page is left over."""
    assert [file.stem for file in RUNBOOKS] == NAMES


@pytest.mark.parametrize("file", RUNBOOKS, ids=lambda file: file.stem)
def test_runbook_has_its_parts(file: Path) -> None:
    """Meaning, impact, diagnosis with something to paste, mitigation."""
    text = file.read_text(encoding="utf-8")

    assert text.startswith(f"# {file.stem}\n")
    assert re.findall(r"^## (.*)", text, re.MULTILINE) == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    assert "```promql\n" in text
    assert set(re.findall(r"\b(?:Flask|Host|Probe|Monitoring)[A-Z]\w+\b", text)) <= set(NAMES)


def test_every_alert_has_a_firing_case() -> None:
    """Each rule, not just each name: the severities and windows of the rules are those of the cases."""
    fired = {
        (case["alertname"], labels["severity"], labels.get("window"), labels.get("scope"))
        for file in (ROOT / "tests/rules").glob("*.yml")
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]
        for case in test.get("alert_rule_test", [])
        for labels in (alert["exp_labels"] for alert in case["exp_alerts"])
    }

    assert fired == {
        (rule["alert"], *(rule["labels"].get(label) for label in ("severity", "window", "scope")))
        for rule in ALERTS
    }


def test_sample_limit_is_the_one_that_is_warned_about() -> None:
    """MonitoringSampleLimitNear compares with the limit of the job."""
    jobs = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    (limit,) = (job["sample_limit"] for job in jobs if job["job_name"] == "app")
    (rule,) = (rule for rule in ALERTS if rule["alert"] == "MonitoringSampleLimitNear")

    assert rule["expr"] == f'scrape_samples_post_metric_relabeling{{job="app"}} / {limit} > 0.8'


def test_every_scrape_job_is_bounded() -> None:
    """No target can flood Prometheus."""
    jobs = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]

    assert [job["job_name"] for job in jobs if not (job.get("sample_limit") and job.get("label_limit"))] == []
