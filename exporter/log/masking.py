"""Masking: no log line shows a secret of a URL, a header or a document, wherever in the line it stands."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote_plus

from exporter.log.prose import Prose

_MASK = "***"
# Words in which the words of the mask mean something else.
_HARMLESS = re.compile(
    r"keyboard|keyword|monkey|turkey|passenger|passage|compass|authors?(?![a-z])|design|signal|assign|insight"
    r"|(?:country|currency|language|postal|post|zip|bar|uni|en|de|status|error)[-_ ]?code"
).sub
_NAME = re.compile(r"""(?<![^\s"'<>?#&;=])([^\s"'<>?#&;=]+)=([^\s"'<>?&;]*)""")
# Up to the end of what may be the value: a quote too many is better than half a password.
_VALUE = re.compile(r"""[^\s"<>&]*""")
_BEFORE = tuple("?#&;'\"")
_USER_INFO = re.compile(r"""(?<=://)([^\s/?#@:"']*:)[^\s/?#"']+@""")
_USER = re.compile(r"""(?<=://)[^\s/?#@:"']{16,}@""")  # a token, and hardly a name
# JSON and the forms of Python: "name": "value", ('name', 'value') and name='value'.
_QUOTED = re.compile(
    r"""(?:(\\?["'])([\w.\[\]-]+)\1\s*:|\((["'])([\w.\[\]-]+)\3\s*,|(?<![\w.\[\]-])([\w.\[\]-]+)\s*=)"""
    r"""\s*b?(\\?["'])((?:(?!\6)(?:\\.|.))*)""",
    re.DOTALL,
)
# The words of a connection string; the code in a traceback has commas, brackets or spaces there.
_WORD = re.compile(
    r"""(?<!\S)([\w.-]+)=(?!(?:None|True|False|\d{1,3})(?:[\s;]|\Z))[^\s,;()"'&]+(?=[\s;]|\Z)"""
)
_COLON = re.compile(r":(?: +|(?!\d{1,5}\b))")  # but that of a port
_HEADER = re.compile(r"(?<![\w-])(?:authorization|cookie|[a-z0-9]+(?:-[a-z0-9]+)+)\Z")
_HEADER_LENGTH = 64
_LINE = re.compile(r"""[^\r\n"']*""")
_SCHEME = re.compile(r"(?<!\w)(bearer|basic) +(?=[A-Za-z.~+/-]*[0-9=_])[\w.~+/-]{8,}=*", re.I | re.A)
_ELEMENT = re.compile(
    r"<([\w:.-]+)(?:\s[^<>]*)?>(<!\[CDATA\[(?:(?!\]\]>).){0,1000}\]\]>|[^<]+)(?=</)", re.DOTALL
)
# Outside of URLs these are no secrets: the key of a dictionary, the code of an error.
_WEAK = frozenset(["key", "code"])
# ECMA-48: colours and other control sequences, and the titles and links that terminals know.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")


class Mask:
    """Hides the values of parameters whose names contain one of these words, in lower case."""

    def __init__(self, words: Iterable[str]) -> None:
        self._words = tuple(words)
        self._prose = Prose(self._words, _MASK)

    def query(self, text: str) -> str:
        """A query string with its secrets masked."""
        return "".join(self._pair(pair) for pair in re.split("([&;])", text))

    def text(self, text: str) -> str:
        """A text with the secrets of its URLs, headers and documents masked, and without colours."""
        if "\x1b" in text:
            text = _ANSI.sub("", text)
        if "://" in text:
            text = _USER.sub(f"{_MASK}@", _USER_INFO.sub(rf"\1{_MASK}@", text))
        if "=" in text:
            text = _WORD.sub(self._word, self._queries(text))
        if ":" in text:
            text = self._headers(text)
        if "</" in text:
            text = _ELEMENT.sub(self._element, text)
        if '"' in text or "'" in text:
            text = _QUOTED.sub(self._quoted, text)
        lower = text.lower()
        if "bearer " in lower or "basic " in lower:
            text = _SCHEME.sub(rf"\1 {_MASK}", text)
        return self._prose.masked(text)

    def field(self, name: str, text: str) -> str:
        """The text of a field with this name, masked as `text` or as a whole."""
        return _MASK if self._names_secret(name) else self.text(text)

    def _word(self, match: re.Match[str]) -> str:
        return f"{match[1]}={_MASK}" if self._names_secret(match[1]) else match[0]

    def _quoted(self, match: re.Match[str]) -> str:
        _, key, _, first, keyword, _, value = match.groups()
        is_secret = self._names_secret(key or first or keyword)
        return match[0].removesuffix(value) + _MASK if is_secret else match[0]

    def _element(self, match: re.Match[str]) -> str:
        return match[0].removesuffix(match[2]) + _MASK if self._names_secret(match[1]) else match[0]

    def _headers(self, text: str) -> str:
        parts: list[str] = []
        at = 0
        for colon in _COLON.finditer(text):
            before = text[max(colon.start() - _HEADER_LENGTH, at) : colon.start()].lower()
            if "-" not in before and not before.endswith(("authorization", "cookie")):
                continue
            name = _HEADER.search(before)
            if name and (name[0].endswith("cookie") or self._names_secret(name[0])):
                parts += text[at : colon.end()], _MASK
                at = _LINE.match(text, colon.end()).end()  # type: ignore[union-attr]
        return "".join([*parts, text[at:]])

    def _names_secret(self, name: str) -> bool:
        """Whether a name outside of a URL is that of a secret."""
        name = name.lower().rpartition(".")[2]
        return name not in _WEAK and self._is_secret(name)

    def _queries(self, text: str) -> str:
        """The text with the secrets of its query strings masked, in linear time: no two matches overlap."""
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
        name, sign, value = (*re.split("([=:])", pair, maxsplit=1), "", "")[:3]
        return f"{name}{sign}{_MASK}" if sign and self._hides(name, value) else self.text(pair)

    def _hides(self, name: str, value: str) -> bool:
        """Whether to mask: `pass` hides `user[password]`, however encoded, and a URL or JSON with it."""
        if self._is_secret(_decode(name)):
            return True
        inner = _decode(value) if "%" in value else value
        if inner == value:
            return False
        return any(map(self._is_secret, re.split("[=:]", inner)[:-1])) or self.text(inner) != inner

    def _is_secret(self, name: str) -> bool:
        name = _HARMLESS("", name.lower())
        return any(word in name for word in self._words)


def _decode(text: str) -> str:
    """The text without percent-encoding, also that of a URL within another."""
    for _ in range(3):
        text = unquote_plus(text)
    return text
