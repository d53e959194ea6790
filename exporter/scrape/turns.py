"""Turns: simultaneous requests for the same thing share one answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from exporter import forks


class Turns:
    """One caller at a time produces what all who were waiting when it began then share."""

    def __init__(self) -> None:
        self._turn = forks.Lock()
        self._begun = 0
        self._last: tuple[Hashable, int, bytes] = None, 0, b""

    def share(self, key: Hashable, produce: Callable[[], bytes]) -> bytes:
        """What `produce` gives for this key, if need be to another caller that began after this call."""
        arrived = self._begun
        with self._turn:
            last, number, body = self._last
            if last == key and number > arrived:
                return body
            self._begun += 1
            number = self._begun
            body = produce()
            self._last = key, number, body
            return body
