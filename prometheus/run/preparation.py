"""Preparation of a run: directories, configuration files, and checks of both."""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

import yaml

from exporter.settings import Settings, SettingsError
from prometheus.run import dialect, pages, scale
from prometheus.run.parts import api_only
from prometheus.run.plan import TOP, Plan, PlanError
from prometheus.run.record import Record
from prometheus.tools.toolbox import executable

# Seconds between two scrapes; the start of the stack waits one interval for the first scrape.
INTERVAL = 5

# The most seconds for the end of a run.
PATIENCE = 60.0

SHM = Path("/dev/shm")  # noqa: S108

# The entries of prometheus/ that the programs of the stack read, and the tokens that users put there. Target
# files are missing, because a run writes its own (see `targets.localize`). The rules are missing, because
# start.sh writes a copy with the links of this run.
CONFIGURATION = ("prometheus.yml", "blackbox.yml", "runbooks", "alertmanager")
TOKENS = "token*"


def check_settings() -> None:
    """Raise PlanError for an EXPORTER_* value that the app would refuse."""
    try:
        Settings.load()
    except SettingsError as error:
        raise PlanError(str(error)) from error


def claim(plan: Plan, parts: set[str]) -> IO[str]:
    """Make the run directory with its subdirectories, and hold it until the returned file is closed.

    Raises:
        PlanError: a directory cannot be written, another run holds it, or processes of a dead run are alive.
    """
    for directory in (plan.run, plan.logs, *(plan.data(part) for part in sorted(parts))):
        _make(directory)
    lock = (plan.run / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise PlanError(
            f"{plan.run} is in use by another run: end that one with `make stop`, or set RUN_DIR"
        ) from error
    survivors = Record.of(plan.run).alive()
    if survivors:
        lock.close()
        names = ", ".join(f"{process.name} {process.pid}" for process in survivors)
        raise PlanError(f"a run that was killed has left processes ({names}): end them with `make stop`")
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def stop(plan: Plan) -> str:
    """End the run of this directory, or the surviving processes of a killed one; return a report of that.

    Raises:
        PlanError: the run does not end.
    """
    try:
        lock = (plan.run / "lock").open("r+")
    except FileNotFoundError:
        return f"nothing to stop in {plan.run}"
    with lock:
        pid = _holder(lock)
        if pid:
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + PATIENCE
            while _holder(lock):
                if time.monotonic() > deadline:
                    raise PlanError(f"the run (pid {pid}) has not ended within {PATIENCE:g} s")
                time.sleep(0.1)
            return f"stopped the run (pid {pid})"
        processes = Record.of(plan.run).end()
        for directory in _worker_directories(plan):
            shutil.rmtree(directory, ignore_errors=True)
    if not processes:
        return f"nothing to stop in {plan.run}"
    names = ", ".join(f"{process.name} {process.pid}" for process in processes)
    return f"ended what a killed run has left: {names}"


def _holder(lock: IO[str]) -> int:
    """The process id of the run that holds the directory; 0 if there is none, and this process holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        return int(lock.read())
    return 0


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise PlanError(
            f"directory {directory} cannot be written ({error.strerror}): mend that, or set RUN_DIR"
        ) from error


def copy_configuration(plan: Plan, *, grafana: bool = True) -> None:
    """Copy `CONFIGURATION` into the run directory, with this run's intervals, dialect and links.

    Without `grafana`, links to dashboards lead to pages that Prometheus serves.
    """
    shutil.rmtree(plan.configuration, ignore_errors=True)
    (plan.configuration / "targets").mkdir(parents=True)
    directory = TOP / "prometheus"
    for entry in (*(directory / name for name in CONFIGURATION), *directory.glob(TOKENS)):
        if entry.is_dir():
            shutil.copytree(entry, plan.configuration / entry.name)
        else:
            shutil.copy(entry, plan.configuration)
    subprocess.run(
        ["sh", TOP / "prometheus/start.sh", f"--rules={plan.configuration}/rules"],
        env={
            **os.environ,
            "GRAFANA_URL": plan.url("grafana") if grafana else f"{plan.url('prometheus')}/user",
            "RUNBOOK_URL": f"{plan.url('prometheus')}/user",
        },
        check=True,
    )
    if not grafana:
        pages.add_dashboards(plan)
    if api_only("alertmanager"):
        pages.add_silence_form(plan)
    file = plan.configuration / "prometheus.yml"
    document = dialect.translate(yaml.safe_load(file.read_text(encoding="utf-8")))
    document["global"] |= dict.fromkeys(
        ("scrape_interval", "scrape_timeout", "evaluation_interval") if plan.scale == 1 else (),
        f"{INTERVAL}s",
    )
    file.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    if plan.scale != 1:
        scale.directory(plan.configuration, plan.scale)


def render_alertmanager(plan: Plan) -> None:
    """Write Alertmanager's configuration with the receiver that ALERT_RECEIVER names.

    Raises:
        PlanError: the receiver is unknown, or its secret is missing or malformed.
    """
    script = plan.configuration / "alertmanager/start.sh"
    secrets = {
        setting: str(TOP / os.environ[setting])  # Alertmanager resolves paths from its configuration
        for setting in ("ALERT_SECRET_FILE", "ALERT_HEARTBEAT_FILE")
        if os.environ.get(setting)
    }
    # At its end the script executes the command in its arguments; `true` does nothing.
    answer = subprocess.run(
        ["sh", script, "true", f"--config.file={plan.alertmanager}"],
        env={**os.environ, **secrets},
        capture_output=True,
        text=True,
        check=False,
    )
    if answer.returncode != 0:
        raise PlanError(answer.stderr.strip())


def check_configuration(plan: Plan) -> None:
    """Raise PlanError with the complaint of promtool or amtool, if there is one."""
    checks = (
        ("promtool", "check", "config", dialect.LINT, "prometheus.yml"),
        ("amtool", "check-config", str(plan.alertmanager)),
    )
    for tool, *arguments in checks:
        command = [str(executable(tool)), *arguments]
        answer = subprocess.run(command, cwd=plan.configuration, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            # promtool complains on standard error, amtool on standard output.
            outputs = (answer.stdout, answer.stderr)
            output = next((text for text in outputs if "FAILED:" in text), answer.stderr)
            complaint = " ".join(output.partition("FAILED:")[2].split()) or output.strip()
            raise PlanError(f"{tool} refuses the configuration: {complaint}")


def worker_directory(plan: Plan) -> Path:
    """Make an empty directory for the workers' metric files, in memory if possible."""
    for directory in _worker_directories(plan):
        try:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(mode=0o700)
        except OSError:
            continue
        return directory
    raise PlanError(
        f"directory {plan.run / 'workers'} cannot be emptied: remove it, or set RUN_DIR to another"
    )


def _worker_directories(plan: Plan) -> tuple[Path, Path]:
    """The place in memory, and the one on the disk where there is no memory."""
    name = f"flask-stack-{hashlib.sha256(os.fsencode(plan.run)).hexdigest()[:12]}"
    return SHM / name, plan.run / "workers"
