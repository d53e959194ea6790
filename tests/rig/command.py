"""`python -m tests.rig.command MODULE [ARGUMENT …]`: a command of `make`, without a traceback at Ctrl-C."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


def call(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run`; but a program that Ctrl-C ends too has the time to end what it has started."""
    process = subprocess.Popen(command, text=True, **options)
    try:
        output, errors = process.communicate()
    finally:
        process.wait()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def main() -> int:
    """Run the module; 130 after Ctrl-C."""
    del sys.argv[0]
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
