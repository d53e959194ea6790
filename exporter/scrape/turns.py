"""Turns: simultaneous requests for the same thing share one answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from exporter import forks


class Turns:
    """One caller at a time produces an answer; all callers that were waiting when it began share it."""

    def __init__(self) -> None:
        self._turn = forks.Lock()
        self._round: dict[Hashable, bytes] = {}
        """The answers for those who wait for the next turn, who alone keep them: they may be large."""

    def share(self, key: Hashable, produce: Callable[[], bytes]) -> bytes:
        """The result of `produce` for this key, or that of another caller who began after this call."""
        answers = self._round
        with self._turn:
            if key not in answers:
                self._round = {}
                answers[key] = produce()
            return answers[key]
