"""`make matrix`: the exporter's tests with the lowest, a middle and the newest release of what it stands on.

    python -m tests.matrix [row …]

Each interpreter of this machine gets an environment in `.matrix/` with the newest releases; a row lays other
releases over it. Rows that need an interpreter which is not here are named as not run. Without arguments all
rows are run. The exit status is 1 if a test of any row fails.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement

from tests.rig.command import call
from tests.rig.places import ROOT

TOP = ROOT / ".matrix"
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
EXTRAS = ("app", "cli", "dev")
# The tests that the matrix leaves out, and what no other test of the exporter imports of the extras.
IN_A_BROWSER = "*_browser.py"
SPARE = {
    "basedpyright", "build", "grafana-foundation-sdk", "matplotlib", "mypy", "playwright", "pyuwsgi", "ruff",
}  # fmt: skip

# Folders and files of the tests.
ALL = ("exporter", "parent_suite")
FLASK = ("exporter/measure", "exporter/pages", "exporter/log", "exporter/test_extension.py", "parent_suite")
CLIENT = (
    "exporter/measure",
    "exporter/scrape",
    "exporter/store",
    "exporter/worker",
    "exporter/test_client.py",
)
SERVERS = ("exporter/servers",)

FLASK_2_2 = ("flask==2.2.5", "werkzeug==2.2.3", "blinker==1.6")
GUNICORN_20 = ("gunicorn==20.1.0", "setuptools<81")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: other releases than the newest, and the tests that they could break."""

    name: str
    releases: tuple[str, ...] = ()
    tests: tuple[str, ...] = ALL
    python: str = ""
    """The wanted interpreter; "" for the newest."""

    until: str = ""
    """The newest interpreter that these releases work with; "" for any."""

    def choose(self, here: Collection[str]) -> str:
        """The interpreter to run this row with, which may not be among those that are here."""
        if self.python:
            return self.python
        fitting = [version for version in here if not self.until or _minor(version) <= _minor(self.until)]
        return max(fitting, key=_minor, default=self.until)


ROWS = (
    *(Row(f"python-{version}", python=version) for version in PYTHONS),
    Row(
        "lowest",
        (*FLASK_2_2, *GUNICORN_20, "prometheus-client==0.18.0", "prometheus-flask-exporter==0.22.4"),
        python=PYTHONS[0],
    ),
    Row("flask-2.2", FLASK_2_2, FLASK, until="3.13"),  # it needs pkgutil.get_loader
    Row("flask-2.3", ("flask==2.3.3", "werkzeug==2.3.8"), FLASK),
    Row("flask-3.0", ("flask==3.0.0", "werkzeug==3.0.0"), FLASK),
    Row("prometheus-client-0.18", ("prometheus-client==0.18.0",), CLIENT),
    Row("prometheus-client-0.22", ("prometheus-client==0.22.1",), CLIENT),
    Row("prometheus-client-0.24", ("prometheus-client==0.24.1",), CLIENT),
    Row("prometheus-flask-exporter-0.22", ("prometheus-flask-exporter==0.22.4",), FLASK),
    Row("prometheus-flask-exporter-0.23", ("prometheus-flask-exporter==0.23.1",), FLASK),
    Row("gunicorn-20", GUNICORN_20, SERVERS),
    Row("gunicorn-23", ("gunicorn==23.0.0",), SERVERS),
    Row("gunicorn-25", ("gunicorn==25.1.0",), SERVERS),
)


def interpreters() -> dict[str, str]:
    """The interpreters of this machine by version: the one that runs this, those of pyenv and of the PATH."""
    paths = {".".join(map(str, sys.version_info[:2])): sys.executable}
    for version in PYTHONS:
        pyenv = Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
        for candidate in (shutil.which(f"python{version}"), *map(str, pyenv)):
            if candidate and _makes_environments(candidate):
                paths[version] = candidate
    return paths


def environment(python: str, interpreter: str) -> Path:
    """The interpreter of an environment with the newest releases; raises CalledProcessError."""
    home = TOP / python
    executable = home / "bin/python"
    mark = home / ".installed"
    if not mark.exists() or mark.stat().st_mtime < (ROOT / "pyproject.toml").stat().st_mtime:
        print(f"installing the environment of Python {python}", flush=True)
        _run([interpreter, "-m", "venv", str(home)])
        needed = [*requirements(), "--editable", "."]
        _run([str(executable), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *needed])
        mark.touch()
    return executable


def requirements() -> list[str]:
    """What the tests of the exporter need of `EXTRAS`."""
    needed = []
    for requirement in map(Requirement, requires("flask-observability-stack") or ()):
        marker, requirement.marker = requirement.marker, None
        spare = requirement.name in SPARE or requirement.name.startswith("types-")
        if marker and not spare and any(marker.evaluate({"extra": extra}) for extra in EXTRAS):
            needed.append(str(requirement))
    return needed


def run(row: Row, python: str, interpreter: str) -> str:
    """Run the tests of a row; the last line of pytest's summary, or why there is none."""
    try:
        executable = environment(python, interpreter)
        overlay = TOP / "rows" / f"{row.name}-on-{python}"
        if row.releases and not overlay.exists():
            command = [str(executable), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            _run([*command, "--no-deps", "--target", str(overlay), *row.releases])
    except subprocess.CalledProcessError as error:
        return f"FAILED to install: {error.stderr.strip().splitlines()[-1]}"
    log = TOP / f"{row.name}.log"
    tests = [f"tests/{test}" for test in row.tests]
    command = [str(executable), "-m", "pytest", "-q", "-m", "not soak", "-p", "no:cacheprovider"]
    command += [f"--ignore-glob={IN_A_BROWSER}", *tests]
    if row.releases:  # an old release warns of what a new Python will not have
        command += ["-W", "default::DeprecationWarning"]
    environ = {**os.environ, "PYTHONPATH": f"{overlay}{os.pathsep}{ROOT}"}
    with log.open("w") as output:
        call(command, cwd=ROOT, env=environ, stdout=output, stderr=output)
    summary = re.findall(
        r"^=* ?(\d+ (?:passed|failed|skipped|error).* in .*?)(?: =+)?$", log.read_text(), re.M
    )
    return summary[-1] if summary else f"FAILED: see {log}"


def table(results: Sequence[tuple[Row, str, str]]) -> str:
    """The results as Markdown."""
    lines = ["| row | python | other releases than the newest | result |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {row.name} | {python} | {' '.join(row.releases)} | {result} |" for row, python, result in results
    ]
    return "\n".join(lines)


def main() -> int:
    """Run the rows that are named, or all of them."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", metavar="row", help=f"only these: {', '.join(names)}")
    wanted = parser.parse_args().rows or names
    strangers = sorted(set(wanted) - set(names))
    if strangers:
        parser.error(f"the matrix has no {', '.join(strangers)}; it has {', '.join(names)}")
    here = interpreters()
    results = []
    for row in ROWS:
        if row.name not in wanted:
            continue
        python = row.choose(here)
        if python not in here:
            results.append((row, python, f"NOT RUN: no Python {python} on this machine"))
            continue
        print(f"{row.name} with Python {python}", flush=True)
        start = time.monotonic()
        result = run(row, python, here[python])
        print(f"  {result}, after {time.monotonic() - start:.0f} s", flush=True)
        results.append((row, python, result))
    print(f"\n{table(results)}")
    return int(any(re.search(r"FAILED|\d+ (failed|error)", result) for _, _, result in results))


def _minor(version: str) -> int:
    return int(version.partition(".")[2])


def _makes_environments(interpreter: str) -> bool:
    command = [interpreter, "-c", "import ensurepip, venv"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _run(command: Sequence[str]) -> None:
    call(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE).check_returncode()


if __name__ == "__main__":
    sys.exit(main())
