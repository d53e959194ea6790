"""Turns: simultaneous requests for the same thing share one answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from exporter import forks


class Turns:
    """One caller at a time produces an answer; all callers that were waiting when it began share it."""

    def __init__(self) -> None:
        self._turn = forks.Lock()
        self._count = 0
        self._last: tuple[Hashable, int, bytes] = None, 0, b""

    def share(self, key: Hashable, produce: Callable[[], bytes]) -> bytes:
        """The result of `produce` for this key, or that of another caller who began after this call."""
        arrival = self._count
        with self._turn:
            last, number, body = self._last
            if last == key and number > arrival:
                return body
            self._count += 1
            number = self._count
            body = produce()
            self._last = key, number, body
            return body
