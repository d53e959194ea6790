"""Servers that fork, other than gunicorn: one of our own, and uWSGI."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.mmap_dict import MmapedDict

from exporter import prefork
from exporter.store.directory import WorkerDirectory
from exporter.worker import deaths
from tests.rig.deadline import eventually
from tests.rig.server import Server, started
from tests.rig.workerfiles import samples

FORKS = """
import os, sys
from exporter import prefork
from exporter.merge.format import promises_lock

directory = prefork.start(workers=3)
reading, writing = os.pipe()
for worker in range(3):
    if os.fork() == 0:
        os.chdir("/")
        from prometheus_client import Counter, Gauge
        Counter("hits", "help").inc(worker + 1)
        Gauge("alive", "help", multiprocess_mode="livesum").inc()
        with open(f"{directory.path}/counter_{os.getpid()}.db", "rb") as file:
            os.write(1, b"shows its life\\n" if promises_lock(file.read(8)) else b"is as good as dead\\n")
        os.kill(os.getpid(), 9)
for worker in range(3):
    pid, status = os.wait()
    prefork.ended(directory, pid, os.waitstatus_to_exitcode(status))
print(sorted(os.listdir(directory.path)))
"""


@pytest.mark.parametrize("variable", ["PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"])
def test_a_pre_fork_server_of_ones_own(variable: str, tmp_path: Path) -> None:
    """The documented three calls leave the counts of killed workers in the archive and no other file.

    Each worker shows that it lives; what an earlier run has left is gone. The directory's name begins where
    the master does, and prometheus_client does not warn of an old name of the variable.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    environment[variable] = os.path.relpath(tmp_path / "workers")
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error:prometheus_multiproc_dir:DeprecationWarning", "-c", FORKS],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

        files = ["archive.json", "archive.lock", "archive.master", "deaths_0.ring"]
        assert done.stdout == 3 * "shows its life\n" + f"{files}\n", done.stderr
    assert samples(WorkerDirectory(tmp_path / "workers")) == {"hits_total": 6.0}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("workers/archive.master/x", "[Errno 21] Is a directory: 'archive.master'"),
        ("workers", "this is no directory; give a directory that the service may make and write to"),
    ],
)
def test_a_directory_that_nobody_can_use_is_refused(tmp_path: Path, made: str, message: str) -> None:
    (tmp_path / made).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / made).touch()
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "workers")}

    done = subprocess.run(
        [sys.executable, "-c", "from exporter import prefork; prefork.start(2)"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    complaint = f"RuntimeError: PROMETHEUS_MULTIPROC_DIR={tmp_path}/workers cannot be used: {message}"
    assert done.stderr.splitlines()[-1] == complaint


MANY_PATHS = """
import os
from exporter import prefork

directory = prefork.start(workers=2)
for worker in range(2):
    child = os.fork()
    if child == 0:
        from flask import Flask
        from exporter import FlaskExporter

        app = Flask("orders")
        FlaskExporter(app, group_by="path")
        for number in range(10):
            app.test_client().get(f"/{worker}/{number}")
        os._exit(0)
    pid, status = os.waitpid(child, 0)
    prefork.ended(directory, pid, os.waitstatus_to_exitcode(status))
"""


def test_the_cap_of_the_archive_is_that_of_the_workers(tmp_path: Path) -> None:
    """Of two with ten paths each the archive keeps ten, and what the others fold into."""
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "workers"), "EXPORTER_MAX_SERIES": "10"}
    subprocess.run([sys.executable, "-c", MANY_PATHS], env={**os.environ, **environment}, check=True)

    counts = samples(WorkerDirectory(tmp_path / "workers", max_series=10))
    assert sum("request_duration_seconds_count" in name for name in counts) == 10 + 1


def test_a_setting_that_the_workers_could_not_use_is_an_error_of_the_master(tmp_path: Path) -> None:
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "workers"), "EXPORTER_MAX_SERIES": "lots"}
    done = subprocess.run(
        [sys.executable, "-c", MANY_PATHS], env={**os.environ, **environment}, capture_output=True, text=True
    )

    assert done.stderr.splitlines()[-1] == (
        "RuntimeError: EXPORTER_MAX_SERIES='lots': give a whole number of label sets from 10 to 1000000"
    )


DIES = """
import ctypes, multiprocessing, os, signal, sys
from exporter import prefork

directory = prefork.start(workers=2)
from flask import Flask
from exporter import FlaskExporter

app = Flask("mortal")
FlaskExporter(app)

@app.get("/die/<kind>")
def die(kind):
    if kind.startswith("exit"):
        os._exit(int(kind[5:]))
    os.kill(os.getpid(), signal.Signals[kind])

def serve(kind):
    app.test_client().get(f"/die/{kind}")

for kind in sys.argv[1:]:
    worker = multiprocessing.get_context("fork").Process(target=serve, args=[kind])
    worker.start()
    worker.join()
    prefork.ended(directory, worker.pid, worker.exitcode)
"""


def test_a_master_of_ones_own_tells_of_what_workers_died(tmp_path: Path) -> None:
    """With what they were answering, in the log too; of one that was told to end only if that was lost."""
    kinds = ["SIGKILL", "SIGSEGV", "exit 3", "SIGTERM"]
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path / "workers")}
    done = subprocess.run(
        [sys.executable, "-c", DIES, *kinds], env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    latest = deaths.latest(str(tmp_path / "workers"))[::-1]
    assert [(death.cause, [request.path for request in death.requests]) for death in latest] == [
        (kind, [f"/die/{kind}"]) for kind in kinds
    ]
    for kind, line in zip(kinds, re.findall(r"worker \d+ died: .*", done.stderr), strict=True):
        assert f"died: {kind}" in line
        assert f'GET "/die/{kind}"' in line


PRELOADED = """
import os
from flask import Flask
from exporter import FlaskExporter

app = Flask("orders")
FlaskExporter(app)
app.add_url_rule("/", "home", lambda: "home")
client = app.test_client()
for _ in range(3):
    client.get("/")
child = os.fork()
for _ in range(4 if child else 2):
    client.get("/")
if not child:
    os.kill(os.getpid(), 9)
os.waitpid(child, 0)
os.kill(os.getpid(), 9)
"""


def test_a_worker_that_was_forked_after_requests_counts_in_files_of_its_own(tmp_path: Path) -> None:
    """The parent's memory is shared: two processes that add to it would lose requests."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", PRELOADED], env=environment, check=False)

    read: Any = MmapedDict.read_all_values_from_file
    counts = [
        [value for key, value, *_ in read(path) if "_http_request_total" in key]
        for path in tmp_path.glob("counter_*.db")
    ]
    assert sorted(map(sum, counts)) == [2.0, 7.0]


def test_several_workers_need_a_directory() -> None:
    """The error names the variable and an example."""
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", FORKS], env=environment, capture_output=True, text=True, check=False
    )

    assert "RuntimeError: 3 workers each count for themselves: set PROMETHEUS_MULTIPROC_DIR" in done.stderr
    assert done.returncode == 1


def test_one_worker_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)

    assert prefork.start(1) is None
    with pytest.raises(RuntimeError, match="2 workers each count for themselves"):
        prefork.start(2)


def uwsgi(*options: str) -> list[str]:
    script = shutil.which("uwsgi", path=str(Path(sys.executable).parent))
    if script is None:
        assert os.environ.get("CI") != "true", "uWSGI is missing: pip install pyuwsgi"
        pytest.skip("SKIPPED: uWSGI is missing, so its hook is not tested: pip install pyuwsgi")
    command = [script, "--master", "--enable-threads", "--need-app", "--die-on-term", "--processes", "3"]
    command += ["--shared-import", "exporter.uwsgi", "--module", "served:app", "--http-socket", "127.0.0.1:0"]
    return [*command, "--virtualenv", sys.prefix, *options]


def ready(master: Server) -> Server:
    master.port = int(master.await_text(r"bound to TCP address 127\.0\.0\.1:(\d+)")[1])
    eventually(lambda: master.text().count("spawned uWSGI worker") == 3, "all workers")
    return master


ORDERS = (
    'flask_http_request_duration_seconds_count{method="GET",status="200",url_rule="/orders/<int:number>"}'
)


@pytest.mark.parametrize("options", [[], ["--lazy-apps"]], ids=["application before the fork", "lazy-apps"])
def test_uwsgi(options: list[str], tmp_path: Path) -> None:
    """Its workers share the directory; a scrape folds one that was killed."""
    with started(uwsgi("--threads", "2", *options), tmp_path) as server:
        master = ready(server)
        workers = [int(master.get("/orders/1").text) for _ in range(12)]
        assert master.samples()[ORDERS] == 12.0
        # Two threads for each that has been asked something; a scrape may have asked the third.
        assert len(set(workers)) <= master.samples()["flask_worker_threads"] / 2.0 <= 3

        os.kill(workers[0], signal.SIGKILL)
        eventually(lambda: re.search("Respawned uWSGI worker", master.text()), "another worker")
        assert master.samples()[ORDERS] == 12.0
        assert (master.directory / "archive.json").exists()
        assert not list(master.directory.glob(f"*_{workers[0]}.db"))


DOWNLOAD = """
from flask import Flask, send_file
from exporter import FlaskExporter

app = Flask("files")
FlaskExporter(app)

@app.get("/file")
def file():
    return send_file(__file__, max_age=0)
"""


def test_uwsgi_sends_a_file_by_sendfile(tmp_path: Path) -> None:
    """Its file wrapper returns the file itself; an iterator in its place would give uWSGI line after line."""
    with started(uwsgi(), tmp_path, DOWNLOAD) as server:
        master = ready(server)
        assert master.get("/file").body == DOWNLOAD.encode()
        samples = master.samples_at_rest()
        eventually(lambda: "via sendfile()" in master.text(), "sendfile")

    assert samples[ORDERS.replace("/orders/<int:number>", "/file")] == 1
    assert samples['flask_http_response_size_bytes_sum{method="GET",url_rule="/file"}'] == len(DOWNLOAD)
    assert "flask_http_client_disconnects_total" not in str(samples)


def test_uwsgi_without_a_directory_does_not_start(tmp_path: Path) -> None:
    """The error names the variable and the remedy."""
    with started(uwsgi(), tmp_path, PROMETHEUS_MULTIPROC_DIR="") as server:
        assert server.process.wait(60) == 1
        assert (
            "exporter.uwsgi: 3 workers each count for themselves: set PROMETHEUS_MULTIPROC_DIR"
            in server.text()
        )


MORTAL = """
import os, signal, time
from flask import Flask
from exporter import FlaskExporter

app = Flask("mortal")
exporter = FlaskExporter(app)

@app.get("/die/<int:number>")
def die(number):
    os.kill(os.getpid(), number)
    time.sleep(60)

@app.get("/")
def index():
    return "hi"
"""


def test_what_a_worker_of_uwsgi_was_answering_is_told_by_the_others(tmp_path: Path) -> None:
    """Nobody in its master knows: after a while the next worker that is asked reads it, without the cause."""
    with started(uwsgi("--threads", "2"), tmp_path, MORTAL) as server:
        master = ready(server)
        with suppress(OSError, http.client.HTTPException):
            master.get(f"/die/{int(signal.SIGKILL)}")

        def deaths() -> Any:
            master.get("/metrics")
            return master.get("/monitoring/deaths").json

        (death,) = eventually(deaths, "a death", 60)
        assert (death["cause"], [one["path"] for one in death["requests"]]) == ("unknown", ["/die/9"])
        lost = 'flask_http_requests_lost_total{cause="unknown",url_rule="/die/<int:number>"}'
        assert eventually(lambda: master.samples().get(lost), "the lost request") == 1.0
        assert f"worker {death['pid']} died: unknown; it was answering GET" in master.text()
