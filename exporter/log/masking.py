"""Masking: no line shows the secrets that stand in a URL, wherever the URL stands."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote_plus

_MASK = "***"
_NAME = re.compile(r"""(?<![^\s"'<>?&;=])([^\s"'<>?&;=]+)=([^\s"'<>?&;]*)""")
# To the end of what may be the value: rather a quote too many than half a password.
_VALUE = re.compile(r"""[^\s"<>&]*""")
_BEFORE = tuple("?&;'\"")
_USER_INFO = re.compile(r"""(?<=://)([^\s/?#@:"']*:)[^\s/?#"']+@""")
# ECMA-48: colours and other control sequences, and the titles and links that terminals know.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")


class Mask:
    """Hides the values of parameters with these names, in lower case."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)

    def query(self, text: str) -> str:
        """A query string with its secrets masked."""
        return "&".join(self._pair(pair) for pair in text.split("&"))

    def text(self, text: str) -> str:
        """A text with the secrets of its URLs and query strings masked, and without colours."""
        if "\x1b" in text:
            text = _ANSI.sub("", text)
        if "://" in text:
            text = _USER_INFO.sub(rf"\1{_MASK}@", text)
        return self._queries(text) if "=" in text else text

    def _queries(self, text: str) -> str:
        """Linear: no two matches overlap, and each is decoded by itself."""
        parts: list[str] = []
        at = 0
        for match in _NAME.finditer(text):
            start, end = match.span()
            in_query = text[max(start - 1, 0) : start] in _BEFORE or text.startswith("&", end)
            if start >= at and in_query and self._hides(*match.groups()):
                parts += text[at : match.end(1)], f"={_MASK}"
                at = _VALUE.match(text, match.start(2)).end()  # type: ignore[union-attr]
        return "".join([*parts, text[at:]])

    def _pair(self, pair: str) -> str:
        name, equals, value = pair.partition("=")
        return f"{name}={_MASK}" if equals and self._hides(name, value) else self._queries(pair)

    def _hides(self, name: str, value: str) -> bool:
        """`user[password]=x` is hidden with `password`, however it is encoded, and so is a URL in a value."""
        words = unquote_plus(name).lower().replace("[", ".").replace("]", ".").split(".")
        if not self._names.isdisjoint(words):
            return True
        inner = unquote_plus(value) if "%" in value else value
        return inner != value and self.text(inner) != inner
