"""The services of examples/, each started as its README says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.rig.deadline import eventually
from tests.rig.network import free_ports
from tests.rig.places import ROOT
from tests.rig.server import Server, started


@contextmanager
def running(example: str, directory: Path, **variables: str) -> Iterator[Server]:
    """The service of an example, copied into this directory, on a free port."""
    shutil.copytree(ROOT / "examples" / example, directory, dirs_exist_ok=True)
    text = (directory / "README.md").read_text()
    (block,) = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (port,) = free_ports(1)
    words = shlex.split(block.replace("8001", str(port)).replace("/dev/shm/", f"{directory}/"))
    settings = [word.partition("=")[::2] for word in words if re.match(r"[A-Z_]+=", word)]
    command = words[len(settings) :]
    command[0] = str(Path(sys.executable).with_name(command[0]))
    environ = {
        "PROMETHEUS_MULTIPROC_DIR": "",
        "PYTHONPATH": str(directory),
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        **dict(settings),
        **variables,
    }
    with started(command, directory, **environ) as server:
        server.port = port
        eventually(lambda: _answers(server), "an answer")
        yield server


def _answers(server: Server) -> bool:
    """Whether it serves."""
    with suppress(OSError):
        return server.get("/health/ready").status == 200
    return False
