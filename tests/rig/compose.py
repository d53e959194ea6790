"""The compose of this machine."""

import shutil
import subprocess


def compose() -> list[str] | None:
    """The command of compose v2, as a plugin of docker or by itself; None if there is neither."""
    docker, standalone = shutil.which("docker"), shutil.which("docker-compose")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
        return [docker, "compose"]
    return [standalone] if standalone else None
