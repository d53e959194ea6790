"""docker-compose.yml keeps its promises: what a service may do, what it waits for, who can reach it."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rig.compose import compose
from tests.rig.places import ROOT

DATA_FLOW = [
    "app",
    "traffic",
    "prometheus",
    "alertmanager",
    "blackbox",
    "node-exporter",
    "loki",
    "alloy",
    "grafana",
]
IMAGES = {
    "prometheus": "prom/prometheus:v3.13.2",
    "alertmanager": "prom/alertmanager:v0.34.0",
    "blackbox": "prom/blackbox-exporter:v0.28.0",
    "node-exporter": "prom/node-exporter:v1.9.1",
    "loki": "grafana/loki:3.7.6",
    "alloy": "grafana/alloy:v1.19.1",
    "grafana": "grafana/grafana:13.2.3",
}
# Each is laid over docker-compose.yml; what it adds is held to the same promises.
OVERLAYS = {
    "longterm.yml": {
        "victoriametrics": "victoriametrics/victoria-metrics:v1.150.0",
        "vmauth": "victoriametrics/vmauth:v1.150.0",
    },
    "cluster.yml": {
        "vminsert": "victoriametrics/vminsert:v1.150.0-cluster",
        "vmstorage-1": "victoriametrics/vmstorage:v1.150.0-cluster",
        "vmstorage-2": "victoriametrics/vmstorage:v1.150.0-cluster",
        "vmstorage-3": "victoriametrics/vmstorage:v1.150.0-cluster",
        "vmselect": "victoriametrics/vmselect:v1.150.0-cluster",
        "vmauth": "victoriametrics/vmauth:v1.150.0",
        "vmalert": "victoriametrics/vmalert:v1.150.0",
    },
}
PORTS = {"app": 8000, "prometheus": 9090, "alertmanager": 9093, "loki": 3100, "grafana": 3000}
PORTS |= {"victoriametrics": 8428, "vmselect": 8481, "vmalert": 8880}


class Loader(yaml.SafeLoader):
    """Reads the tag of compose that puts a list in place of another."""


def _override(loader: Loader, node: Any) -> list[Any]:
    return loader.construct_sequence(node)


Loader.add_constructor("!override", _override)


def resolved(file: str = "docker-compose.yml", **environment: str) -> dict[str, Any]:
    """A compose file as compose reads it with these variables and no others."""

    def value(match: re.Match[str]) -> str:
        given = environment.get(match["name"], "")
        return match["word"] if bool(given) == (match["when"] == "+") else given

    def filled(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: filled(child) for key, child in node.items()}
        if isinstance(node, list):
            return [filled(child) for child in node]
        if not isinstance(node, str):
            return node
        plain = re.sub(r"(?<!\$)\$\{(?P<name>\w+):(?P<when>[-+])(?P<word>[^}]*)\}", value, node)
        assert not re.search(r"(?<!\$)\$(?!\$)", plain), f"a variable without a default: {node}"
        return plain.replace("$$", "$")

    document: dict[str, Any] = filled(yaml.load((ROOT / file).read_text(), Loader))
    return document


def complete(**environment: str) -> dict[str, dict[str, Any]]:
    """Every service that a file describes wholly, with its name."""
    services = {
        name: service
        for file in OVERLAYS
        for name, service in resolved(file, **environment)["services"].items()
        if "image" in service
    }
    return {**resolved(**environment)["services"], **services}


COMPOSE = resolved()
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EVERY = complete()
VOLUMES = COMPOSE["volumes"].keys() | {volume for file in OVERLAYS for volume in resolved(file)["volumes"]}
each_service = pytest.mark.parametrize("name", EVERY)


def test_services_stand_in_the_order_in_which_the_data_flows() -> None:
    """A reader follows a request from the top to the bottom of the file."""

    assert list(SERVICES) == DATA_FLOW


def test_images_are_named_by_exact_tags() -> None:
    """The versions are the ones that everything was tested with, and no other ever comes by itself."""

    assert {name: service["image"] for name, service in EVERY.items() if "image" in service} == {
        **IMAGES,
        **{name: image for images in OVERLAYS.values() for name, image in images.items()},
    }


@pytest.mark.parametrize(
    ("file", "needed", "most"),
    [
        ("requirements.txt", {"flask", "gunicorn", "prometheus-client", "prometheus-flask-exporter"}, 12),
        ("requirements-traffic.txt", {"locust"}, 50),
        ("requirements-build.txt", {"hatchling"}, 6),
    ],
)
def test_an_image_holds_exact_packages_and_no_others(file: str, needed: set[str], most: int) -> None:
    """Each is pinned to a version and to its files; the load generator is not in the service's."""
    text = (ROOT / "app" / file).read_text()
    pinned = r"^([\w.-]+)==([\w.]+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\\n|\n))+)"
    packages = re.findall(pinned, text, re.MULTILINE)
    names = {name for name, _, _ in packages}

    assert len(packages) == len(re.findall(r"^[^#\s]", text, re.MULTILINE)) <= most
    assert needed <= names
    assert ("locust" in names) == (file == "requirements-traffic.txt")


def test_the_load_generator_needs_no_package_that_its_image_lacks() -> None:
    """It is one file, which imports what is pinned for it and the standard library."""
    stage = (ROOT / "app/Dockerfile").read_text().partition("AS traffic\n")[2].partition("FROM")[0]
    (file,) = re.findall(r"^COPY app/(\S+) /srv/$", stage, re.MULTILINE)
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "app/requirements-traffic.txt").read_text(), re.MULTILINE)
    modules = {
        name.split(".")[0]
        for node in ast.walk(ast.parse((ROOT / "app" / file).read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert f'CMD ["python", "{file}"]' in stage
    assert modules - sys.stdlib_module_names <= set(pinned)


def test_packages_are_installed_by_their_hashes() -> None:
    """Every one that comes from elsewhere, those that build our own package included."""
    commands = re.findall(r"pip (install|wheel) (.*?)(?: &&|$)", (ROOT / "app/Dockerfile").read_text(), re.M)

    assert [what for what in commands if "--require-hashes" not in what[1]] == [
        ("wheel", "--no-index --no-deps --no-build-isolation --wheel-dir /dist /src"),
        ("install", "--no-index --no-deps /dist/*.whl"),
    ]
    assert {SERVICES[name]["build"]["target"] for name in ("app", "traffic")} == {"app", "traffic"}


@each_service
def test_a_service_has_no_rights(name: str) -> None:
    """No root, no capabilities and no way to gain any, nothing writable but volumes, bounds on its use."""
    service = EVERY[name]

    assert int(str(service["user"]).split(":")[0]) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["pids_limit"] > 0
    assert service["mem_limit"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service.keys().isdisjoint(
        {"privileged", "network_mode", "pid", "ipc", "cap_add", "devices", "env_file"}
    )


@each_service
def test_a_service_has_a_healthcheck(name: str) -> None:
    """It asks 127.0.0.1, because localhost may be ::1, where nobody listens."""
    check = EVERY[name]["healthcheck"]

    assert check["test"][0] == "CMD"
    assert "localhost" not in " ".join(check["test"])
    assert {"interval", "timeout", "retries", "start_period"} <= check.keys()


@each_service
def test_a_service_is_reached_on_loopback_only(name: str) -> None:
    """Whoever wants it otherwise has to say so."""
    expected = [f"127.0.0.1:{PORTS[name]}:{PORTS[name]}"] if name in PORTS else []

    assert EVERY[name].get("ports", []) == expected
    opened = complete(BIND_ADDRESS="10.0.0.1")[name].get("ports", [])
    assert opened == [port.replace("127.0.0.1", "10.0.0.1") for port in expected]


@each_service
def test_a_service_cannot_change_what_comes_from_the_host(name: str) -> None:
    """Directories and files of the host are mounted read-only and exist; data goes into named volumes."""
    for mount in EVERY[name].get("volumes", []):
        source, _, mode = mount.split(":") if mount.count(":") == 2 else (*mount.split(":"), "rw")
        if source.startswith((".", "/")):
            assert mode == "ro", mount
            assert (ROOT / source).exists(), mount
        else:
            assert source in VOLUMES, mount


@each_service
def test_a_service_waits_for_the_health_of_others(name: str) -> None:
    """Started is not ready. Those that watch the app do not wait for it: it may be what does not come up."""
    waits = EVERY[name].get("depends_on", {})

    assert all(need == {"condition": "service_healthy"} for need in waits.values())
    assert waits.keys() <= EVERY.keys()
    assert "app" not in waits or name == "traffic"


# Every set of files that a page or a comment names, and docker-compose.yml alone.
COMBINATIONS = sorted(
    {("docker-compose.yml",)}
    | {
        tuple(re.findall(r"-f (\S+\.yml)", command))
        for pattern in (
            "*.yml",
            "*.md",
            "docs/**/*.md",
            "deploy/**/*.md",
            "deploy/**/*.yml",
            "prometheus/*.md",
        )
        for file in ROOT.glob(pattern)
        for command in re.findall(r"(?:-f [\w./-]+\.yml ?){2,}", file.read_text(encoding="utf-8"))
    }
)


def configured(*files: str, **environment: str) -> dict[str, dict[str, Any]]:
    """The services of several files together, as compose reads them."""
    command = compose()
    if command is None:
        pytest.skip(f"NOT TESTED: {files} as compose reads them (no docker compose here)")
    arguments = [argument for file in files for argument in ("-f", str(ROOT / file))]
    answer = subprocess.run(
        [*command, *arguments, "config", "--format", "json"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    services: dict[str, dict[str, Any]] = json.loads(answer.stdout)["services"]
    return services


@pytest.mark.parametrize("files", COMBINATIONS, ids=" ".join)
def test_compose_takes_each_combination(files: tuple[str, ...]) -> None:
    """No port is published twice or to other machines, and no file gives a service more rights."""
    services = configured(*files)
    ports = [port for service in services.values() for port in service.get("ports", ())]

    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert len({port["published"] for port in ports}) == len(ports)
    assert {service["read_only"] for service in services.values()} == {True}
    assert all(service["cap_drop"] == ["ALL"] and service["healthcheck"] for service in services.values())


def test_every_file_is_in_a_combination() -> None:
    """What no page names nobody starts."""
    assert {file for files in COMBINATIONS for file in files} == {
        "docker-compose.yml",
        "replicas.yml",
        "deploy/replicas/cluster.yml",
        *OVERLAYS,
    }


@pytest.mark.parametrize(("sharded", "shards"), [("", ["", ""]), ("yes", ["1/2", "2/2"])])
def test_one_word_divides_the_targets(sharded: str, shards: list[str]) -> None:
    """The two Prometheus of the cluster scrape all targets each, or half of them."""
    services = configured("docker-compose.yml", "cluster.yml", SHARDED=sharded)

    assert [services[name]["environment"]["SHARD"] for name in ("prometheus", "prometheus-2")] == shards


def test_no_password_is_written_down() -> None:
    """Nothing in the environment of a service looks like a secret, unless it comes from the user."""
    words = re.compile(r"password|secret|token|api_?key", re.IGNORECASE)
    written = {
        f"{name}: {variable}"
        for name, service in SERVICES.items()
        for variable, value in service.get("environment", {}).items()
        if words.search(variable) and value
    }

    assert written == set()


def test_nobody_can_log_in_to_grafana_until_there_is_a_password() -> None:
    """Without GRAFANA_ADMIN_PASSWORD there is no admin: an empty GF_ variable leaves grafana.ini as it is."""
    names = (
        "GF_SECURITY_ADMIN_PASSWORD",
        "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION",
        "GF_AUTH_DISABLE_LOGIN_FORM",
    )
    settings = (ROOT / "grafana/grafana.ini").read_text()

    def environment(**variables: str) -> list[str]:
        grafana = resolved(**variables)["services"]["grafana"]["environment"]
        return [grafana[name] for name in names]

    assert environment() == ["", "", ""]
    assert environment(GRAFANA_ADMIN_PASSWORD="horse") == ["horse", "false", "false"]
    assert "disable_initial_admin_creation = true" in settings
    assert "disable_login_form = true" in settings


def test_worker_files_live_in_memory() -> None:
    """The metric files of the workers are empty at every start, and nobody but the app can read them."""
    app = SERVICES["app"]
    mount = next(
        mount for mount in app["tmpfs"] if mount.startswith(app["environment"]["PROMETHEUS_MULTIPROC_DIR"])
    )

    assert dict(option.split("=") for option in mount.split(":")[1].split(",")) == {
        "uid": app["user"].split(":")[0],
        "gid": app["user"].split(":")[1],
        "mode": "0700",
        "size": "64m",
    }


def test_every_service_that_measures_itself_is_scraped() -> None:
    """Targets of prometheus.yml are services of compose, under their names there."""
    files = (ROOT / "prometheus/targets").glob("*.yml")
    found = {
        target
        for file in files
        for group in yaml.safe_load(file.read_text()) or []
        for target in group["targets"]
    }
    hosts = {re.sub(r"^https?://", "", target).split(":")[0] for target in found}

    assert hosts <= SERVICES.keys()
    assert {"app", "prometheus", "alertmanager", "blackbox", "node-exporter", "loki", "alloy"} <= hosts


def test_what_can_be_set_is_explained() -> None:
    """.env.example names every variable of the compose files and no other."""
    files = ("docker-compose.yml", *OVERLAYS)
    used = {name for file in files for name in re.findall(r"(?<!\$)\$\{(\w+)", (ROOT / file).read_text())}

    assert set(re.findall(r"^#(\w+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)) == used


@pytest.mark.parametrize(
    "files", [["longterm.yml"], ["cluster.yml", "deploy/replicas/cluster.yml"]], ids=lambda files: files[0]
)
def test_overlays_go_together_with_replicas(files: list[str]) -> None:
    """Every Prometheus finds the replicas, and has all but its data in common with the others."""
    services = configured("docker-compose.yml", "replicas.yml", *files)
    scrapers = [part for name, part in services.items() if name.startswith("prometheus")]
    own = {"environment": ("REPLICA", "SHARD"), "volumes": ("/prometheus",)}
    for part in scrapers:
        part["environment"] = {
            key: value for key, value in part["environment"].items() if key not in own["environment"]
        }
        part["volumes"] = [mount for mount in part["volumes"] if mount["target"] not in own["volumes"]]
        part.pop("ports")

    assert services.keys() >= OVERLAYS[files[0]].keys() | {"proxy"}
    assert all("APP_REPLICAS" in part["environment"] for part in scrapers)
    assert all(
        sorted(part["volumes"], key=str) == sorted(scrapers[0]["volumes"], key=str) for part in scrapers
    )
    assert all({**part, "volumes": []} == {**scrapers[0], "volumes": []} for part in scrapers)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[list[str]]:
    """Compose's command for a project of its own on a free port, taken down and looked after at the end."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True).returncode:
        pytest.skip("NOT TESTED: the app in its container (no docker engine is running here)")
    command = compose()
    if command is None:
        pytest.skip("NOT TESTED: the app in its container (there is an engine here, but no docker compose)")
    base = re.search(r"^ARG BASE=(\S+)$", (ROOT / "app/Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    if not any(
        subprocess.run([docker, *get, base[1]], capture_output=True, timeout=600).returncode == 0
        for get in (["image", "inspect"], ["pull", "--quiet"])
    ):
        pytest.skip(f"NOT TESTED: the app in its container ({base[1]} is not here and cannot be pulled)")
    other_port = tmp_path / "port.yml"
    other_port.write_text('services: {app: {ports: !override ["127.0.0.1::8000"]}}')
    name = f"test-compose-{os.getpid()}"
    files = ["-f", str(ROOT / "docker-compose.yml"), "-f", str(other_port)]
    command += ["-p", name, *files]
    try:
        yield command
    finally:
        subprocess.run([*command, "down", "-v", "--rmi", "local"], capture_output=True, check=True)
        mine = ["--quiet", "--filter", f"label=com.docker.compose.project={name}"]
        for kind in (["ps", "--all"], ["volume", "ls"], ["network", "ls"]):
            assert subprocess.check_output([docker, *kind, *mine], text=True) == "", kind


def test_the_app_serves_in_its_container(project: list[str]) -> None:
    """Built and started as compose says, without root on a read-only filesystem, it counts every request."""
    subprocess.run([*project, "up", "--build", "--wait", "--quiet-pull", "app"], check=True)
    address = subprocess.check_output([*project, "port", "app", "8000"], text=True).strip()

    for _ in range(20):
        urllib.request.urlopen(f"http://{address}/orders", timeout=10).close()

    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    assert 'flask_http_request_total{method="GET",status="200"} 20.0' in metrics
    log = subprocess.check_output(
        [*project, "exec", "-T", "app", "cat", "/var/log/app/requests.jsonl"], text=True
    )
    assert [json.loads(line)["url_rule"] for line in log.splitlines()].count("/orders") == 20
