"""The terminal as a keyboard, which gives each key at once."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import tty
from typing import TextIO

_KEY = re.compile(r"\x1b(?:\[[0-9;]*[A-Za-z~]|O[A-Za-z])?|[^\x1b]", re.DOTALL)


class Keyboard:
    """A terminal, standard input by default, key by key and without echo until the context ends."""

    def __init__(self, terminal: TextIO | None = None) -> None:
        self._input = (terminal or sys.stdin).fileno()

    def __enter__(self) -> Keyboard:
        self._before = termios.tcgetattr(self._input)
        tty.setcbreak(self._input)
        return self

    def __exit__(self, *_: object) -> None:
        termios.tcsetattr(self._input, termios.TCSADRAIN, self._before)

    def keys(self, timeout: float) -> list[str]:
        """The next keys within `timeout` seconds; an escape sequence, such as an arrow, is one key."""
        if not select.select([self._input], [], [], timeout)[0]:
            return []
        text = os.read(self._input, 1024).decode("utf-8", "ignore")
        return _KEY.findall(text)
