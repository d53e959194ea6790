"""The rules elsewhere: with further target labels, other job names and other links."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from prometheus.run import dialect
from tests.rig import ruletests
from tests.rig.places import ROOT

RULES = ROOT / "prometheus/rules"
START = ROOT / "prometheus/start.sh"
FURTHER = ['zone="z1", replica="a"']
CLUSTERS = ['cluster="x"', 'cluster="y"']


def write_rules(directory: Path, **environ: str) -> "subprocess.CompletedProcess[str]":
    """What start.sh does with the rules."""
    return subprocess.run(
        ["sh", START, f"--rules={directory}"],
        env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", sorted(ruletests.FILES.keys() - {"history"}))
def test_rules_hold_with_further_labels(tmp_path: Path, name: str) -> None:
    """Labels that every series has besides change nothing, and are carried along into every alert."""
    assert write_rules(tmp_path).returncode == 0
    document = ruletests.load(name)
    tests = [ruletests.everywhere(test, FURTHER) for test in document["tests"]]

    ruletests.check({**document, "tests": tests}, tmp_path, tmp_path / "tests")


@pytest.mark.parametrize(
    "name", ["dashboards", "requests", *(name for name in ruletests.FILES if name.endswith("-edges"))]
)
def test_rules_hold_for_clusters_that_have_the_same_services(tmp_path: Path, name: str) -> None:
    """Where all is together, each cluster has series and alerts of its own, and none hides another's."""
    assert write_rules(tmp_path).returncode == 0
    document = ruletests.load(name)
    tests = [
        ruletests.everywhere(test, CLUSTERS)
        for test in document["tests"]
        if "cluster" not in str(test) and "{}" not in str(test)
    ]
    assert len(tests) >= 0.5 * len(document["tests"])

    ruletests.check({**document, "tests": tests}, tmp_path, tmp_path / "tests")


@pytest.mark.parametrize("name", ["monitoring", "service"])
def test_rules_hold_with_another_job_name(tmp_path: Path, name: str) -> None:
    """One variable says what the services' job is called."""
    assert write_rules(tmp_path, RULE_JOBS="app=web.flask loki=logs").returncode == 0
    text = (ROOT / f"tests/rules/{name}.yml").read_text(encoding="utf-8")
    text = re.sub(r"\bapp\b", "web.flask", text)
    text = re.sub(r'(job="|job: |job=|headline: |past: |  )loki\b(?!/)', r"\1logs", text)

    ruletests.check(ruletests.parse(text), tmp_path, tmp_path / "tests")


def test_several_jobs_in_place_of_one(tmp_path: Path) -> None:
    """The services may have more than one job, also in the list of the monitoring's own."""
    write_rules(tmp_path, RULE_JOBS="app=shop|api alertmanager=alertmanager-main node=node-exporter")
    texts = {file.name: file.read_text(encoding="utf-8") for file in tmp_path.glob("*.yml")}

    assert 'up{job=~"shop|api"} == 0' in texts["service.yml"]
    assert (
        'job=~"alertmanager-main|alloy|blackbox|grafana|loki|node-exporter|probe|prometheus|victoriametrics"'
        in (texts["monitoring.yml"])
    )
    assert (
        'job=~"alertmanager-main|alloy|shop|api|blackbox|grafana|loki|node-exporter|prometheus|victoriametrics"'
        in (texts["monitoring.yml"])
    )
    assert not [name for name, text in texts.items() if 'job="app"' in text or 'job="alertmanager"' in text]


def test_links_are_those_of_the_installation(tmp_path: Path) -> None:
    """No other link is left, and nothing but the links differs."""
    write_rules(tmp_path, GRAFANA_URL="https://g.example/sub/", RUNBOOK_URL="https://r.example:8443/user")
    for file in RULES.glob("*.yml"):
        shipped = file.read_text(encoding="utf-8")
        copy = (tmp_path / file.name).read_text(encoding="utf-8")
        assert "127.0.0.1" not in copy
        assert shipped == copy.replace("https://g.example/sub/", "http://127.0.0.1:3000/").replace(
            "https://r.example:8443/user", "http://127.0.0.1:9090/user"
        )


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("GRAFANA_URL", "g.example"),
        ("GRAFANA_URL", "http://g|s/p/"),
        ("RUNBOOK_URL", "http://a b"),
        ("RULE_JOBS", "app"),
        ("RULE_JOBS", 'app=a"b'),
        ("RULE_JOBS", "shop=app"),
    ],
)
def test_values_that_cannot_work_are_refused(tmp_path: Path, setting: str, value: str) -> None:
    """One line names the setting and its value."""
    answer = write_rules(tmp_path / "rules", **{setting: value})

    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.count("\n") == 1
    assert answer.stderr.startswith((f"{setting}={value}", f"{setting}: {value}"))


def started(
    script: Path, directory: Path, version: str = "3.13.2", *flags: str, **environ: str
) -> "subprocess.CompletedProcess[str]":
    """What start.sh says with a Prometheus of this version, which tells its own flags."""
    program = directory / "prometheus"
    program.write_text(
        f'#!/bin/sh\n[ "$*" = --version ] && echo "prometheus, version {version} (branch: x)" || echo "$*"\n'
    )
    program.chmod(0o755)
    return subprocess.run(
        ["sh", script, program, f"--config.file={directory}/copy/prometheus.yml", *flags],
        env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("version", "stable"),
    [("2.55.1", False), ("3.5.3+ds1", False), ("3.8.0", True), ("3.13.2", True), ("4.0.0", True)],
)
def test_start_links_what_is_not_written(tmp_path: Path, version: str, stable: bool) -> None:
    """The target files are the live ones, the rules a copy; an older Prometheus gets what it takes."""
    config = tmp_path / "copy/prometheus.yml"
    flags = started(START, tmp_path, version, GRAFANA_URL="https://g.example").stdout

    assert ("--enable-feature=native-histograms" in flags) == (not stable)
    assert ("scrape_native_histograms: true" in config.read_text(encoding="utf-8")) == stable
    assert (config.resolve() == ROOT / "prometheus/prometheus.yml") == stable
    assert dialect.check(config.parent).returncode == 0
    assert (tmp_path / "copy/targets").resolve() == ROOT / "prometheus/targets"
    assert "https://g.example/d/" in (tmp_path / "copy/rules/service.yml").read_text(encoding="utf-8")


def test_start_makes_one_of_several(tmp_path: Path) -> None:
    """It sends what it scrapes under its own name, from its part of the targets, and has no rules."""
    url = "http://vminsert:8480/insert/0/prometheus/api/v1/write"
    answer = started(START, tmp_path, "3.13.2", "--agent", REMOTE_WRITE_URL=url, REPLICA="a", SHARD="2/3")
    document = yaml.safe_load((tmp_path / "copy/prometheus.yml").read_text(encoding="utf-8"))
    shipped = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    share = [
        {
            "source_labels": ["__address__"],
            "modulus": 3,
            "target_label": "__tmp_shard",
            "action": "hashmod",
        },
        {"source_labels": ["__tmp_shard"], "regex": "1", "action": "keep"},
    ]
    jobs = [
        {**job, "relabel_configs": share + job.get("relabel_configs", [])}
        for job in shipped["scrape_configs"]
    ]
    (write,) = document.pop("remote_write")

    assert answer.returncode == 0
    assert (write["url"], write["send_native_histograms"]) == (url, False)
    assert document.pop("global") == shipped["global"] | {"external_labels": {"replica": "a"}}
    assert document == {"scrape_configs": jobs}
    assert not (tmp_path / "copy/rules").exists()


def test_start_keeps_the_rules_of_one_that_sends(tmp_path: Path) -> None:
    """The name of a copy is on no alert, so that those of two are one; other labels of the user's stay."""
    own = tmp_path / "own"
    shutil.copytree(ROOT / "prometheus", own, ignore=shutil.ignore_patterns("*.py"))
    file = own / "prometheus.yml"
    text = file.read_text(encoding="utf-8").replace(
        "global:\n", "global:\n  external_labels:\n    cluster: eu\n"
    )
    file.write_text(text, encoding="utf-8")
    answer = started(
        own / "start.sh", tmp_path, "3.13.2", REMOTE_WRITE_URL="http://vm:8428/api/v1/write", REPLICA="b"
    )
    document = yaml.safe_load((tmp_path / "copy/prometheus.yml").read_text(encoding="utf-8"))

    assert answer.returncode == 0
    assert document["global"]["external_labels"] == {"cluster": "eu", "replica": "b"}
    assert document["alerting"]["alert_relabel_configs"] == [{"action": "labeldrop", "regex": "replica"}]
    assert (tmp_path / "copy/rules/service.yml").exists()
    assert dialect.check(tmp_path / "copy").returncode == 0


@pytest.mark.parametrize(
    ("setting", "environ"),
    [
        ("REMOTE_WRITE_URL=vm:8428", {"REMOTE_WRITE_URL": "vm:8428"}),
        ("REPLICA=a b", {"REPLICA": "a b"}),
        ("SHARD=0/2", {"SHARD": "0/2"}),
        ("SHARD=3/2", {"SHARD": "3/2"}),
        ("SHARD=1", {"SHARD": "1"}),
        ("RULES=no", {"RULES": "no"}),
        ("REMOTE_WRITE_URL is not set", {"SHARD": "1/2"}),
        ("REMOTE_WRITE_URL is not set", {"RULES": "off"}),
    ],
)
def test_one_of_several_that_cannot_work_is_refused(
    tmp_path: Path, setting: str, environ: dict[str, str]
) -> None:
    """One line names the setting and its value; nothing is started."""
    answer = started(START, tmp_path, "3.13.2", **environ)

    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.count("\n") == 1
    assert answer.stderr.startswith(setting)


def test_layers_follow_one_another_in_vmalert(tmp_path: Path) -> None:
    """What a group reads is recorded some seconds before, in the same interval; all else is as shipped."""
    subprocess.run(["sh", START, f"--vmalert={tmp_path}"], check=True)
    groups = {
        group["name"]: group
        for file in tmp_path.glob("*.yml")
        for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    }
    offsets = {name: int(group.pop("eval_offset").removesuffix("s")) for name, group in groups.items()}
    recorded = {
        rule["record"]: name for name, group in groups.items() for rule in group["rules"] if "record" in rule
    }
    late = {
        (name, source)
        for name, group in groups.items()
        for rule in group["rules"]
        for record, source in recorded.items()
        if re.search(rf"(?<![\w:]){record}(?![\w:])", rule["expr"])
        and source != name
        and offsets[source] + 3 > offsets[name]
    }

    assert max(offsets.values()) < 60
    assert max(offset for name, offset in offsets.items() if groups[name]["interval"] == "15s") < 15
    # What is forecast for 4 hours, or recorded once a minute, may be a quarter of a minute old.
    assert late == {("service", "workers"), ("service", "usual"), ("slo bursts", "slo windows")}
    shipped = [group for file in RULES.glob("*.yml") for group in yaml.safe_load(file.read_text())["groups"]]
    assert {group["name"]: {"interval": "15s", **group} for group in shipped} == groups
