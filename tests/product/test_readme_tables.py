"""The tables of README.md and docs/ say what the code has, no less and no more."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from flask import Flask
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

import app as service
from exporter import Settings
from exporter.settings import meanings
from prometheus.run.plan import PORTS, TOP, Plan
from tests.rig.alerts import ALERTS, rules
from tests.rig.places import ROOT
from tests.rig.readme import PAGES, expanded

SETTINGS = PAGES["docs/reference/settings.md"]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    """The service, on a registry of its own."""
    database = tmp_path_factory.mktemp("app") / "orders.db"
    return service.create_app({"DATABASE": str(database)}, registry=CollectorRegistry())


def test_urls() -> None:
    """Each port that compose publishes has its line."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    published = {
        port.rpartition(":")[2] for part in compose["services"].values() for port in part.get("ports", ())
    }

    assert {f"<http://127.0.0.1:{port}>" for port in published} == {
        url for _, url, _ in PAGES["README.md"].table("Start")
    }


def test_metrics(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, type and labels of every family of the exporter."""
    monkeypatch.setattr("exporter.worker.worker._threads", 8)
    client = app.test_client()
    for path in ("/orders", "/test/error", "/test/stream", "/test/slow?seconds=0.6"):
        client.get(path, buffered=False).close()
    exposed = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        if family.name.startswith("flask_") and not family.name.endswith("_created"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            exposed[name] = (family.type, labels)

    documented = {
        name: (kind, set(re.findall(r"\w+", labels)))
        for name, kind, labels, _ in PAGES["docs/reference/metrics.md"].table("Metrics")
    }

    assert documented == exposed


def test_recorded_series() -> None:
    """Each recorded series is in one line, and each line is recorded."""
    documented = [
        name
        for pattern, *_ in PAGES["docs/reference/recorded-series.md"].table("Recorded series")
        for name in expanded(pattern)
    ]

    assert sorted(documented) == sorted({rule["record"] for rule in rules() if "record" in rule})


def test_alerts() -> None:
    """Name, severities and meaning of every alert, with a link to its runbook."""
    expected: dict[str, tuple[list[str], list[str]]] = {}
    for rule in ALERTS:
        name = f"[{rule['alert']}](../../prometheus/runbooks/{rule['alert']}.md)"
        severities, summaries = expected.setdefault(name, ([], []))
        for known, value in (
            (severities, rule["labels"]["severity"]),
            (summaries, rule["annotations"]["summary"]),
        ):
            if value not in known:
                known.append(value)

    assert {(name, ", ".join(s), " ".join(m)) for name, (s, m) in expected.items()} == set(
        PAGES["docs/reference/alerts.md"].table("Alerts")
    )


def test_exporter_settings() -> None:
    """Every setting in its order, its meaning, and its default as the variable would have it."""
    defaults = Settings()
    documented = {name: default for name, default, _ in SETTINGS.table("The exporter")}

    assert [(name, meaning) for name, _, meaning in SETTINGS.table("The exporter")] == list(meanings())
    for name, text in documented.items():
        field = name.removeprefix("EXPORTER_").lower()
        if text:
            assert getattr(Settings.load({name: text}), field) == getattr(defaults, field), name
        else:
            assert getattr(defaults, field) in (None, ()), name


def test_service_settings() -> None:
    """Every variable that the service, its server's configuration and its traffic read."""
    documented = {name: default for name, default, _ in SETTINGS.table("The service")}
    own = {f"APP_{name}": default for name, default in service.SETTINGS.items()}
    read = {}
    for file in ("app/gunicorn.conf.py", "app/traffic.py"):
        source = (ROOT / file).read_text(encoding="utf-8")
        for name, default in re.findall(r'(?:get|_number)\("([A-Z_]+)"(?:, ([^,)]+))?', source):
            read[name] = default.strip('"')

    assert documented == own | read


def test_compose_settings() -> None:
    """Every variable of .env.example with the default of the compose files."""
    compose = "".join(file.read_text(encoding="utf-8") for file in ROOT.glob("*.yml"))
    documented = {name: default for name, default, _ in SETTINGS.table("docker compose")}
    example = re.findall(r"^#(\w+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    defaults = dict.fromkeys(example, "") | dict(re.findall(r"\$\{(\w+):-([^}]*)\}", compose))

    assert sorted(documented) == sorted(example)
    assert documented == {name: defaults[name].replace("/dev/null", "") for name in example}


def test_run_settings() -> None:
    """Every variable that `make run` reads, with its default."""
    documented = {name: default for name, default, _ in SETTINGS.table("make run")}
    sources = "".join((ROOT / f"prometheus/{name}.py").read_text() for name in ("run/plan", "tools/archives"))
    read = set(re.findall(r'environ(?:\.get\(|, )"([A-Z_]+)"', sources))
    plan = Plan.load({})

    assert set(documented) == read | set(PORTS.values())
    assert {name: documented[name] for name in PORTS.values()} == {
        setting: address.partition(":")[2] for address, setting in PORTS.items()
    }
    assert (TOP / documented["RUN_DIR"], TOP / documented["TARGETS_DIR"]) == (plan.run, plan.targets)
    assert (documented["TRAFFIC_USERS"], documented["TIME_SCALE"]) == (str(plan.users), f"{plan.scale:g}")


def test_paths_of_a_service(app: Flask) -> None:
    """Every path that the exporter serves."""
    paths = app.extensions["flask_exporter"].endpoints.paths - {"/favicon.ico"}  # which it does not answer

    assert {path for path, _ in PAGES["docs/reference/http.md"].table("What a service answers")} == paths


def test_dashboards() -> None:
    """Every dashboard but the one that leads to them."""
    files = (file.relative_to(ROOT) for file in (ROOT / "grafana/dashboards").glob("*/*.json"))
    linked = [
        match[1]
        for name, _ in PAGES["README.md"].table("What you see")
        if (match := re.search(r"\((.*)\)", name))
    ]

    assert sorted(linked) == sorted(map(str, files))


def test_commands() -> None:
    """What `make help` says."""
    # Not as a part of the `make test` that runs this, or it would say which directory it enters.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    said = subprocess.run(
        ["make", "help"], cwd=ROOT, env=environ, capture_output=True, text=True, check=True
    ).stdout
    helped = [(f"make {name}", text) for name, text in (line.split(None, 1) for line in said.splitlines())]

    assert PAGES["docs/contributing.md"].table("Development") == helped


def test_layout() -> None:
    """Every directory at the top that is in the repository."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    directories = {
        f"{Path(name).parts[0]}/" for name in tracked.splitlines() if "/" in name and name[0] != "."
    }
    documented = {path for path, _ in PAGES["docs/contributing.md"].table("Layout")}

    assert {path for path in documented if path.endswith("/")} == directories
    assert all((ROOT / path).exists() for path in documented)
