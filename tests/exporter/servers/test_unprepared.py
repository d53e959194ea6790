"""Processes that no server's hooks have prepared the worker directory for."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from exporter.merge.format import promises_lock
from tests.rig.deadline import eventually
from tests.rig.places import ROOT
from tests.rig.server import gunicorn, serving
from tests.rig.users import STRANGER, needs_root

SERVICE = """
from prometheus_client import Counter
from flask import Flask
import exporter

exporter.FlaskExporter  # the hooks of prometheus_client's files
orders = Counter("orders", "Orders placed")
app = Flask("served")
exporter.FlaskExporter(app)

@app.get("/")
def index():
    orders.inc()
    return "hi"
"""
WARNING = "has counts of a service that has ended, and no server's master prepares it"
REQUESTS = 'flask_http_request_total{method="GET",status="200"}'


def run(directory: Path, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program beside the service, in `directory`."""
    (directory / "served.py").write_text(SERVICE)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PROMETHEUS")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=directory,
        env={**environ, "PYTHONPATH": str(ROOT), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


ASK = (
    "from served import app; client = app.test_client(); client.get('/'); print(client.get('/metrics').text)"
)


@pytest.mark.parametrize("code", ["from served import app; print(app.url_map)", ASK])
def test_a_directory_that_is_not_there_is_made_for_this_user_alone(tmp_path: Path, code: str) -> None:
    """A migration before the server starts, a job, a test."""
    path = tmp_path / "shm" / "workers"
    done = run(tmp_path, code, PROMETHEUS_MULTIPROC_DIR=str(path))

    assert (done.returncode, done.stderr) == (0, "")
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_full_disk_keeps_no_service_from_its_start(tmp_path: Path) -> None:
    full = "lambda *_, **__: os.write(os.open('/dev/full', os.O_WRONLY), b'x')"
    code = f"import os; make, os.makedirs = os.makedirs, {full}; from served import app; os.makedirs = make; "
    done = run(tmp_path, code + ASK, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "workers"))

    assert f"{REQUESTS} 1.0" in done.stdout, done.stderr
    assert WARNING not in done.stderr


def test_a_directory_is_the_same_after_the_application_has_gone_elsewhere(tmp_path: Path) -> None:
    """A relative path is that of the start."""
    code = ASK.replace("client.get('/');", "import os; os.chdir('/'); client.get('/');")
    done = run(tmp_path, code, PROMETHEUS_MULTIPROC_DIR="workers")

    assert f"{REQUESTS} 1.0" in done.stdout, done.stderr
    assert list((tmp_path / "workers").glob("counter_*.db"))


@pytest.mark.parametrize(
    ("metric", "count", "sample"),
    [
        ("Counter('own', '')", "inc", "own_total 3.0"),
        ("Histogram('own', '')", "observe", "own_sum 3.0"),
        ("Summary('own', '')", "observe", "own_sum 3.0"),
        ("Gauge('own', '')", "inc", "own{pid="),
        ("Gauge('own', '', multiprocess_mode='livesum')", "inc", "own 3.0"),
        ("Gauge('own', '', multiprocess_mode='mostrecent')", "set", "own 3.0"),
    ],
)
def test_metrics_made_before_the_exporter_are_in_nobodys_way(
    tmp_path: Path, metric: str, count: str, sample: str
) -> None:
    """The exporter has values of the same kind, which lie in the same file."""
    (tmp_path / "workers").mkdir()
    own = f"from prometheus_client import *; own = {metric}; own.{count}(3)"
    done = run(tmp_path, f"{own}; {ASK}", PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "workers"))
    samples = done.stdout.splitlines()

    assert done.stderr == ""
    assert f"{REQUESTS} 1.0" in samples
    assert any(line.startswith(sample) for line in samples)
    labels = 'method="GET",status="200",url_rule="/"'
    assert f"flask_http_request_duration_seconds_count{{{labels}}} 1.0" in samples


EARLY = "from prometheus_client import *; own = Counter('own', ''); own.inc(3); "
NAMED = "from prometheus_client import values; values.ValueClass = values.MultiProcessValue(lambda: {}); "
AGAIN = "; own.inc(); client.get('/'); print(client.get('/metrics').text)"


@pytest.mark.parametrize(
    "code",
    [
        EARLY + ASK + AGAIN,
        EARLY
        + ASK
        + "; import os, shutil; shutil.rmtree(os.environ['PROMETHEUS_MULTIPROC_DIR'])"
        + "; from exporter.core import cores; [core.worker.tick(0) for core in cores]"
        + AGAIN,
        NAMED.format(900_000_001) + EARLY + ASK + AGAIN,
        NAMED.format("'web_1'") + EARLY + ASK + AGAIN,
        EARLY
        + "import os; child = os.fork(); child and (os.wait(), os._exit(0)); own.inc(3); "
        + ASK
        + AGAIN,
    ],
    ids=["here", "removed directory", "a worker's number", "a worker's name", "forked"],
)
def test_metrics_made_before_the_exporter_go_on(tmp_path: Path, code: str) -> None:
    """They outlive their directory, and a process that is not named after its id is no dead one."""
    (tmp_path / "workers").mkdir()
    total = 7 if "fork" in code else 4
    done = run(tmp_path, code, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "workers"))
    samples = done.stdout.rpartition("HELP own_total")[2].splitlines()

    assert done.stderr == ""
    assert f"own_total {total}.0" in samples
    assert f"{REQUESTS} 2.0" in done.stdout.splitlines()


@needs_root
def test_metrics_made_before_the_master_prepares_belong_to_its_workers(tmp_path: Path) -> None:
    """gunicorn's configuration may make some, as root."""
    start = f"from exporter import prefork; prefork.start(2, owner={STRANGER})"
    with TemporaryDirectory(dir="/dev/shm") as path:  # the stranger must be able to get there
        os.chmod(path, 0o711)
        workers = Path(path, "workers")
        workers.mkdir()
        done = run(tmp_path, EARLY + start, PROMETHEUS_MULTIPROC_DIR=str(workers))

        assert done.stderr == ""
        (file,) = workers.glob("counter_*.db")
        assert file.stat().st_uid == STRANGER[0]
        assert promises_lock(file.read_bytes())


def test_a_class_of_the_applications_own_for_values(tmp_path: Path) -> None:
    """It lacks what prometheus_client's own have beside the methods."""
    source = (
        "from prometheus_client import values\n"
        "class Value:\n"
        "    def __init__(self, *_, **__): self.value = 0.0\n"
        "    def inc(self, amount): self.value += amount\n"
        "    def set(self, value, timestamp=None): self.value = value\n"
        "    def get(self): return self.value\n"
        "    def get_exemplar(self): return None\n"
        "values.ValueClass = Value\n"
    )
    done = run(tmp_path, source + EARLY + ASK)

    assert done.stderr == ""
    assert {f"{REQUESTS} 1.0", "own_total 3.0"} <= set(done.stdout.splitlines())


ASK_AS_APACHE = ASK.replace(
    "test_client()", "test_client(); client.environ_base['mod_wsgi.version'] = (4, 9, 4)"
)


def test_a_reload_of_apache_is_no_service_that_has_ended(tmp_path: Path) -> None:
    """Its processes have one parent, which runs no Python; that of a new Apache is younger."""
    workers = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "workers")}
    first, second = (run(tmp_path, ASK_AS_APACHE, **workers) for _ in range(2))
    again = run(
        tmp_path,
        f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ASK_AS_APACHE!r}])",
        **workers,
    )

    assert (first.stderr, second.stderr) == ("", "")
    assert WARNING in again.stderr
    assert f"{REQUESTS} 3.0" in again.stdout.splitlines()


def test_a_server_takes_the_directory_that_a_migration_has_made(tmp_path: Path) -> None:
    run(tmp_path, ASK, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "workers"))
    with serving(tmp_path, source=SERVICE, workers=2) as server:
        server.get("/")

        assert server.samples()["orders_total"] == 1
        assert WARNING not in server.text()


@pytest.mark.parametrize(
    "variables", [{"PROMETHEUS_MULTIPROC_DIR": ""}, {"prometheus_multiproc_dir": ""}], ids=str
)
def test_an_empty_variable_is_not_set(tmp_path: Path, variables: dict[str, str]) -> None:
    """prometheus_client would write into the current directory."""
    done = run(tmp_path, ASK, **variables)

    assert (done.returncode, done.stderr) == (0, "")
    assert "\norders_total 1.0\n" in done.stdout
    assert 'flask_exporter_mode{mode="single"} 1.0' in done.stdout
    assert list(tmp_path.glob("*.db")) == []


def test_the_hooks_take_the_old_name_of_the_variable(tmp_path: Path) -> None:
    """MLflow's --expose-prometheus sets no other."""
    old = {"prometheus_multiproc_dir": str(tmp_path / "workers")}
    with serving(tmp_path, source=SERVICE, workers=2, PROMETHEUS_MULTIPROC_DIR="", **old) as server:
        for _ in range(20):
            server.get("/")

        assert server.samples()["orders_total"] == 20
        assert "prometheus_multiproc_dir" not in server.text()


def test_counts_of_an_earlier_run_are_a_warning_where_no_master_has_removed_them(tmp_path: Path) -> None:
    """With the remedy, by a worker that was there first; processes that do not serve say nothing."""
    (tmp_path / "none.py").touch()
    sent = 0
    for run_number in (1, 2):
        with serving(tmp_path, source=SERVICE, workers=2, config=str(tmp_path / "none.py")) as server:

            def warned() -> bool:
                nonlocal sent
                server.get("/")
                sent += 1
                return WARNING in server.text()

            if run_number == 2:
                eventually(warned, "the worker that came first has a request")
            for _ in range(5):
                server.get("/")
            sent += 5

            assert server.samples()[REQUESTS] == sent
            assert (WARNING in server.text()) == (run_number == 2)
            assert ("gunicorn with -c python:exporter.gunicorn" in server.text()) == (run_number == 2)
    done = run(tmp_path, "import served", PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "workers"))
    assert (done.returncode, done.stderr) == (0, "")
    with serving(tmp_path, source=SERVICE, workers=2) as server:
        server.get("/")

        assert server.samples()[REQUESTS] == 1
        assert WARNING not in server.text()


def test_a_directory_that_is_a_file_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with gunicorn(tmp_path, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "file")) as master:
        assert master.process.wait(60) == 1
        assert (
            f"Error: PROMETHEUS_MULTIPROC_DIR={tmp_path}/file cannot be used: this is no dir" in master.text()
        )
