"""A small disk, for tests of a full one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """A tmpfs of that size; needs root."""
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path],
        capture_output=True,
        text=True,
        check=False,
    )
    if mount.returncode:
        assert os.environ.get("CI") != "true", mount.stderr
        pytest.skip(
            f"SKIPPED: a full disk is not tested here, because no tmpfs can be mounted: {mount.stderr}"
        )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
