"""`make run`: everything up, or one line that says what is wrong; and nothing left behind."""

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.request import urlopen

import pytest
import yaml

from prometheus.run import ports, preparation
from prometheus.run.plan import TOP, Plan, PlanError
from prometheus.run.record import Record
from prometheus.run.scrapes import Scrapes, reason
from prometheus.run.targets import check_jobs, localize
from tests.rig.deadline import eventually
from tests.rig.network import free_ports, get_json
from tests.rig.stack import STARTED, running, settings, start

QUICK = {"TIME_SCALE": "15"}
"""A scrape each second instead of each five."""


@pytest.mark.parametrize("speed", [QUICK, pytest.param({}, marks=pytest.mark.soak)], ids=["quick", "shipped"])
def test_up_and_down(tmp_path: Path, speed: dict[str, str]) -> None:
    """Every target is up when the table is printed, and Ctrl-C leaves no process, port or worker file."""
    environ = settings(tmp_path / "run", **speed)
    since = time.time() - 1000
    with running(environ, "--since", str(since)) as run:
        run.wait_until_up()
        seconds = time.time() - since

        steps = run.output.splitlines()
        assert steps[0].startswith("starting app, prometheus, alertmanager")
        assert re.fullmatch(r"waiting until Prometheus has scraped all \d+ targets", steps[1])
        up = re.match(r"Up after (\d+) s, ", steps[2])
        assert up is not None
        assert 1000 < int(up[1]) <= seconds + 0.5

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
        remedy = "end that one with `make stop`, or set RUN_DIR"
        assert second.communicate(timeout=30) == (
            "",
            f"make run: {tmp_path}/run is in use by another run: {remedy}\n",
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


def test_killed(tmp_path: Path) -> None:
    """After SIGKILL nothing is left: no process, not even a child of a child, no port and no worker file."""
    environ = settings(tmp_path / "run", **QUICK)
    with running(environ) as run:
        run.wait_until_up(STARTED)
        workers = {
            Path(environment(pid)["PROMETHEUS_MULTIPROC_DIR"])
            for pid, command in run.processes().items()
            if "app/gunicorn.conf.py" in command
        }

        run.process.kill()
        run.process.wait(10)

        eventually(lambda: run.processes() == {}, "no process of the run")
        assert [path for path in workers if path.exists()] == []
        ports.check(Plan.load(environ), {"app", "prometheus", "alertmanager", "blackbox", "node-exporter"})
        assert Record.of(tmp_path / "run").alive() == []


def test_leftovers(tmp_path: Path) -> None:
    """Where the keeper was killed too, what is left is named, and `make stop` ends it with its children."""
    environ = settings(tmp_path / "run", **QUICK, TRAFFIC_USERS="0")
    with running(environ) as run:
        run.wait_until_up(STARTED)
        app = next(pid for pid, command in run.processes().items() if "app/gunicorn.conf.py" in command)
        workers = Path(environment(app)["PROMETHEUS_MULTIPROC_DIR"])
        keeper = next(pid for pid, command in run.processes().items() if "prometheus.run.record" in command)
        os.kill(keeper, signal.SIGKILL)
        run.process.kill()
        run.process.wait(10)
        left = Record.of(tmp_path / "run").alive()
        assert {process.name for process in left} >= {"app", "prometheus", "alertmanager"}
        names = ", ".join(f"{process.name} {process.pid}" for process in left)

        line = refused(environ)
        stop = start(environ, "--stop")

        assert line == f"a run that was killed has left processes ({names}): end them with `make stop`"
        assert stop.communicate(timeout=40) == (f"ended what a killed run has left: {names}\n", "")
        assert run.processes() == {}
        assert not workers.exists()


def test_stop(tmp_path: Path) -> None:
    """`make stop` ends a run from another terminal, and says so where there is none."""
    environ = settings(tmp_path / "run", **QUICK, TRAFFIC_USERS="0")
    nothing = (f"nothing to stop in {tmp_path}/run\n", "")
    assert start(environ, "--stop").communicate(timeout=40) == nothing
    with running(environ) as run:
        run.wait_until_up(STARTED)

        assert start(environ, "--stop").communicate(timeout=40) == (
            f"stopped the run (pid {run.process.pid})\n",
            "",
        )
        output, errors = run.process.communicate(timeout=10)
        assert run.process.returncode == 0
        assert (run.output + output).endswith("stopping\nstopped\n")
        assert errors == ""
        assert start(environ, "--stop").communicate(timeout=40) == nothing


def test_a_recycled_process_id_is_left_alone(tmp_path: Path) -> None:
    """A process is known by its id and its start."""
    record = Record(tmp_path / "processes")
    record.add("mine", os.getpid())
    assert [process.name for process in record.alive()] == ["mine"]
    pid, started, name = record.path.read_text().split("\t")
    record.path.write_text("\t".join([pid, f"{started}0", name]))

    assert record.alive() == []
    assert record.end() == []


def test_a_target_of_the_users_that_is_down(tmp_path: Path) -> None:
    """It is counted and named with the reason and the remedy, and the rest is there all the same."""
    directory = tmp_path / "targets"
    shutil.copytree(TOP / "prometheus/targets", directory)
    dead, unnamed = free_ports(2)
    group = f"- targets: [127.0.0.1:{dead}]\n  labels: {{service: shop}}\n- targets: [127.0.0.1:{unnamed}]\n"
    with (directory / "app.yml").open("a") as file:
        file.write(group)
    with running(settings(tmp_path / "run", **QUICK, TARGETS_DIR=str(directory), TRAFFIC_USERS="0")) as run:
        run.wait_until_up()

        warning, *_ = run.output.splitlines()
        assert warning == (
            f"warning: targets/app.yml: 127.0.0.1:{unnamed} has no label `service`, so alerts call it app: "
            "add `labels: {service: name}`"
        )
        up = re.search(r"^Up after \d+ s, but only (\d+) of (\d+) targets:$", run.output, re.MULTILINE)
        assert up is not None
        assert int(up[2]) - int(up[1]) == 2
        remedy = "connection refused: start it, or mend its address"
        assert f"  DOWN: shop (127.0.0.1:{dead}): {remedy}\n" in run.output
        assert f"  DOWN: app (127.0.0.1:{unnamed}): {remedy}\n" in run.output


def test_a_target_that_no_file_names(tmp_path: Path) -> None:
    """One of `static_configs`, which Prometheus alone knows, is waited for, counted and named as well."""
    target = {
        "scrapePool": "shop",
        "discoveredLabels": {"__address__": "127.0.0.1:1"},
        "labels": {"job": "shop"},
        "scrapeUrl": "http://127.0.0.1:1/metrics",
        "lastError": "",
        "health": "unknown",
    }

    class Prometheus(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"data": {"activeTargets": [target]}}).encode())

    with HTTPServer(("127.0.0.1", 0), Prometheus) as server:
        threading.Thread(target=server.serve_forever).start()
        plan = Plan.load({"RUN_DIR": str(tmp_path), "PROMETHEUS_PORT": str(server.server_port)})
        preparation.copy_configuration(plan)
        scrapes = Scrapes(plan, [], [])
        first = scrapes.complaint()
        target |= {"health": "down", "lastError": "connect: connection refused"}
        second = scrapes.complaint()
        server.shutdown()

    assert (first, second, scrapes.count) == ("target 127.0.0.1:1 of shop: not scraped yet", None, 1)
    assert list(scrapes.down.values()) == [
        "shop (127.0.0.1:1): connection refused: start it, or mend its address"
    ]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("server returned HTTP status 401 UNAUTHORIZED", "401, it wants a token: see docs/how-to/access.md"),
        (
            "server returned HTTP status 403 FORBIDDEN",
            "403, Prometheus' address may not read there: see docs/how-to/access.md",
        ),
        (
            "server returned HTTP status 404 NOT FOUND",
            "404, no metrics there: name their path in the label __metrics_path__",
        ),
        (
            "server returned HTTP status 500 INTERNAL SERVER ERROR",
            "500, and its answer says why: look at http://a:1/metrics",
        ),
        (
            'Get "http://a:1/metrics": dial tcp: lookup a on 127.0.0.11:53: no such host',
            "no such host: mend its address",
        ),
        (
            'Get "http://a:1/metrics": context deadline exceeded',
            "no answer in time: look at http://a:1/metrics",
        ),
        ("invalid metric type \\d", "invalid metric type \\d: look at http://a:1/metrics"),
    ],
)
def test_reasons(error: str, said: str) -> None:
    """What Prometheus says becomes what to do."""
    target: dict[str, Any] = {
        "labels": {"job": "app", "service": "shop"},
        "discoveredLabels": {"__address__": "a:1"},
        "lastError": error,
        "scrapeUrl": "http://a:1/metrics",
    }

    assert reason(target) == f"shop (a:1): {said}"


def test_part_dies(tmp_path: Path) -> None:
    """A part that dies is named with the end of its log, and the others are stopped."""
    with running(settings(tmp_path / "run", **QUICK, TRAFFIC_USERS="0")) as run:
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

        command = Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()[:80]
        assert line == (
            f"port {port} for {part} ({setting}) is taken by pid {os.getpid()} ({command}): "
            "end what listens there, or move all with PORT_OFFSET=1000"
        )

    def test_ports_taken(self, tmp_path: Path) -> None:
        """All of them in one message."""
        environ = settings(tmp_path / "run")
        with (
            socket.create_server(("127.0.0.1", int(environ["APP_PORT"]))),
            socket.create_server(("0.0.0.0", int(environ["PROMETHEUS_PORT"]))),
            socket.create_server(("127.0.0.1", int(environ["NODE_PORT"]))),
        ):
            line = refused(environ)

        complaints = line.removesuffix(": end what listens there, or move all with PORT_OFFSET=1000").split(
            "; "
        )
        assert [complaint.partition(" is taken by pid ")[0] for complaint in complaints] == [
            f"port {environ['APP_PORT']} for app (APP_PORT)",
            f"port {environ['PROMETHEUS_PORT']} for prometheus (PROMETHEUS_PORT)",
            f"port {environ['NODE_PORT']} for node-exporter (NODE_PORT)",
        ]

    def test_a_port_for_the_mighty(self, tmp_path: Path) -> None:
        """What is not taken and cannot be had all the same says why."""
        plan = Plan.load(settings(tmp_path / "run") | {"APP_PORT": "1"})
        with pytest.MonkeyPatch.context() as patch:
            denied = PermissionError(errno.EACCES, "Permission denied")
            patch.setattr(socket.socket, "bind", Mock(side_effect=denied))

            with pytest.raises(PlanError) as refusal:
                ports.check(plan, {"app"})

        assert str(refusal.value).startswith("port 1 for app (APP_PORT) cannot be used (Permission denied): ")

    @pytest.mark.parametrize(
        ("setting", "value", "line"),
        [
            ("APP_PORT", "http", "APP_PORT='http': give a whole number from 1 to 65535"),
            ("APP_PORT", "0", "APP_PORT='0': give a whole number from 1 to 65535"),
            ("TRAFFIC_USERS", "1.5", "TRAFFIC_USERS='1.5': give a whole number from 0 to 1000"),
            ("WEB_CONCURRENCY", "lots", "WEB_CONCURRENCY='lots': give a whole number from 1 to 1000"),
            ("APP_THREADS", "0", "APP_THREADS='0': give a whole number from 1 to 1000"),
            ("TRAFFIC_ERROR_RATIO", "5%", "TRAFFIC_ERROR_RATIO='5%': give a number from 0 to 1"),
            ("PORT_OFFSET", "-1", "PORT_OFFSET='-1': give a whole number from 0 to 50000"),
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
            ("- targets: [http://a:1]", "group 1: target 'http://a:1': write a:1"),
            (
                "- targets: [https://a:1]",
                "group 1: target 'https://a:1': write a:1, and `__scheme__: https` into its labels",
            ),
            (
                "- targets: [a:1/inside/metrics]",
                "group 1: target 'a:1/inside/metrics': "
                "write a:1, and `__metrics_path__: /inside/metrics` into its labels",
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
    """The copy has the shipped files and no code; a user's tokens may join them, and a form."""
    shipped = {"prometheus.yml", "blackbox.yml", "rules", "runbooks", "alertmanager", "targets"}

    names = {entry.name for entry in plan.configuration.iterdir()}
    assert {name for name in names if not name.startswith("token")} == shipped
    suffixes = {file.suffix for file in plan.configuration.rglob("*.*")}
    assert suffixes - {".html"} == {".yml", ".md", ".sh", ".tmpl"}


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


def test_only_what_is_wrong_is_said(plan: Plan) -> None:
    """A mistake in a rule file of the user's is named alone, without promtool's remarks on other files."""
    localize(plan, set())
    (plan.configuration / "rules/zz.yml").write_text("groups: 5")

    with pytest.raises(PlanError, match=r"^promtool refuses the configuration: rules/zz\.yml: "):
        preparation.check_configuration(plan)


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

    own, others = localize(plan, {"app", "prometheus", "alertmanager", "blackbox"})

    assert own == {("app.yml", "127.0.0.1:8000"), ("probe.yml", "http://127.0.0.1:8000/health/ready")}
    assert others == {("app.yml", "mine:8000"), ("probe.yml", "https://example.com/app:8000")}
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


def test_jobs(plan: Plan) -> None:
    """A job that nobody sees, a file that nobody reads and a service without a name are said at the start."""
    plan.targets.mkdir()
    for name in ("app.yml", "urls.yml", "mine.yml"):
        (plan.targets / name).write_text("- targets: [a:1, b:2]\n")
    file = plan.configuration / "prometheus.yml"
    document = yaml.safe_load(file.read_text())
    document["scrape_configs"].append({"job_name": "shop"})
    file.write_text(yaml.safe_dump(document))

    assert check_jobs(plan) == [
        "job shop: no rule and no dashboard sees it; a service belongs to the job app",
        "targets/app.yml: a:1, b:2 has no label `service`, so alerts call it app: "
        "add `labels: {service: name}`",
        "targets/mine.yml: no job in prometheus.yml reads this file",
    ]


def test_a_renamed_job_is_refused(plan: Plan) -> None:
    """No rule and no dashboard would see any service."""
    file = plan.configuration / "prometheus.yml"
    file.write_text(file.read_text().replace("job_name: app", "job_name: shop"))

    with pytest.raises(
        PlanError, match=r"^prometheus\.yml has the jobs shop, .*: the rules and dashboards want"
    ):
        check_jobs(plan)


def test_make_run_is_timed_from_its_beginning() -> None:
    """The time that is reported at the end includes what was installed first."""
    before = int(time.time())
    recipe = subprocess.run(
        ["make", "--dry-run", "run"], cwd=TOP, capture_output=True, text=True, check=True
    ).stdout
    since = re.search(r"^\S+/python -m prometheus\.run --since (\d+)$", recipe, re.MULTILINE)

    assert since is not None
    assert before <= int(since[1]) <= time.time()


def test_an_install_without_the_internet_says_what_to_do(tmp_path: Path) -> None:
    """And `make run` asks for no more than it needs."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(TOP / name, tmp_path)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / ".venv/.created").touch()
    others = {
        name: value for name, value in os.environ.items() if not re.match("PIP_|M(AKE)?FLAGS|MAKELEV", name)
    }
    end = subprocess.run(
        ["make", "run"],
        cwd=tmp_path,
        env={**others, "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    reason, remedy, _ = end.stderr.splitlines()

    assert (end.returncode, end.stdout) == (2, 'installing into .venv the packages of the stage "run"\n')
    assert reason.strip() == "ERROR: No matching distribution found for hatchling"
    assert remedy.startswith(
        "The packages cannot be installed; .venv/pip.log has all that pip said. The first"
    )
    assert not (tmp_path / ".venv/.run").exists()


def test_make_help_names_run() -> None:
    """Whoever types `make` is told of `make run`."""
    said = subprocess.run(["make"], cwd=TOP, capture_output=True, text=True, check=True).stdout

    assert re.search(r"^  run +the whole stack without Docker, until Ctrl-C$", said, re.MULTILINE)
