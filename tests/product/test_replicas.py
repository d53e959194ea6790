"""Replicas behind a proxy are one service: nothing is lost, nothing counted twice, nobody woken."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from prometheus.run import dialect
from prometheus.tools.packages import NGINX
from prometheus.tools.toolbox import gave_up
from tests.rig.places import ROOT
from tests.rig.replicas import CLIENTS, CLOSED, PAUSE, REQUESTS

START = ROOT / "prometheus/start.sh"
INSTANCES = {f"10.0.0.1{number}:8000" for number in (1, 2, 3)}


def find(scenario: str, directory: Path) -> dict[str, Any]:
    """What a scenario finds, in a network of its own."""
    if gave_up(NGINX):
        pytest.skip("NOT TESTED: replicas behind a proxy (nginx cannot be had, see .tools/nginx.unavailable)")
    own_network = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
    answer = subprocess.run(
        [*own_network, sys.executable, "-m", "tests.rig.replicas", scenario, str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=150,
    )
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return find("counted", tmp_path_factory.mktemp("counted"))


def test_totals_are_what_the_clients_counted(facts: dict[str, Any]) -> None:
    """Whichever replica answered, each request is in the sum once."""
    assert sum(facts["sent"].values()) == CLIENTS * REQUESTS
    assert facts["counted"] == facts["sent"]
    assert facts["services"].keys() == {"job:flask_http_request_duration_seconds:rate_5m app orders"}


def test_each_replica_can_be_told_apart(facts: dict[str, Any]) -> None:
    """All of them serve; log lines bear the same name as series."""
    assert facts["instances"].keys() == INSTANCES
    assert facts["logged"] == facts["instances"]


def test_the_time_in_the_queue_is_counted_for_every_request(facts: dict[str, Any]) -> None:
    assert list(facts["not in the queue"].values()) == [0]


def test_pages_for_insiders_are_closed(facts: dict[str, Any]) -> None:
    """Behind the proxy nobody is one."""
    assert facts["closed"] == dict.fromkeys(CLOSED, 404)
    assert facts["health"] == [{"status": "healthy"}, {"status": "ready"}]


@pytest.mark.soak
def test_replicas_come_and_go_unnoticed(tmp_path: Path) -> None:
    """One is killed, one is added, one is told to end: no request fails, no sum jumps, nobody is woken."""
    facts = find("changed", tmp_path)
    (lowest,), (highest,) = (facts["rates"][name].values() for name in ("min", "max"))

    assert facts["statuses"].keys() == {"GET 200", "POST 201"}
    assert set(facts["probes"].values()) == {1}
    assert 0 < lowest <= highest <= CLIENTS / PAUSE
    assert [alert for alert in facts["alerts"] if "MonitoringDeadMansSwitch" not in alert] == []


class Loader(yaml.SafeLoader):
    """Reads `!reset` of compose as the list beside it."""


def reset(loader: yaml.SafeLoader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node)


Loader.add_constructor("!reset", reset)
FILE: dict[str, Any] = yaml.load((ROOT / "replicas.yml").read_text(encoding="utf-8"), Loader)
SERVICES: dict[str, Any] = FILE["services"]


def write_configuration(directory: Path, replicas: str) -> "subprocess.CompletedProcess[str]":
    """What start.sh makes of prometheus.yml."""
    return subprocess.run(
        ["sh", START, "true", f"--config.file={directory}/prometheus.yml"],
        env={**os.environ, "APP_REPLICAS": replicas},
        capture_output=True,
        text=True,
        check=False,
    )


def test_replicas_replace_the_one_target(tmp_path: Path) -> None:
    """Every address of the name is a target with the labels that the target file gives it; others stay."""
    replicas = SERVICES["prometheus"]["environment"]["APP_REPLICAS"]
    assert write_configuration(tmp_path, replicas).stderr == ""
    shipped, written = (
        yaml.safe_load(file.read_text(encoding="utf-8"))
        for file in (ROOT / "prometheus/prometheus.yml", tmp_path / "prometheus.yml")
    )
    job = written["scrape_configs"][0]
    (discovery,), (drop, *labels) = job.pop("dns_sd_configs"), job["relabel_configs"]
    (group,) = yaml.safe_load((ROOT / "prometheus/targets/app.yml").read_text(encoding="utf-8"))

    assert discovery == {"names": ["app"], "type": "A", "port": 8000, "refresh_interval": "5s"}
    assert drop == {
        "source_labels": ["__meta_filepath", "__address__"],
        "regex": f".+;{group['targets'][0]}",
        "action": "drop",
    }
    given = {rule["target_label"]: rule["replacement"] for rule in labels if "replacement" in rule}
    assert given == group["labels"]
    job["relabel_configs"] = shipped["scrape_configs"][0]["relabel_configs"]
    assert written == shipped
    assert dialect.check(tmp_path).returncode == 0


@pytest.mark.parametrize("replicas", ["app", "app:x", "app:8000 service", "app:8000 service=a;b"])
def test_replicas_that_cannot_be_are_refused(tmp_path: Path, replicas: str) -> None:
    answer = write_configuration(tmp_path, replicas)

    assert (answer.returncode, answer.stderr.count("\n")) == (1, 1)
    assert answer.stderr.startswith(f"APP_REPLICAS={replicas} is not host:port")


def test_the_proxy_has_the_ports_and_the_rights_of_the_others() -> None:
    """It takes the app's port, writes nothing but its own /tmp, and is no root."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    app, proxy = compose["services"]["app"], SERVICES["proxy"]

    assert SERVICES["app"]["ports"] == []
    assert proxy["ports"] == app["ports"]
    assert {key: proxy[key] for key in compose["x-service"]} == compose["x-service"]
    assert proxy["healthcheck"].items() >= compose["x-health"].items()
    assert re.fullmatch(r"nginx:\d+\.\d+\.\d+-alpine", proxy["image"])
    assert (int(proxy["user"].split(":")[0]) > 0, bool(proxy["mem_limit"])) == (True, True)
    assert all((ROOT / mount.split(":")[0]).exists() for mount in proxy["volumes"])


def test_the_proxy_alone_is_trusted(tmp_path: Path) -> None:
    """Its network is nobody else's, whichever addresses it has; the other one names the replica."""
    for name, text in (
        ("getent", "echo '172.20.0.3  STREAM replicas'; echo '172.20.0.5  STREAM replicas'"),
        ("hostname", "echo 172.20.0.5 172.19.0.7"),
        ("gunicorn", 'echo "$EXPORTER_TRUSTED_PROXIES $EXPORTER_INSTANCE $*"'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    command = [argument.replace("$$", "$") for argument in SERVICES["app"]["command"]]
    printed = subprocess.check_output(command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, text=True)

    assert printed == "172.20.0.0/24 172.19.0.7:8000 --config app/gunicorn.conf.py\n"
    assert 'CMD ["gunicorn", "--config", "app/gunicorn.conf.py"]' in (ROOT / "app/Dockerfile").read_text()
    assert FILE["networks"] == {"proxy": {"internal": True}}
    assert {name for name, part in SERVICES.items() if "proxy" in part.get("networks", ())} == {
        "app",
        "proxy",
    }


def test_users_and_probes_go_through_the_proxy() -> None:
    """What asked the app before asks the proxy."""
    shipped, through = (
        (ROOT / file).read_text(encoding="utf-8")
        for file in ("prometheus/targets/probe.yml", "deploy/replicas/probe.yml")
    )

    assert yaml.safe_load(through) == yaml.safe_load(shipped.replace("http://app:", "http://proxy:"))
    assert SERVICES["traffic"]["environment"]["TARGET"] == "http://proxy:8000"
