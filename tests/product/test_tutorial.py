"""The tutorial works as it is written: from a clone to an alert, the repair, and the news that it is over."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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


def test_tutorial(tmp_path: Path) -> None:
    """Sixty times as fast. Each output that the page shows is seen."""
    listen, start, shop, ask, count, up, fault, pending, details, bug, repair, again = SHELL
    warning, critical, resolved = HEARD
    numbers = [address.partition(":")[2] for address in PORTS]
    ports = dict(zip([*numbers, "8001", "9099"], free_ports(len(PORTS) + 2), strict=True))
    settings = {setting: str(ports[address.partition(":")[2]]) for address, setting in PORTS.items()}
    environ = environment(**settings, TIME_SCALE="60", TRAFFIC_USERS="1")
    reader = Reader(fresh_clone(tmp_path / "clone"), ports, environ)
    for block in FILES:
        (reader.clone / block.file).write_text(reader.local(block))
    with (
        started(reader.local(listen), reader.clone, environ, "heard") as heard,
        started(reader.local(start), reader.clone, environ, "said") as said,
    ):
        eventually(lambda: "Ctrl-C stops everything." in said.read_text(), "the stack is up", 180)
        assert shows(said.read_text(), start.output)

        ready = f"http://127.0.0.1:{ports['8001']}/health/ready"
        with started(reader.local(shop), reader.clone, environ, "shop") as log:
            await_200(ready, 30, log)
            for block in (ask, count, up):
                reader.sees(block)

            def is_pending() -> bool:
                if CRITICAL not in reader.answer(pending):
                    assert shows(reader.answer(fault), fault.output)
                return shows(reader.answer(pending), pending.output)

            def is_told() -> bool:
                reader.answer(fault)  # at this speed its errors are forgotten after five seconds
                is_heard = shows(heard.read_text(), critical.text)
                return is_heard and shows(reader.answer(details), details.output)

            eventually(is_pending, f"{CRITICAL} is pending", 90)
            eventually(is_told, critical.text, 90)
            # The critical alert holds the warning back if it comes while that still waits, for half a second.
            assert "FlaskErrorBurst" not in heard.read_text() or shows(heard.read_text(), warning.text)
            reader.sees(bug)
            reader.answer(repair)
        with started(reader.local(shop), reader.clone, environ, "shop") as log:
            await_200(ready, 30, log)
            reader.sees(again)
            eventually(lambda: shows(heard.read_text(), resolved.text), resolved.text, 120)
