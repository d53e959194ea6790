"""`make run`: everything up, or one line that says what is wrong; and nothing left behind."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
import yaml

from prometheus.run import preparation
from prometheus.run.plan import TOP, Plan, PlanError
from prometheus.run.targets import localize
from tests.rig.deadline import eventually
from tests.rig.network import get_json
from tests.rig.stack import running, settings, start


def test_up_and_down(tmp_path: Path) -> None:
    """Every target is up when the table is printed, and Ctrl-C leaves no process, port or worker file."""
    environ = settings(tmp_path / "run")
    since = time.time() - 1000
    with running(environ, "--since", str(since)) as run:
        run.wait_until_up()
        wait = time.time() - since

        steps = run.output.splitlines()
        assert steps[0].startswith("starting app, prometheus, alertmanager")
        assert re.fullmatch(r"waiting until Prometheus has scraped all \d+ targets", steps[1])
        up = re.match(r"Up after (\d+) s, ", steps[2])
        assert up is not None
        assert int(up[1]) == pytest.approx(wait, abs=1)

        targets = get_json(run.url("PROMETHEUS_PORT", "/api/v1/targets?state=active"))["data"][
            "activeTargets"
        ]
        assert {target["health"] for target in targets} == {"up"}
        assert {"app", "prometheus", "alertmanager"} <= {target["labels"]["job"] for target in targets}
        alertmanagers = get_json(run.url("PROMETHEUS_PORT", "/api/v1/alertmanagers"))["data"]
        assert alertmanagers["activeAlertmanagers"] == [
            {"url": run.url("ALERTMANAGER_PORT", "/api/v2/alerts")}
        ]
        with urlopen(run.url("APP_PORT", "/test/normal"), timeout=5) as answer:
            assert answer.status == 200
        for setting in ("APP_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT"):
            assert run.url(setting) in run.output.split()
        processes = run.processes()
        gunicorn = [pid for pid, command in processes.items() if "app/gunicorn.conf.py" in command]
        assert len(gunicorn) == 3
        assert sum("app.traffic" in command for command in processes.values()) == 1
        (workers,) = {Path(environment(pid)["PROMETHEUS_MULTIPROC_DIR"]) for pid in gunicorn}
        assert list(workers.iterdir()) != []

        second = start({**settings(tmp_path / "run"), "TRAFFIC_USERS": "0"})
        assert second.communicate(timeout=30) == (
            "",
            f"make run: {tmp_path}/run is in use by another run: end that one, or set RUN_DIR\n",
        )

        assert run.end(signal.SIGINT) == (0, "")
        assert run.processes() == {}
        assert not workers.exists()
        for setting in ("APP_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT"):
            with socket.create_server(("127.0.0.1", int(environ[setting]))):
                pass


def environment(pid: int) -> dict[str, str]:
    """The environment that a process was started with."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().rstrip("\0").split("\0")
    return dict(entry.split("=", 1) for entry in entries)


def test_terminated_while_starting(tmp_path: Path) -> None:
    """SIGTERM before everything is up ends what has been started so far."""
    with running(settings(tmp_path / "run")) as run:
        eventually(lambda: "app/gunicorn.conf.py" in str(run.processes()), "the app is started")

        assert run.end(signal.SIGTERM) == (0, "")

        assert run.processes() == {}


def test_part_dies(tmp_path: Path) -> None:
    """A part that dies is named with the end of its log, and the others are stopped."""
    with running(settings(tmp_path / "run", TIME_SCALE="60", TRAFFIC_USERS="0")) as run:
        run.wait_until_up()
        found = [pid for pid, command in run.processes().items() if "--web.user-assets" in command]
        assert len(found) == 1

        os.kill(found[0], signal.SIGKILL)
        _, errors = run.process.communicate(timeout=40)

        lines = errors.splitlines()
        log = tmp_path / "run/logs/prometheus.log"
        assert lines[0] == f"make run: prometheus was killed by signal 9; the end of {log}:"
        assert lines[1:] == [f"  {line}" for line in log.read_text().splitlines()[-12:]]
        assert run.process.returncode == 1
        assert run.processes() == {}


def refused(environ: dict[str, str]) -> str:
    """The line with which a run ends that cannot start."""
    process = start(environ)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (1, "")
    assert errors.startswith("make run: ")
    assert errors.count("\n") == 1, errors
    return errors.removeprefix("make run: ").rstrip("\n")


class TestRefused:
    @pytest.mark.parametrize("setting", ["APP_PORT", "PROMETHEUS_PORT", "ALERTMANAGER_PORT"])
    def test_port_taken(self, tmp_path: Path, setting: str) -> None:
        """A port that something else listens on is named with the part and the setting."""
        environ = settings(tmp_path / "run")
        part = setting.removesuffix("_PORT").lower()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]

            line = refused({**environ, setting: str(port)})

        assert line == (
            f"port {port} for {part} cannot be used (Address already in use): "
            f"end what listens there, or set {setting} to another"
        )

    @pytest.mark.parametrize(
        ("setting", "value", "line"),
        [
            ("APP_PORT", "http", "APP_PORT='http': give a whole number from 1 to 65535"),
            ("APP_PORT", "0", "APP_PORT='0': give a whole number from 1 to 65535"),
            ("TRAFFIC_USERS", "1.5", "TRAFFIC_USERS='1.5': give a whole number from 0 to 1000"),
            ("TIME_SCALE", "nan", "TIME_SCALE='nan': give a number from 1 to 300"),
            (
                "EXPORTER_BUCKETS",
                "1,half",
                "EXPORTER_BUCKETS='1,half': give upper bounds in seconds, for example 0.1,0.5,2",
            ),
        ],
    )
    def test_setting(self, tmp_path: Path, setting: str, value: str, line: str) -> None:
        """A setting that cannot be used is named with its value and what it takes."""
        assert refused({**settings(tmp_path / "run"), setting: value}) == line

    def test_receiver(self, tmp_path: Path) -> None:
        """A receiver without its secret is refused: Alertmanager would take it and tell nobody."""
        line = refused(settings(tmp_path / "run", ALERT_RECEIVER="slack", ALERT_SECRET_FILE="secrets/none"))

        assert line == f"ALERT_SECRET_FILE={TOP}/secrets/none: there is no such file"

    def test_same_port(self, tmp_path: Path) -> None:
        """Two parts on one port are both named."""
        environ = settings(tmp_path / "run")
        port = environ["APP_PORT"]

        line = refused({**environ, "ALERTMANAGER_PORT": port})

        assert line == f"ALERTMANAGER_PORT and APP_PORT are both {port}: give each its own port"

    def test_no_targets(self, tmp_path: Path) -> None:
        """A directory of target files that is not there is named."""
        line = refused(settings(tmp_path / "run", TARGETS_DIR="/no/such"))

        assert line == "TARGETS_DIR=/no/such is no directory: give one with target files, such as app.yml"

    @pytest.mark.parametrize("part", ["", "logs", "data/prometheus", "data/alertmanager"])
    def test_directory(self, tmp_path: Path, part: str) -> None:
        """A directory that cannot be written is named; here a file stands in its place."""
        directory = tmp_path / "run" / part
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.write_text("")

        line = refused(settings(tmp_path / "run"))

        assert line == f"directory {directory} cannot be written (File exists): mend that, or set RUN_DIR"

    @pytest.mark.parametrize(
        ("content", "wrong"),
        [
            ("- targets: [a:1\n  labels: {}", "line 2: expected ',' or ']', but got ':'"),
            ("targets: [a:1]", "write a list of groups, each `- targets: [host:port]`"),
            (
                "- target: [a:1]",
                "group 1: write `targets: [host:port]` and, if needed, `labels: {name: value}`",
            ),
            ("- targets: [a:1]\n- targets: a:1", "group 2: targets is 'a:1': write a list, [host:port, …]"),
            (
                "- targets: [a:1]\n  labels: {shard: 1}",
                "group 1: labels is {'shard': 1}: write {name: value}, both as text (numbers in quotes)",
            ),
        ],
    )
    def test_target_file(self, tmp_path: Path, content: str, wrong: str) -> None:
        """A target file that Prometheus would silently ignore is named with what is wrong in it."""
        directory = tmp_path / "targets"
        shutil.copytree(TOP / "prometheus/targets", directory)
        (directory / "app.yml").write_text(content)

        line = refused(settings(tmp_path / "run", TARGETS_DIR=str(directory)))

        assert line == f"target file {directory}/app.yml: {wrong}"


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """A run whose configuration is in place."""
    plan = Plan.load({"RUN_DIR": str(tmp_path / "run"), "TARGETS_DIR": str(tmp_path / "targets")})
    plan.run.mkdir()
    preparation.copy_configuration(plan)
    return plan


def test_configuration_holds_what_the_programs_read(plan: Plan) -> None:
    """The copy has the shipped files and no code; only a user's token may join them."""
    shipped = {"prometheus.yml", "blackbox.yml", "rules", "runbooks", "alertmanager", "targets"}

    assert {entry.name for entry in plan.configuration.iterdir()} - {"token"} == shipped
    assert {file.suffix for file in plan.configuration.rglob("*.*")} == {".yml", ".md", ".sh", ".tmpl"}


@pytest.mark.parametrize(
    ("file", "right", "wrong", "said"),
    [
        (
            "configuration/prometheus.yml",
            "scrape_configs:",
            "scrapes:",
            r"promtool refuses .* field scrapes not found",
        ),
        (
            "configuration/rules/requests.yml",
            "expr: sum ",
            "expr: sun ",
            r"promtool refuses .*requests\.yml: \d+:\d+: ",
        ),
        (
            "alertmanager.yml",
            "receiver: people",
            "receiver: nobody",
            r"amtool refuses .* undefined receiver \"nobody\"",
        ),
    ],
)
def test_configuration(plan: Plan, file: str, right: str, wrong: str, said: str) -> None:
    """What promtool and amtool refuse is said in one line before anything is started."""
    localize(plan, set())
    preparation.render_alertmanager(plan)
    preparation.check_configuration(plan)
    path = plan.run / file
    path.write_text(path.read_text().replace(right, wrong, 1))

    with pytest.raises(PlanError, match=said) as refusal:
        preparation.check_configuration(plan)

    assert "\n" not in str(refusal.value)


def test_targets(plan: Plan) -> None:
    """Compose's addresses become this machine's, users' own stay, and what does not run here is left out."""
    plan.targets.mkdir()
    given = {
        "app.yml": [{"targets": ["app:8000", "mine:8000"], "labels": {"service": "orders"}}],
        "grafana.yml": [{"targets": ["grafana:3000"]}],
        "loki.yml": [{"targets": ["loki:3100"]}],
        "probe.yml": [{"targets": ["http://app:8000/health/ready", "https://example.com/app:8000"]}],
    }
    for name, groups in given.items():
        (plan.targets / name).write_text(json.dumps(groups))

    own = localize(plan, {"app", "prometheus", "alertmanager", "blackbox"})

    assert own == {("app.yml", "127.0.0.1:8000"), ("probe.yml", "http://127.0.0.1:8000/health/ready")}
    written = {
        file.name: yaml.safe_load(file.read_text()) for file in (plan.configuration / "targets").iterdir()
    }
    assert written == {
        "app.yml": [{"targets": ["127.0.0.1:8000", "mine:8000"], "labels": {"service": "orders"}}],
        "grafana.yml": [{"targets": [], "labels": {}}],
        "loki.yml": [{"targets": [], "labels": {}}],
        "probe.yml": [
            {
                "targets": ["http://127.0.0.1:8000/health/ready", "https://example.com/app:8000"],
                "labels": {"__prober__": "127.0.0.1:9115"},
            }
        ],
    }


def test_make_run_is_timed_from_its_beginning() -> None:
    """The time that is reported at the end includes what was installed first."""
    before = int(time.time())
    recipe = subprocess.run(
        ["make", "--dry-run", "run"], cwd=TOP, capture_output=True, text=True, check=True
    ).stdout
    since = re.search(r"^\S+/python -m prometheus\.run --since (\d+)$", recipe, re.MULTILINE)

    assert since is not None
    assert before <= int(since[1]) <= time.time()


def test_make_help_names_run() -> None:
    """Whoever types `make` is told of `make run`."""
    said = subprocess.run(["make"], cwd=TOP, capture_output=True, text=True, check=True).stdout

    assert "  run          the whole stack without Docker, until Ctrl-C\n" in said
