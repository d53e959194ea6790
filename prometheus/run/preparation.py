"""Before anything starts: directories, configuration files, and a check of everything that can be wrong."""

import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import IO

import yaml

from exporter.settings import Settings, SettingsError
from prometheus.run import scale
from prometheus.run.plan import PORTS, TOP, Plan, PlanError
from prometheus.tools.toolbox import executable

# Whoever starts the stack is waiting for the first scrape, which comes within one interval.
FIRST_SCRAPE = 5

SHM = Path("/dev/shm")  # noqa: S108

# The entries of prometheus/ that the programs of the stack read. Only the token may be absent: users make it.
# Target files are not among them, because a run writes its own (see `targets.localize`).
CONFIGURATION = ("prometheus.yml", "blackbox.yml", "rules", "runbooks", "alertmanager", "token")


def check_settings() -> None:
    """Raise PlanError for an EXPORTER_* value that the app would refuse."""
    try:
        Settings.load()
    except SettingsError as error:
        raise PlanError(str(error)) from error


def check_ports(plan: Plan, parts: set[str]) -> None:
    """Raise PlanError if something else listens where one of the parts shall."""
    for address, setting in PORTS.items():
        part = address.partition(":")[0]
        if part not in parts:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", plan.ports[part]))
            except OSError as error:
                raise PlanError(
                    f"port {plan.ports[part]} for {part} cannot be used ({error.strerror}): "
                    f"end what listens there, or set {setting} to another"
                ) from error


def claim(plan: Plan, parts: set[str]) -> IO[str]:
    """Make the run directory and what is below it, and hold them until the returned file is closed.

    Raises:
        PlanError: something there cannot be written, or another run holds it.
    """
    for directory in (plan.run, plan.logs, *(plan.data(part) for part in sorted(parts))):
        _make(directory)
    lock = (plan.run / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise PlanError(f"{plan.run} is in use by another run: end that one, or set RUN_DIR") from error
    return lock


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise PlanError(
            f"directory {directory} cannot be written ({error.strerror}): mend that, or set RUN_DIR"
        ) from error


def copy_configuration(plan: Plan) -> None:
    """Copy the shipped configuration into the run directory, with the intervals of this run."""
    shutil.rmtree(plan.configuration, ignore_errors=True)
    (plan.configuration / "targets").mkdir(parents=True)
    for name in CONFIGURATION:
        source = TOP / "prometheus" / name
        if source.is_dir():
            shutil.copytree(source, plan.configuration / name)
        elif name != "token" or source.exists():
            shutil.copy(source, plan.configuration)
    if plan.scale != 1:
        scale.directory(plan.configuration, plan.scale)
        return
    file = plan.configuration / "prometheus.yml"
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    document["global"] |= dict.fromkeys(
        ("scrape_interval", "scrape_timeout", "evaluation_interval"), f"{FIRST_SCRAPE}s"
    )
    file.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")


def render_alertmanager(plan: Plan) -> None:
    """Write Alertmanager's configuration with the receiver that ALERT_RECEIVER names.

    Raises:
        PlanError: the receiver is unknown, or its secret is missing or malformed.
    """
    script = plan.configuration / "alertmanager/start.sh"
    secrets = {
        setting: str(TOP / os.environ[setting])  # Alertmanager would read it relative to its configuration
        for setting in ("ALERT_SECRET_FILE", "ALERT_HEARTBEAT_FILE")
        if os.environ.get(setting)
    }
    # Its last step is to become the program that it is given: here, one that does nothing.
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
    """Raise PlanError with what promtool or amtool finds wrong."""
    checks = (
        ("promtool", "check", "config", "prometheus.yml"),
        ("amtool", "check-config", str(plan.alertmanager)),
    )
    for tool, *arguments in checks:
        command = [str(executable(tool)), *arguments]
        answer = subprocess.run(command, cwd=plan.configuration, capture_output=True, text=True, check=False)
        if answer.returncode != 0:
            # promtool says what is wrong on standard error, amtool on standard output.
            said = next((text for text in (answer.stdout, answer.stderr) if "FAILED:" in text), answer.stderr)
            wrong = " ".join(said.partition("FAILED:")[2].split()) or said.strip()
            raise PlanError(f"{tool} refuses the configuration: {wrong}")


def worker_directory(plan: Plan) -> Path:
    """An empty directory for the workers' metric files, in memory where that is possible."""
    name = f"flask-stack-{hashlib.sha256(os.fsencode(plan.run)).hexdigest()[:12]}"
    for directory in (SHM / name, plan.run / "workers"):
        try:
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(mode=0o700)
        except OSError:
            continue
        return directory
    raise PlanError(
        f"directory {plan.run / 'workers'} cannot be emptied: remove it, or set RUN_DIR to another"
    )
