"""Another, hostile user of this machine."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

import pytest

STRANGER = 65534, 65534
"""The ids of user and group."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has other users")


def as_child(action: Callable[[], object]) -> None:
    """Run the action in a child process, which may give up its rights; AssertionError if it fails."""
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
        return
    status = 1
    try:
        action()
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)
