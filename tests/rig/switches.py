"""Races that one interpreter hides: its threads take turns every 5 ms only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_switches() -> Iterator[None]:
    """Inside the context threads take turns so often that they meet wherever no lock keeps them apart."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
