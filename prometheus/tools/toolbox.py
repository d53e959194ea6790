"""`.tools/`: where the programs of the stack are, and how they get there.

Each package comes from the first source that has it: a fit binary on the PATH, the project's release
archive, Debian's unstable suite through the machine's own mirror. Nothing is installed system-wide.
"""

import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus.tools.archives import Archives
from prometheus.tools.debian import Debian
from prometheus.tools.packages import Package, UnavailableError, check

TOOLS = Path(__file__).resolve().parents[2] / ".tools"

# Seconds after which a package that could not be had is tried again. One that a user names is tried at once.
RETRY = 86_400.0

# Packages are assembled in directories with this prefix. The next run removes what a killed one left.
PARTIAL = ".partial-"

Source = Callable[[Package, Path], None]


class MissingToolError(Exception):
    """A program is not in `.tools/`; the message says what to do."""


def executable(name: str, tools: Path = TOOLS) -> Path:
    """Return the path of the program `name`; raise MissingToolError, with the remedy, if it is not there."""
    path = tools / "grafana/bin/grafana" if name == "grafana" else tools / name
    if not os.access(path, os.X_OK):
        raise MissingToolError(f"{path} is missing: run `python -m prometheus.tools`")
    return path


def fill(
    packages: Iterable[Package], tools: Path = TOOLS, archives: Archives | None = None
) -> dict[Package, str]:
    """Make sure that `tools` holds all `packages`; return a report about each that cannot be had."""
    packages = [package for package in packages if not _present(package, tools)]
    if not packages:
        return {}  # a user who may not write there needs nothing
    try:
        tools.mkdir(parents=True, exist_ok=True)
        lock = (tools / ".lock").open("w")
    except OSError as error:
        return {
            package: f"{package.name} cannot be put into {tools}: {error.strerror}" for package in packages
        }
    reports = {}
    # A second caller waits here, and then finds everything in place.
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in tools.glob(f"{PARTIAL}*"):
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(dir=tools, prefix=PARTIAL) as work:
            sources: dict[str, Source] = {
                "PATH": _from_path,
                "release archive": (archives or Archives.load()).get,
                "Debian unstable": Debian(Path(work)).get,
            }
            for package in packages:
                if not _present(package, tools):
                    report = _fetch(package, tools, sources)
                    if report is not None:
                        reports[package] = report
    return reports


def gave_up(package: Package, tools: Path = TOOLS) -> bool:
    """Tell whether the package could not be had within the last day, so that another wait is not worth it."""
    try:
        return time.time() - _record(package, tools).stat().st_mtime < RETRY
    except FileNotFoundError:
        return False


def _record(package: Package, tools: Path) -> Path:
    return tools / f"{package.name}.unavailable"


def _present(package: Package, tools: Path) -> bool:
    try:
        for name in package.executables:
            executable(name, tools)
    except MissingToolError:
        return False
    return True


def _fetch(package: Package, tools: Path, sources: dict[str, Source]) -> str | None:
    """Take the package from the first source that has it; if none has, return a report of the attempts."""
    print(f"getting {package.name} for {tools}", file=sys.stderr)
    attempts = []
    for source, get in sources.items():
        with tempfile.TemporaryDirectory(dir=tools, prefix=PARTIAL) as directory:
            staging = Path(directory)
            try:
                get(package, staging)
                for name in package.executables:
                    check(package, executable(name, staging))
            except (UnavailableError, MissingToolError) as error:
                attempts.append(f"  {source}: {error}")
            else:
                _move(staging, tools)
                _record(package, tools).unlink(missing_ok=True)
                return None
    report = "\n".join(
        [
            f"{package.name} cannot be had. Tried:",
            *attempts,
            f"Put {' and '.join(package.executables)} {'.'.join(map(str, package.at_least))} or later "
            "on the PATH, or set STACK_ARCHIVES to a mirror of the release archives.",
        ]
    )
    _record(package, tools).write_text(f"{report}\n", encoding="utf-8")
    return report


def _move(staging: Path, tools: Path) -> None:
    """Move directories first, so that an executable in place has everything that it needs."""
    for entry in sorted(staging.iterdir(), key=lambda path: not path.is_dir()):
        target = tools / entry.name
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        entry.replace(target)


def _from_path(package: Package, staging: Path) -> None:
    for name in package.executables:
        # Debian's packages prefix the name.
        program = shutil.which(name) or shutil.which(f"prometheus-{name.replace('_', '-')}")
        if program is None:
            raise UnavailableError(f"no {name}")
        path = Path(program).resolve()
        check(package, path)
        if package.tree:
            homes = (path.parent.parent, Path("/usr/share") / package.name)
            home = next((home for home in homes if (home / "conf/defaults.ini").is_file()), None)
            if home is None:
                raise UnavailableError(f"{path} comes without its conf/defaults.ini")
            (staging / package.name).symlink_to(home)
        else:
            (staging / name).symlink_to(path)
