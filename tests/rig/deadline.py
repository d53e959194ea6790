"""Waiting for a condition instead of for a time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T | None], event: str, seconds: float = 30) -> T:
    """The first result of `condition` that is neither None nor false; AssertionError after `seconds`.

    The longer it has waited the less often it asks, for a question costs time that others want.
    """
    begin = time.monotonic()
    while not (result := condition()):
        waited = time.monotonic() - begin
        assert waited < seconds, f"not within {seconds:g} s: {event}"
        time.sleep(min(max(0.02, waited / 20), 0.5))
    return result
