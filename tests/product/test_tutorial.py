"""The tutorial works as it is written: from a clone to an alert, the repair, and the news that it is over.

Each output that the page shows is seen.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from prometheus.run.plan import PORTS
from tests.rig.deadline import eventually
from tests.rig.network import free_ports
from tests.rig.places import ROOT
from tests.rig.readme import PAGES, Block, shows
from tests.rig.terminal import await_200, environment, local, started

PAGE = PAGES["docs/tutorial.md"]
SHELL, FILES, HEARD = (
    [block for block in PAGE.blocks if block.language == language] for language in ("sh", "python", "text")
)
LISTEN, START, SHOP, ASK, COUNT, UP, FAULT, PENDING, DETAILS, BUG, REPAIR, AGAIN = SHELL
CRITICAL = "FlaskErrorRatioCritical"


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody in a fresh clone who types what the page says, with other ports."""

    clone: Path
    ports: Mapping[str, int]
    environ: Mapping[str, str]

    def local(self, block: Block) -> str:
        return local(block.text, self.ports, self.clone)

    def answer(self, block: Block) -> str:
        """The output of a block that ends by itself."""
        command = ["bash", "-uo", "pipefail", "-c", self.local(block)]
        answer = subprocess.run(
            command, cwd=self.clone, env=self.environ, capture_output=True, text=True, timeout=60
        )
        assert answer.stderr == ""
        return answer.stdout

    def heard(self) -> str:
        """What terminal 1 shows."""
        return (self.clone / "heard").read_text()

    def sees(self, block: Block, seconds: float = 30) -> None:
        """Wait until a block says what the page shows."""
        eventually(lambda: shows(self.answer(block), block.output), f"{block} says {block.output}", seconds)


def fresh_clone(path: Path) -> Path:
    """The tracked files, with the tools and the virtual environment of this repository."""
    files = subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    for name in filter(None, files):
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)
    os.utime(path / "pyproject.toml", (0, 0))  # so that `make` does not install the copy into the environment
    (path / ".venv").symlink_to(sys.prefix)
    (path / ".tools").symlink_to((ROOT / ".tools").resolve())
    return path


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """The reader has the stack up, sixty times as fast, and an alert is over with its errors."""
    numbers = [address.partition(":")[2] for address in PORTS]
    ports = dict(zip([*numbers, "8001", "9099"], free_ports(len(PORTS) + 2), strict=True))
    settings = {setting: str(ports[address.partition(":")[2]]) for address, setting in PORTS.items()}
    environ = environment(**settings, TIME_SCALE="60", TRAFFIC_USERS="1")
    reader = Reader(fresh_clone(tmp_path_factory.mktemp("tutorial") / "clone"), ports, environ)
    rules = reader.clone / "prometheus/rules/service.yml"
    rules.write_text(rules.read_text().replace("keep_firing_for: 15m", "keep_firing_for: 1m"))
    for block in FILES:
        (reader.clone / block.file).write_text(reader.local(block))
    with (
        started(reader.local(LISTEN), reader.clone, environ, "heard"),
        started(reader.local(START), reader.clone, environ, "said") as said,
    ):
        eventually(lambda: "Ctrl-C stops everything." in said.read_text(), "the stack is up", 180)
        yield reader


@contextmanager
def shop(reader: Reader) -> Iterator[None]:
    """The reader's shop, until Ctrl-C."""
    with started(reader.local(SHOP), reader.clone, reader.environ, "shop") as log:
        await_200(f"http://127.0.0.1:{reader.ports['8001']}/health/ready", 30, log)
        yield


@pytest.fixture(scope="module")
def told(reader: Reader) -> str:
    """What terminal 1 shows once the shop, which is well at first, has its fault; and its bug is found."""
    critical = HEARD[1]
    with shop(reader):
        for block in (ASK, COUNT, UP):
            reader.sees(block)

        def is_pending() -> bool:
            if CRITICAL not in reader.answer(PENDING):
                assert shows(reader.answer(FAULT), FAULT.output)
            return shows(reader.answer(PENDING), PENDING.output)

        def is_told() -> bool:
            reader.answer(FAULT)  # at this speed its errors are forgotten after five seconds
            return shows(reader.heard(), critical.text) and shows(reader.answer(DETAILS), DETAILS.output)

        eventually(is_pending, f"{CRITICAL} is pending", 90)
        eventually(is_told, critical.text, 90)
        reader.sees(BUG)
    return reader.heard()


def test_the_stack_says_that_the_shop_is_down(reader: Reader) -> None:
    assert shows((reader.clone / "said").read_text(), START.output)


def test_a_fault_becomes_an_alert(told: str) -> None:
    warning, critical, _ = HEARD

    assert shows(told, critical.text)
    # The critical alert holds the warning back if it comes while that still waits, for half a second.
    assert "FlaskErrorBurst" not in told or shows(told, warning.text)


@pytest.mark.usefixtures("told")
def test_after_the_repair_it_is_over(reader: Reader) -> None:
    resolved = HEARD[2]
    reader.answer(REPAIR)
    with shop(reader):
        reader.sees(AGAIN)
        eventually(lambda: shows(reader.heard(), resolved.text), resolved.text, 120)
