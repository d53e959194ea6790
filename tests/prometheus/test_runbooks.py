"""Every query and command of the runbooks can be pasted, and answers."""

import re
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from prometheus.run.plan import PORTS
from tests.rig.alerts import RUNBOOKS, queries
from tests.rig.network import get_json
from tests.rig.places import ROOT
from tests.rig.stack import Run, running, settings

SERVICES = set(yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"])
# They look at the host, at a name on the internet, or into files that only a long run has.
ELSEWHERE = ("du ", "ps ", "dmesg ", "openssl ", "grep ", "tail ")


def commands() -> Iterator[tuple[str, str]]:
    """Runbook and command; a line that ends with a pipe goes on in the next one."""
    for file in RUNBOOKS:
        for block in re.findall(r"```sh\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL):
            for line in re.sub(r"\|\n\s*", "| ", block).splitlines():
                yield file.stem, line


COMMANDS = sorted(set(commands()))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The stack of `make run`, with a few customers."""
    directory: Path = tmp_path_factory.mktemp("runbooks")
    with running(settings(directory / "run", TRAFFIC_USERS="2", TIME_SCALE="60")) as run:
        run.wait_until_up()
        yield run


def test_queries_answer(stack: Run) -> None:
    """Prometheus evaluates each line: a match that needs one series meets no two of them."""
    errors = {}
    for query in queries():
        if query.place.endswith(".md"):
            path = f"/api/v1/query?query={urllib.parse.quote(query.promql)}"
            status = get_json(stack.url("PROMETHEUS_PORT", path))["status"]
            if status != "success":
                errors[query.place, query.promql] = status

    assert errors == {}


def test_commands_answer(stack: Run) -> None:
    """What asks the stack's ports succeeds; what asks compose names services that it has."""
    ports = {address.partition(":")[2]: stack.environ[setting] for address, setting in PORTS.items()}
    failures = {}
    for runbook, command in COMMANDS:
        subprocess.run(["bash", "-n", "-c", command], check=True)
        if "curl " in command and not command.startswith(("docker", *ELSEWHERE)):
            here = re.sub(r"127\.0\.0\.1:(\d+)", lambda match: f"127.0.0.1:{ports[match[1]]}", command)
            answer = subprocess.run(
                ["bash", "-o", "pipefail", "-c", here.replace("curl -s", "curl -sf")],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            if answer.returncode not in (0, 1 if "grep" in command else 0):
                failures[runbook, command] = answer.stderr
    assert failures == {}


@pytest.mark.parametrize(
    "command", [command for _, command in COMMANDS if command.startswith("docker compose")]
)
def test_compose_has_the_services(command: str) -> None:
    """A service that is asked for a log, or a program in it, is one of docker-compose.yml."""
    verb = re.match(
        r"docker compose (exec|logs|kill|up|ps)((?: --?\w[\w-]*(?:[ =][\d]+[a-z]?)?)*)((?: \w[\w-]*)*)",
        command,
    )
    assert verb is not None, command
    names = verb[3].split()
    if verb[1] == "exec":
        names = names[:1]

    assert set(names) <= SERVICES, command
