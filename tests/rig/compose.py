"""The compose of this machine."""

import shutil
import subprocess

from prometheus.tools.toolbox import MissingToolError, executable


def compose() -> list[str] | None:
    """The command of compose v2, as a plugin of docker or from `.tools/`; None if there is neither."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
        return [docker, "compose"]
    try:
        return [str(executable("docker-compose"))]
    except MissingToolError:
        return None
