"""The terminal as a keyboard, which gives each key at once."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty


class Keyboard:
    """Standard input key by key and without echo, until the context ends."""

    def __enter__(self) -> Keyboard:
        self._input = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._input)
        tty.setcbreak(self._input)
        return self

    def __exit__(self, *_: object) -> None:
        termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)

    def keys(self, timeout: float) -> list[str]:
        """The keys of the next `timeout` seconds; an escape sequence, such as an arrow, is one key."""
        if not select.select([self._input], [], [], timeout)[0]:
            return []
        text = os.read(self._input, 1024).decode("utf-8", "ignore")
        return [text] if text.startswith("\x1b") else list(text)
