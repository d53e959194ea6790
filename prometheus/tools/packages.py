"""The programs that the stack runs, their versions, and a check that one is fit."""

import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path


class UnavailableError(Exception):
    """A source cannot give a package; the message is the reason, fit for one line of a report."""


@dataclass(frozen=True, slots=True)
class Package:
    """One release: its name in each source, and the versions that are good enough.

    `version` is the release that containers and archives use, "" where there is no archive; from elsewhere,
    any version in `at_least` ≤ v < `below` will do. `project` is who publishes it: the names of archives are
    theirs. `libraries` are the packages with those of Debian's build, which a stable one lacks.
    """

    name: str
    version: str
    executables: tuple[str, ...]
    at_least: tuple[int, int]
    below: tuple[int, int]
    debian: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    project: str = "prometheus"
    asked: tuple[str, ...] = ("--version",)

    @property
    def tree(self) -> bool:
        """Whether the whole directory is needed and not only its executables."""
        return self.project == "grafana"

    @property
    def archive(self) -> str:
        """Path of the release archive below its site's address."""
        machine = f"{platform.system().lower()}-{architecture()}"
        file = f"{self.name}-{self.version}.{machine}.tar.gz"
        if self.tree:
            return f"oss/release/{file}"
        if self.project == "VictoriaMetrics":
            file = f"{self.name}-{machine}-v{self.version}.tar.gz"
            return f"VictoriaMetrics/VictoriaMetrics/releases/download/v{self.version}/{file}"
        return f"prometheus/{self.name}/releases/download/v{self.version}/{file}"

    @property
    def checksums(self) -> str:
        """Path of the checksum file that the release publishes."""
        if self.tree:
            return f"{self.archive}.sha256"
        if self.project == "VictoriaMetrics":
            return f"{self.archive.removesuffix('.tar.gz')}_checksums.txt"
        return f"{self.archive.rpartition('/')[0]}/sha256sums.txt"

    @property
    def site(self) -> str:
        """Address under which the project publishes its releases."""
        return "https://dl.grafana.com" if self.tree else "https://github.com"


PROMETHEUS = Package(
    "prometheus", "3.13.2", ("prometheus", "promtool"), (3, 0), (4, 0), debian=("prometheus", "promtool")
)
ALERTMANAGER = Package(
    "alertmanager", "0.34.0", ("alertmanager", "amtool"), (0, 33), (1, 0), debian=("prometheus-alertmanager",)
)
BLACKBOX = Package(
    "blackbox_exporter",
    "0.28.0",
    ("blackbox_exporter",),
    (0, 25),
    (1, 0),
    debian=("prometheus-blackbox-exporter",),
)
NODE = Package(
    "node_exporter", "1.9.1", ("node_exporter",), (1, 8), (2, 0), debian=("prometheus-node-exporter",)
)
GRAFANA = Package("grafana", "13.2.3", ("grafana",), (12, 0), (14, 0), project="grafana")
VICTORIAMETRICS = Package(
    "victoria-metrics",
    "1.150.0",
    ("victoria-metrics",),
    (1, 140),
    (2, 0),
    debian=("victoria-metrics",),
    project="VictoriaMetrics",
)
VMUTILS = Package(
    "vmutils",
    "1.150.0",
    ("vmagent", "vmalert", "vmalert-tool", "vmauth"),
    (1, 140),
    (2, 0),
    debian=("victoria-metrics",),
    project="VictoriaMetrics",
)

# For tests alone: the proxy before replicas, and what reads the files of compose and of Kubernetes.
NGINX = Package(
    "nginx",
    "",
    ("nginx",),
    (1, 28),
    (2, 0),
    debian=("nginx",),
    libraries=("libc6", "libcrypt1", "libpcre2-8-0", "libssl3t64", "libzstd1", "zlib1g"),
    asked=("-v",),
)
KUBECTL = Package(
    "kubectl", "", ("kubectl",), (1, 27), (2, 0), debian=("kubectl",), asked=("version", "--client")
)
COMPOSE = Package(
    "docker-compose", "", ("docker-compose",), (2, 24), (6, 0), debian=("docker-compose",), asked=("version",)
)

REQUIRED = (PROMETHEUS, ALERTMANAGER, BLACKBOX, NODE)
PACKAGES = (*REQUIRED, GRAFANA, VICTORIAMETRICS, VMUTILS, NGINX, KUBECTL, COMPOSE)


def architecture() -> str:
    """Name that Go and Debian use for this machine's processor: `amd64`, `arm64`."""
    machine = platform.machine().lower()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def check(package: Package, executable: Path) -> None:
    """Ask the program for its version; raise UnavailableError unless it works here and is of a fit one."""
    try:
        answer = subprocess.run(
            [executable, *package.asked], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{executable} does not run here: {error}") from error
    output = answer.stdout + answer.stderr
    silent = answer.returncode == 0 and not answer.stdout.strip()
    if package.project == "VictoriaMetrics" and (silent or "not defined: -version" in output):
        return  # Debian's builds run and tell no version
    match = re.search(r"(?:version:? (?:nginx/)?|tags-)v?(\d+)\.(\d+)", output, re.IGNORECASE)
    if answer.returncode != 0 or match is None:
        raise UnavailableError(
            f"{executable} {' '.join(package.asked)} failed: {output.strip() or answer.returncode}"
        )
    version = (int(match[1]), int(match[2]))
    if not package.at_least <= version < package.below:
        low, high = (".".join(map(str, bound)) for bound in (package.at_least, package.below))
        raise UnavailableError(
            f"{executable} is version {match[1]}.{match[2]}, needed is {low} or later, below {high}"
        )
