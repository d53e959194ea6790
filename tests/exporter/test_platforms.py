"""Systems that lack what Linux has: one process works on each; several workers say what they need."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exporter import posix
from tests.rig.places import ROOT
from tests.rig.wsgi import Raises

# Each takes away what the system lacks, before anything is imported.
WITHOUT_PROC = """
import builtins
real_open = builtins.open
def without_proc(file, *arguments, **options):
    if str(file).startswith("/proc"):
        raise FileNotFoundError(file)
    return real_open(file, *arguments, **options)
builtins.open = without_proc
"""
MACOS = f"{WITHOUT_PROC}\nimport os\ndel os.posix_fallocate\n"
# Unlike glibc, it hands on the refusal of a file system, such as NFS and ZFS.
MUSL = """
import errno, os
def refuse(*_):
    raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
os.posix_fallocate = refuse
"""
# asyncio has modules of its own for Windows; those that it imports here need what is taken away.
WINDOWS = f"""{WITHOUT_PROC}
import asyncio, os, select, signal, socket, sys
for module in ("fcntl", "grp", "pwd", "resource", "termios", "tty"):
    sys.modules[module] = None
for name in (
    "fork", "register_at_fork", "posix_fallocate", "pread", "pwrite", "O_CLOEXEC", "O_DIRECTORY", "geteuid",
    "getuid", "sysconf", "killpg", "setsid", "fchmod", "chown",
):
    delattr(os, name)
for name in ("SIGALRM", "SIGHUP", "SIGQUIT", "SIGCHLD", "setitimer"):
    delattr(signal, name)
del select.poll, socket.AF_UNIX
"""
PYPY = "import gc\ndel gc.callbacks\n"
SYSTEMS = {
    "this_system": "",
    "macos": MACOS,
    "windows": WINDOWS,
    "pypy": PYPY,
    "no fcntl": "import sys\nsys.modules['fcntl'] = None\n",
    "no fork": "import os\ndel os.fork, os.register_at_fork\n",
    "no resource": f"{WITHOUT_PROC}\nimport sys\nsys.modules['resource'] = None\n",
}

SERVICE = """
from flask import Flask
from exporter import FlaskExporter

app = Flask("orders")
exporter = FlaskExporter(app, **options)

@app.get("/orders/<int:number>")
def order(number):
    app.logger.warning("order")
    return "an order"

client = app.test_client()
for number in range(3):
    assert client.get(f"/orders/{number}").status_code == 200
samples = dict(
    line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if not line.startswith("#")
)
def value(name):
    return float(samples[name])
assert value('flask_http_request_total{method="GET",status="200"}') == 3.0
assert value('flask_log_messages_total{level="WARNING"}') == 3.0
assert value("flask_worker_starts_total") == 1.0
assert value('flask_http_request_duration_max_seconds{url_rule="/orders/<int:number>"}') > 0.0
failures = {name: text for name, text in samples.items() if "failures_total" in name and text != "0.0"}
assert failures == {}, failures
assert client.get("/health").json["status"] == "healthy"
assert len(client.get("/monitoring/requests").json) == 3
"""


def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The end of a Python that runs this code in the repository."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("EXPORTER_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**inherited, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("system", SYSTEMS)
def test_one_process_works(system: str) -> None:
    """Requests, metrics, health and figures, and nothing that fails in silence."""
    ended = run(f"{SYSTEMS[system]}\noptions = {{}}\n{SERVICE}")

    assert (ended.returncode, ended.stderr.count("Traceback")) == (0, 0), ended.stderr


@pytest.mark.parametrize(
    ("system", "resident"),
    [("macos", "peak"), ("windows", "float('nan')"), ("no resource", "float('nan')")],
)
def test_memory_is_the_peak_or_unknown(system: str, resident: str) -> None:
    """Never 0, which would be a claim."""
    usage = "import resource, sys; peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    usage = f"{usage}peak *= 1 if sys.platform == 'darwin' else 1024\n" if system == "macos" else ""
    check = f"resident = value('flask_worker_resident_memory_bytes')\n{usage}expected = {resident}\n"
    check += "is_unknown = resident != resident and expected != expected\n"
    check += "assert is_unknown or expected / 2 < resident <= expected, resident"

    ended = run(f"{SYSTEMS[system]}\noptions = {{}}\n{SERVICE}\n{check}")

    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("system", ["macos", "windows", "no fcntl"])
def test_the_request_log_is_written_and_rotated(tmp_path: Path, system: str) -> None:
    """A file that nobody can lock belongs to one process."""
    log = tmp_path / "requests.jsonl"
    options = f"options = {{'request_log': {str(log)!r}, 'log_max_bytes': 10_000, 'log_backups': 2}}"

    ended = run(
        f"{SYSTEMS[system]}\n{options}\n{SERVICE}\n" + "for _ in range(60): client.get('/orders/1')\n"
    )

    assert (ended.returncode, ended.stderr.count("Traceback")) == (0, 0), ended.stderr
    assert {path.name for path in tmp_path.iterdir()} == {log.name, f"{log.name}.1", f"{log.name}.2"}
    assert log.with_name(f"{log.name}.1").read_text().endswith("}\n")


@pytest.mark.parametrize("system", ["macos", "windows"])
def test_the_request_log_goes_to_standard_output(system: str) -> None:
    ended = run(f"{SYSTEMS[system]}\noptions = {{'request_log': 'stdout'}}\n{SERVICE}")

    assert (ended.returncode, ended.stderr.count("Traceback")) == (0, 0), ended.stderr
    assert ended.stdout.count('"message":"GET /orders/<int:number> 200"') == 3


def test_a_unix_socket_is_refused_where_there_is_none() -> None:
    """As every setting that cannot be used."""
    ended = run(f"{WINDOWS}\noptions = {{'request_log': 'syslog:///dev/log'}}\n{SERVICE}")

    assert ended.stderr.splitlines()[-1].startswith(
        "exporter.settings.SettingsError: EXPORTER_REQUEST_LOG='syslog:///dev/log': "
        "this system has no Unix sockets; "
    )


@pytest.mark.parametrize("system", ["windows", "no fcntl", "no fork"])
@pytest.mark.parametrize(
    "start", ["from exporter import FlaskExporter", "from exporter import prefork; prefork.start(2)"]
)
def test_a_worker_directory_is_refused_in_one_sentence(tmp_path: Path, system: str, start: str) -> None:
    """It names the variable, the reason and the remedy."""
    ended = run(f"{SYSTEMS[system]}\n{start}", PROMETHEUS_MULTIPROC_DIR=str(tmp_path))

    assert ended.stderr.splitlines()[-1] == (
        "RuntimeError: PROMETHEUS_MULTIPROC_DIR needs file locks and fork, which only POSIX systems such as "
        "Linux and macOS have: leave it out here and run one process"
    )


@pytest.mark.parametrize("system", [MACOS, MUSL], ids=["macos", "musl"])
def test_workers_share_a_directory_without_posix_fallocate(tmp_path: Path, system: str) -> None:
    """Files are filled with zeros, and counts of another process are there."""
    service = f"{system}\noptions = {{}}\n{SERVICE}"
    environ = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    first = run(service, **environ)
    # The second one also logs a warning: these are counts of a service that has ended.
    totals = {
        "WARNING\"}') == 3.0": "WARNING\"}') == 7.0",
        "== 3.0": "== 6.0",
        "== 1.0": "== 2.0",
        "== 3\n": "== 6\n",
    }
    for one, both in totals.items():
        service = service.replace(one, both)
    second = run(service, **environ)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert {path.stat().st_size % 8 for path in tmp_path.glob("*.db")} == {0}


def test_reserved_space_keeps_what_is_there(tmp_path: Path) -> None:
    """And a full disk is an error, not a hole."""
    code = f"""{MACOS}
from exporter.posix import reserve
file = os.open({str(tmp_path / "file")!r}, os.O_RDWR | os.O_CREAT)
os.write(file, b"kept")
reserve(file, 3_000_000)
assert os.pread(file, 3_000_001, 0) == b"kept" + bytes(2_999_996)
reserve(file, 100)
assert os.fstat(file).st_size == 3_000_000
"""

    ended = run(code)

    assert ended.returncode == 0, ended.stderr


def test_an_error_of_the_disk_is_no_matter_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody fills a disk with zeros that is full, or broken."""
    monkeypatch.setattr(
        os, "posix_fallocate", Raises(OSError(errno.EIO, os.strerror(errno.EIO))), raising=False
    )
    with (tmp_path / "file").open("wb") as file, pytest.raises(OSError, match="Input/output error"):
        posix.reserve(file.fileno(), 100)

    assert (tmp_path / "file").stat().st_size == 0


def test_commands_start_without_a_posix_terminal() -> None:
    """Only the live view needs one, and says so."""
    help_text = run(f"{WINDOWS}\nfrom exporter.__main__ import main\nmain(['top', '--help'])")

    assert (help_text.returncode, help_text.stderr) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the start of a process")
def test_a_process_whose_name_is_no_text_has_a_start() -> None:
    """Linux cuts a name after 15 bytes, and so may cut a letter."""
    code = "open('/proc/self/comm', 'wb').write(b'a ) \\xff'); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert abs(posix.start_of(process.pid) - time.time()) < 60
        process.communicate(b"\n")
