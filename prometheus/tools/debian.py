"""Debian's unstable packages through the machine's own mirror, unpacked without installing anything."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from prometheus.tools.packages import Package, UnavailableError

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITES = {"stable", "testing", "unstable", "sid"}

# Debian's Alertmanager reads its templates from /usr/share/prometheus/alertmanager and nowhere else.
# The launcher uses exec throughout, so that the caller's child is Alertmanager itself and gets its signals.
LAUNCHER = """\
#!/bin/sh
# Gives {name} the templates that it insists on, in a mount namespace of its own.
here=$(cd "$(dirname "$0")" && pwd) || exit 1
[ -e /usr/share/prometheus/alertmanager/default.tmpl ] && exec "$here/{private}/{name}" "$@"
exec unshare --map-root-user --mount sh -c '
  (cd "$0" && mount -t overlay overlay -o lowerdir=share:/usr/share /usr/share) || exit 1
  name=$1 && shift && exec "$0/$name" "$@"' "$here/{private}" {name} "$@"
"""


# Programs of unstable want newer libraries than the system has, and the loader that belongs to them.
LOADER = """\
#!/bin/sh
# Starts {name} with the libraries that it was built for.
here=$(cd "$(dirname "$0")/{private}" && pwd) || exit 1
exec "$here/loader" --library-path "$here" "$here/{name}" "$@"
"""


@dataclass(slots=True)
class Debian:
    """Downloads with apt into directories of its own, below `work`, and only reads those of the system."""

    work: Path
    _reason: str | None = field(default=None)
    _config: Path | None = field(default=None)

    def get(self, package: Package, staging: Path) -> None:
        """Put the package's executables into `staging`; raise UnavailableError otherwise."""
        if not package.debian:
            raise UnavailableError("Debian has no such package")
        config = self._configuration()
        packages = self.work / "+".join(package.debian)
        packages.mkdir(exist_ok=True)
        if not (packages / "usr").is_dir():  # two packages of ours may be one of Debian's
            _run(
                ["apt-get", "-c", str(config), "-qq", "download", *package.debian, *package.libraries],
                cwd=packages,
            )
            for file in packages.glob("*.deb"):
                _run(["dpkg", "-x", str(file), str(packages)])
        for name in package.executables:
            candidates = (
                packages / "usr/bin" / f"prometheus-{name.replace('_', '-')}",
                packages / "usr/bin" / name,
                packages / "usr/sbin" / name,
            )
            program = next((path for path in candidates if path.is_file()), None)
            if program is None:
                raise UnavailableError(f"Debian's {', '.join(package.debian)} holds no {name}")
            program.resolve().rename(staging / name)  # it may be a link into another directory
        if (packages / "usr/share/prometheus/alertmanager").is_dir():
            _wrap(package, packages / "usr/share/prometheus", staging)
        if package.libraries:
            _link(package, packages / "usr/lib", staging)

    def _configuration(self) -> Path:
        """Return an apt configuration with the package lists of unstable. The first call downloads them."""
        if self._reason is not None:
            raise UnavailableError(self._reason)
        if self._config is None:
            try:
                self._config = self._update()
            except UnavailableError as error:
                self._reason = str(error)
                raise
        return self._config

    def _update(self) -> Path:
        if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
            raise UnavailableError("this machine has no apt")
        failures = []
        for number, mirror in enumerate(_mirrors()):
            config = _configure(self.work / f"apt{number}", mirror)
            try:
                _run(["apt-get", "-c", str(config), "-qq", "update"])
            except UnavailableError as error:
                failures.append(str(error))
                continue
            # apt succeeds, with a warning, even if it got nothing.
            if any((config.parent / "lists").glob("*_Packages*")):
                return config
            failures.append(f"{mirror} gave no package lists of unstable")
        raise UnavailableError("; ".join(failures) or "apt has no Debian mirror configured")


def _mirrors() -> Iterator[str]:
    """Yield the address of each configured source that carries Debian's own suites."""
    release = Path("/etc/os-release").read_text(encoding="utf-8")
    codename = re.search(r"^VERSION_CODENAME=\"?(\w+)", release, re.MULTILINE)
    suites = SUITES | ({codename[1]} if codename else set())
    sources = _run(["apt-get", "--print-uris", "update"])
    addresses = set()
    for address, suite in re.findall(r"^'(\S+)/dists/([^/]+)/InRelease'", sources, re.MULTILINE):
        if suite in suites and address not in addresses:
            addresses.add(address)
            yield address


def _configure(directory: Path, mirror: str) -> Path:
    for name in ("lists/partial", "cache/archives/partial"):
        (directory / name).mkdir(parents=True)
    (directory / "status").touch()
    signature = f" signed-by={KEYRING}" if KEYRING.exists() else ""
    sources = directory / "unstable.list"
    sources.write_text(f"deb [target=Packages{signature}] {mirror} unstable main\n", encoding="utf-8")
    config = directory / "apt.conf"
    # apt reads this after the system's own configuration, which may name a proxy. It replaces only what would
    # touch the system (hooks, directories) or pick another version (pins, default release).
    config.write_text(
        f"""\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Default-Release "";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Dir::Etc::sourcelist "{sources}";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{directory}";
Dir::State::lists "{directory}/lists";
Dir::State::status "{directory}/status";
Dir::Cache "{directory}/cache";
""",
        encoding="utf-8",
    )
    return config


def _wrap(package: Package, share: Path, staging: Path) -> None:
    """Replace the executables in `staging` by launchers, and put the real ones and `share` beside them."""
    private = staging / f"debian-{package.name}"
    (private / "share").mkdir(parents=True)
    share.rename(private / "share/prometheus")
    for name in package.executables:
        (staging / name).rename(private / name)
        (staging / name).write_text(LAUNCHER.format(name=name, private=private.name), encoding="utf-8")
        (staging / name).chmod(0o755)


def _link(package: Package, libraries: Path, staging: Path) -> None:
    """Replace the executables in `staging` by launchers, and put the real ones beside their libraries."""
    private = staging / f"debian-{package.name}"
    private.mkdir()
    for file in libraries.glob("*-linux-gnu*/*.so*"):
        file.rename(private / file.name)
    loader = next(private.glob("ld-linux*.so.*"), None)
    if loader is None:
        raise UnavailableError(f"Debian's {', '.join(package.libraries)} hold no loader")
    loader.rename(private / "loader")
    for name in package.executables:
        (staging / name).rename(private / name)
        (staging / name).write_text(LOADER.format(name=name, private=private.name), encoding="utf-8")
        (staging / name).chmod(0o755)


def _run(command: list[str], cwd: Path | None = None) -> str:
    try:
        answer = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(str(error)) from error
    if answer.returncode != 0:
        lines = answer.stderr.strip().splitlines() or [f"exit status {answer.returncode}"]
        # apt writes warnings before and after the error.
        reason = next((line for line in lines if line.startswith("E:")), lines[-1])
        raise UnavailableError(f"{command[0]}: {reason}")
    return answer.stdout
