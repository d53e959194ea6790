"""gunicorn with the exporter's hooks: a real master, real workers, real signals."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.rig.clients import Answer
from tests.rig.deadline import eventually
from tests.rig.disk import small_disk
from tests.rig.network import free_ports
from tests.rig.server import WORKER_IDS, Server, gunicorn, serving
from tests.rig.users import needs_root

ORDERS = (
    'flask_http_request_duration_seconds_count{method="GET",status="200",url_rule="/orders/<int:number>"}'
)


def order(master: Server, count: int = 1) -> list[int]:
    """Place so many requests; the process ids of the workers that answered."""
    return [int(master.get("/orders/1").text) for _ in range(count)]


def files(master: Server) -> set[str]:
    """Worker files and archive; not the rings nor the locks."""
    return {path.name for path in master.directory.iterdir() if path.suffix in (".db", ".json")}


def test_the_hooks_do_not_import_prometheus_client() -> None:
    """It would look for the directory when it is imported, before `raw_env` has named it."""
    check = "import sys, exporter.gunicorn; sys.exit('prometheus_client' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


INTERRUPTED = """
import logging, os, signal
from types import SimpleNamespace
from exporter import gunicorn as hooks
from exporter.worker import deaths

logging.basicConfig(format="%(message)s")
workers = {pid: SimpleNamespace(pid=pid, aborted=True) for pid in (4_000_001, 4_000_002, 4_000_003)}
server = SimpleNamespace(
    cfg=SimpleNamespace(preload_app=False, uid=os.getuid(), gid=os.getgid()),
    num_workers=3, WORKERS={}, log=logging.getLogger(),
    handle_term=print, kill_workers=print,
    reap_workers=lambda: [hooks.child_exit(server, ended.pop()) for _ in ended[:1]],
)
bury = deaths.bury

def bury_slowly(directory, pid, cause, **options):
    logging.error("begin %d", pid)
    signal.raise_signal(signal.SIGCHLD)
    logging.error("end %d", pid)
    return bury(directory, pid, cause, **options)

deaths.bury = bury_slowly
signal.signal(signal.SIGCHLD, lambda *_: server.reap_workers())
hooks.on_starting(server)
hooks.when_ready(server)
ended = [workers[4_000_002], workers[4_000_001]]
server.reap_workers()
ended, server.WORKERS = [workers[4_000_003]], {4_000_003: workers[4_000_003]}
hooks.on_exit(server)
"""


def test_the_end_of_a_worker_does_not_interrupt_the_burial_of_another(tmp_path: Path) -> None:
    """gunicorn before 24 reaps workers in the handler of a signal that comes at any moment."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], env=environment, capture_output=True, text=True, timeout=60
    )

    expected = [
        f"{event} {4_000_000 + number}"
        for number, cause in ((1, "timeout"), (2, "timeout"), (3, "graceful timeout"))
        for event in ("begin", "end", f"died: {cause};")
    ]
    lines = [re.sub(r"worker (\d+) (died: .*?;).*", r"\2 \1", line) for line in done.stderr.splitlines()]
    assert lines == expected


def test_several_workers_without_a_directory_do_not_start(tmp_path: Path) -> None:
    """The error names the variable and the remedy."""
    with gunicorn(tmp_path, PROMETHEUS_MULTIPROC_DIR="") as master:
        assert master.process.wait(60) == 1
        assert (
            "Error: 3 workers each count for themselves: set PROMETHEUS_MULTIPROC_DIR to a directory for "
            "them to share, on tmpfs if possible, for example /dev/shm/my-service" in master.text()
        )


def test_one_worker_needs_no_directory(tmp_path: Path) -> None:
    """A single worker serves its own registry."""
    with serving(tmp_path, workers=1, PROMETHEUS_MULTIPROC_DIR="") as master:
        order(master, 3)

        assert master.samples()[ORDERS] == 3.0


def test_a_bad_setting_does_not_start(tmp_path: Path) -> None:
    """The error names the setting, its value and what it takes."""
    with gunicorn(tmp_path, EXPORTER_DRAIN="soon") as master:
        assert master.process.wait(60) == 1
        assert "Error: EXPORTER_DRAIN='soon': give seconds from 0 to 3600" in master.text()


def test_a_directory_that_cannot_be_made_does_not_start(tmp_path: Path) -> None:
    """The error names the directory."""
    (tmp_path / "file").touch()
    with gunicorn(tmp_path, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "file" / "x")) as master:
        assert master.process.wait(60) == 1
        assert f"Error: PROMETHEUS_MULTIPROC_DIR={tmp_path}/file/x cannot be used: " in master.text()


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    """A second master ends with the first one's process id; the first one's counts stay."""
    with serving(tmp_path) as first:
        order(first, 2)
        with gunicorn(tmp_path) as second:
            assert second.process.wait(60) == 1
            assert (
                f"the master process {first.process.pid} is using PROMETHEUS_MULTIPROC_DIR=" in second.text()
            )

        assert first.samples()[ORDERS] == 2.0


def test_a_new_run_starts_at_zero(tmp_path: Path) -> None:
    """What an earlier run left, even one that was killed, is gone."""
    with serving(tmp_path) as master:
        order(master, 5)
        os.killpg(master.process.pid, signal.SIGKILL)
        master.process.wait(30)
    with serving(tmp_path) as master:
        assert master.samples()[ORDERS] == 0.0


def test_a_directory_named_by_the_configuration(tmp_path: Path) -> None:
    """`raw_env` in a configuration of one's own is early enough, and the hooks can be imported there."""
    (tmp_path / "conf.py").write_text(
        f"from exporter.gunicorn import *\nraw_env = ['PROMETHEUS_MULTIPROC_DIR={tmp_path}/workers']\n"
    )
    with serving(tmp_path, config="conf.py", PROMETHEUS_MULTIPROC_DIR="") as master:
        order(master, 5)

        assert master.samples()[ORDERS] == 5.0


def test_a_killed_worker_leaves_its_counts(tmp_path: Path) -> None:
    """Its files are folded as soon as the master knows, before anybody scrapes."""
    with serving(tmp_path) as master:
        victim = order(master, 20)[0]
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: "archive.json" in files(master), "an archive")
        eventually(
            lambda: not any(name.endswith(f"_{victim}.db") for name in files(master)), "no files of the dead"
        )

        assert master.samples()[ORDERS] == 20.0


def test_recycled_workers_leave_their_counts(tmp_path: Path) -> None:
    """`max_requests` replaces every worker again and again; the number of files stays that of the living."""
    with serving(tmp_path, "--max-requests", "5") as master:
        pids = set(order(master, 40))
        assert len(pids) > 5

        assert master.samples()[ORDERS] == 40.0
        eventually(
            lambda: len({name.rpartition("_")[2] for name in files(master)} - {"archive.json"}) <= 4,
            "few files",
        )


def test_a_reload_keeps_the_counts(tmp_path: Path) -> None:
    """After SIGHUP other workers go on counting where the first ones ended."""
    with serving(tmp_path) as master:
        before = set(order(master, 10))
        master.process.send_signal(signal.SIGHUP)
        eventually(
            lambda: not before & set(order(master)) and master.text().count("Worker exiting") >= 3, "a reload"
        )
        count = master.samples()[ORDERS]
        order(master, 5)

        assert count > 10.0
        assert master.samples()[ORDERS] == count + 5.0


def test_an_upgrade_keeps_the_counts(tmp_path: Path) -> None:
    """After SIGUSR2 a new master shares the directory, and the old one goes without a drain."""
    with serving(tmp_path, "--pid", str(tmp_path / "pid"), EXPORTER_DRAIN="60") as master:
        order(master, 10)
        master.process.send_signal(signal.SIGUSR2)
        eventually(lambda: master.text().count("Booting worker") >= 6, "the new workers")
        new = int((tmp_path / "pid.2").read_text())
        assert master.end() == 0
        try:
            order(master, 5)
            assert master.samples()[ORDERS] == 15.0
        finally:
            os.kill(new, signal.SIGQUIT)
            eventually(lambda: not os.path.exists(f"/proc/{new}"), "the new master's end")


def test_preloaded_applications_share_the_directory(tmp_path: Path) -> None:
    """The application may be loaded before the directory is prepared."""
    with serving(tmp_path, "--preload") as master:
        order(master, 9)

        assert master.samples()[ORDERS] == 9.0


@pytest.mark.parametrize(("options", "frozen"), [(["--preload"], True), ([], False)])
def test_workers_of_a_preloaded_application_share_its_memory(
    tmp_path: Path, options: list[str], frozen: bool
) -> None:
    """Their garbage collector leaves alone what they inherited, which would copy it."""
    source = WORKER_IDS.replace("return str(os.getpid())", "import gc; return str(gc.get_freeze_count())")
    with serving(tmp_path, *options, source=source) as master:
        inherited = int(master.get("/orders/1").text)

    assert (inherited > 10_000) is frozen


def test_sigterm_drains_before_it_stops(tmp_path: Path) -> None:
    """Not ready at once, still answering; then what is in flight is finished, counted and folded."""
    marker = tmp_path / "slow-started"
    with serving(
        tmp_path, "-k", "gthread", "--threads", "4", EXPORTER_DRAIN="1.5", SLOW_STARTED=str(marker)
    ) as master:
        assert master.get("/health/ready").status == 200
        answers: list[Answer] = []
        master.process.send_signal(signal.SIGTERM)
        eventually(lambda: master.get("/health/ready").status == 503, "not ready")
        order(master, 3)
        slow = threading.Thread(target=lambda: answers.append(master.get("/slow")))
        slow.start()
        eventually(marker.exists, "the slow request to begin")
        assert master.process.wait(60) == 0
        slow.join()

        assert [(answer.status, answer.text) for answer in answers] == [(200, "done")]
        assert files(master) == {"archive.json"}
        archived = (master.directory / "archive.json").read_text()
        assert "/slow" in archived


@pytest.mark.skipif(version("gunicorn") < "25", reason="the door of this gunicorn cannot be closed")
def test_whoever_comes_at_the_end_is_answered_or_refused(tmp_path: Path) -> None:
    """Refused, a proxy asks another server; reset it may not. A slow request keeps the workers."""
    started = tmp_path / "slow"
    threads = ("--worker-class", "gthread", "--threads", "4")
    with serving(tmp_path, *threads, workers=2, SLOW_STARTED=str(started)) as master:
        slow: list[Answer] = []
        client = threading.Thread(target=lambda: slow.append(master.get("/slow")))
        client.start()
        eventually(started.exists, "a slow request is under way")
        master.process.send_signal(signal.SIGTERM)
        with suppress(ConnectionRefusedError):
            while True:
                assert master.get("/orders/1").status == 200

        client.join()

        assert [answer.text for answer in slow] == ["done"]


def test_a_second_sigterm_ends_the_drain(tmp_path: Path) -> None:
    """Nobody has to wait an hour."""
    with serving(tmp_path, EXPORTER_DRAIN="3600") as master:
        master.process.send_signal(signal.SIGTERM)
        master.await_text("Not ready any more; stopping in 3600 s")

        assert master.end() == 0


def test_metrics_on_an_address_of_their_own(tmp_path: Path) -> None:
    """EXPORTER_LISTEN: every worker's counts, nothing else, until the server ends."""
    (port,) = free_ports(1)
    with serving(tmp_path, EXPORTER_LISTEN=f"127.0.0.1:{port}") as master:
        order(master, 7)

        assert master.samples(port)[ORDERS] == 7.0
        assert master.samples(port)['flask_exporter_mode{mode="multiprocess"}'] == 1.0
        answer = master.get("/orders/1", port=port)
        assert (answer.status, answer.text) == (404, "Metrics are at /metrics\n")
        assert master.get("/metrics", {"X-Forwarded-For": "192.0.2.1"}, port=port).status == 403
        answer = master.get("/metrics?name[]=flask_http_request_total", port=port)
        samples = [line.split("{")[0] for line in answer.text.splitlines()[2:]]
        assert samples == ["flask_http_request_total"] * 2
        assert answer.status == 200

        listener = listener_of(master)
        os.kill(listener, signal.SIGKILL)
        eventually(lambda: answers(master, port), "another listener")
        assert listener_of(master) != listener

        assert master.end() == 0
        assert not answers(master, port)


def answers(master: Server, port: int) -> bool:
    """Whether metrics are served on this port."""
    try:
        return master.get("/metrics", port=port).status == 200
    except OSError:
        return False


def listener_of(master: Server) -> int:
    """The child of the master that is no worker."""
    workers = {int(line.rsplit(" ", 1)[1]) for line in master.text().splitlines() if "Booting worker" in line}
    (found,) = set(master.children()) - workers
    return found


def test_an_address_that_is_taken_does_not_start(tmp_path: Path) -> None:
    """The error names the setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with gunicorn(tmp_path, EXPORTER_LISTEN=f"127.0.0.1:{port}") as master:
            assert master.process.wait(60) == 1
            assert f"Error: EXPORTER_LISTEN=127.0.0.1:{port}: Address already in use; give" in master.text()


def test_an_address_without_a_directory_does_not_start(tmp_path: Path) -> None:
    """The listener reads files, so there must be some."""
    with gunicorn(tmp_path, workers=1, PROMETHEUS_MULTIPROC_DIR="", EXPORTER_LISTEN="127.0.0.1:0") as master:
        assert master.process.wait(60) == 1
        assert "EXPORTER_LISTEN is served by a process that reads the worker files" in master.text()


def test_an_upgrade_hands_the_address_over(tmp_path: Path) -> None:
    """After SIGUSR2 and the end of the old master, the new one's listener takes the address."""
    (port,) = free_ports(1)
    with serving(tmp_path, "--pid", str(tmp_path / "pid"), EXPORTER_LISTEN=f"127.0.0.1:{port}") as master:
        order(master, 4)
        master.process.send_signal(signal.SIGUSR2)
        eventually(lambda: master.text().count("Booting worker") >= 6, "the new workers")
        new = int((tmp_path / "pid.2").read_text())
        assert master.end() == 0
        try:
            eventually(lambda: answers(master, port), "the new listener")
            assert master.samples(port)[ORDERS] == 4.0
        finally:
            os.kill(new, signal.SIGQUIT)
            eventually(lambda: not os.path.exists(f"/proc/{new}"), "the new master's end")


def test_a_full_disk_stops_no_request(tmp_path: Path) -> None:
    """Where no new series finds a place requests are answered, failures are counted, and old series go on."""
    workers = tmp_path / "workers"
    workers.mkdir()
    with small_disk(workers, "16m"), serving(tmp_path, workers=1, EXPORTER_GROUP_BY="path") as master:
        answered = [master.get("/new/known") for _ in range(20)]
        with open(workers / "ballast", "wb", buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(bytes(4096))
        answered += [master.get(f"/new/{number}-{'x' * 100}") for number in range(600)]
        answered += [master.get("/new/known") for _ in range(20)]

        assert {(answer.status, answer.text) for answer in answered} == {(200, "new")}
        (workers / "ballast").unlink()
        master.get("/new/known")
        eventually(lambda: failures(master) > 0, "failures to be counted")
        count = 'flask_http_request_duration_seconds_count{method="GET",path="/new/known",status="200"}'
        assert master.samples()[count] == 41.0


def failures(master: Server) -> float:
    """Failures inside the exporter that it has counted."""
    shown = master.samples()
    return sum(value for name, value in shown.items() if name.startswith("flask_exporter_failures_total"))


# Neighbours, and what lies in the directory

COUNT = 'flask_http_request_total{method="GET",status="200"}'
ITEMS = """
import encodings.idna, http.client, socket  # only because the interpreter may lie where workers cannot read
from flask import Flask, request
from exporter import FlaskExporter

def group(request):
    return eval(request.args.get("group", "'/'"))

app = Flask("served")
exporter = FlaskExporter(app, group_by=group)

@app.get("/")
@exporter.counter("items_total", "Items", labels={"item": lambda: eval(request.args.get("item", "0"))})
def index():
    return "ok"
"""
"""A service with labels that its clients choose."""


@needs_root
def test_a_worker_gets_root_to_write_nowhere(tmp_path: Path) -> None:
    """Its master folds with its rights, and the process for EXPORTER_LISTEN has no others."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    victim.chmod(0o600)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as shared:
        os.chmod(shared, 0o711)
        workers, (port,) = Path(shared, "workers"), free_ports(1)
        options = ("--user", "65534", "--group", "65534", "--worker-tmp-dir", "/dev/shm", "--preload")
        variables = {"PROMETHEUS_MULTIPROC_DIR": str(workers), "EXPORTER_LISTEN": f"127.0.0.1:{port}"}
        with serving(tmp_path, *options, source=ITEMS, workers=1, **variables) as master:
            eventually(lambda: answers(master, port), "the listener")
            assert {uids(child) for child in master.children()} == {"65534 65534 65534 65534"}
            master.get("/")
            (worker,) = {int(name.stem.split("_")[1]) for name in workers.glob("histogram_*.db")} - {
                master.process.pid
            }
            (workers / "archive.json.tmp").symlink_to(victim)
            os.kill(worker, signal.SIGKILL)
            eventually((workers / "archive.json").exists, "a fold")

            assert victim.read_text() == "precious"
            assert {path.lstat().st_uid for path in workers.iterdir()} == {65534}
            assert master.samples(port)[COUNT] == 1.0


def uids(pid: int) -> str:
    """Real, effective, saved and of the file system."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "Uid:" in line)
    return " ".join(line.split()[1:])


@pytest.mark.parametrize("loss", ["removed", "a file", "unreadable"])
def test_without_its_directory_the_service_goes_on(loss: str, tmp_path: Path) -> None:
    """Workers are replaced, requests answered; the living ones lose nothing, where it can be made anew."""
    with serving(tmp_path, workers=2) as master:
        eventually(lambda: order(master) and len(counters(master)) == 2, "files of both workers")
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        with still(master.children()):  # one of them may still make its other files
            shutil.rmtree(master.directory)
            if loss == "a file":
                master.directory.touch()
            elif loss == "unreadable":
                (tmp_path / "open").rename(master.directory)
        os.kill(order(master)[0], signal.SIGKILL)
        eventually(lambda: master.text().count("Booting worker") >= 3, "another worker")

        assert {master.get("/new/x").status for _ in range(20)} == {200}
        if loss != "removed":
            assert "cannot" in eventually(lambda: failing(master), "the reason").text
            master.directory.rmdir() if loss == "unreadable" else master.directory.unlink()
        eventually(lambda: order(master) and len(counters(master)) == 2, "files of both workers")
        before = master.samples()[ORDERS]
        order(master, 20)
        assert master.samples()[ORDERS] == before + 20
        assert master.directory.stat().st_mode & 0o777 == 0o700


@contextmanager
def still(pids: list[int]) -> Iterator[None]:
    """These processes stand still inside the context."""
    statuses = [Path(f"/proc/{pid}/status") for pid in pids]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        eventually(lambda: all("\nState:\tT" in status.read_text() for status in statuses), "a stop")
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def counters(master: Server) -> list[Path]:
    """The counters of the living workers, which look once a second whether they are still there."""
    return list(master.directory.glob("counter_*.db")) if master.directory.is_dir() else []


def failing(master: Server) -> Answer | None:
    answer = master.get("/metrics")
    return answer if answer.status == 500 else None


@pytest.mark.parametrize("value", [r"'\ud800'", r"'a\udfff'", r"chr(0xdc80)"])
@pytest.mark.parametrize("directory", ["", "workers"])
def test_a_text_that_cannot_be_written_costs_itself_only(value: str, directory: str, tmp_path: Path) -> None:
    """In a group as in a label of a decorator; whether values lie in files or in the process."""
    variables = {} if directory else {"PROMETHEUS_MULTIPROC_DIR": ""}
    with serving(tmp_path, source=ITEMS, workers=1, **variables) as master:
        for _ in range(3):
            master.get("/")
        for query in (f"/?item={value}", f"/?group={value}"):
            assert master.get(query.replace("\\", "%5C")).status == 200
        shown = master.samples()

        assert shown[COUNT] == 5.0
        assert sum(value for name, value in shown.items() if name.startswith("items_total")) == 5.0
        assert any("\ufffd" in name for name in shown if name.startswith("items_total"))
        assert any("\ufffd" in name for name in shown if "duration_seconds_count" in name)
        assert failures(master) == 0


@pytest.mark.parametrize(("limit", "counted"), [(16, False), (20, False), (32, True)])
def test_few_descriptors_cost_measurements_and_no_answers(limit: int, counted: bool, tmp_path: Path) -> None:
    """With 16 a plain application starts; a measured one does so too, and /metrics says what is wrong."""
    source = f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))\n{WORKER_IDS}"
    with serving(tmp_path, workers=1, source=source) as master:
        assert len(set(order(master, 5))) == 1
        answer = master.get("/metrics")
        if counted:
            assert master.samples()[ORDERS] == 5.0
        else:
            assert (answer.status, "Too many open files" in answer.text) == (500, True)


def test_a_frozen_listener_does_not_keep_the_master(tmp_path: Path) -> None:
    """It gets a few seconds, and then it is killed."""
    (port,) = free_ports(1)
    with serving(tmp_path, workers=1, EXPORTER_LISTEN=f"127.0.0.1:{port}") as master:
        eventually(lambda: answers(master, port), "the listener")
        workers = set(order(master, 5))
        (listener,) = set(master.children()) - workers
        os.kill(listener, signal.SIGSTOP)
        master.process.send_signal(signal.SIGTERM)

        assert master.process.wait(30) == 0
        assert not os.path.exists(f"/proc/{listener}")


def test_a_hung_reader_costs_the_master_one_wait(tmp_path: Path) -> None:
    """Not one of a second for each of its workers; beside an end that nobody holds up."""
    seconds = []
    for name, operation in ("free", fcntl.LOCK_UN), ("hung", fcntl.LOCK_SH):
        (tmp_path / name).mkdir()
        with serving(tmp_path / name, "--preload", workers=12) as master:
            master.samples()
            with open(master.directory / "archive.lock") as lock:
                fcntl.flock(lock, operation)
                start = time.monotonic()
                master.process.send_signal(signal.SIGTERM)
                assert master.process.wait(60) == 0
                seconds.append(time.monotonic() - start)
    free, hung = seconds

    assert hung < 2 * free + 6
