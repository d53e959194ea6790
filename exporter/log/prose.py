"""Prose: the secrets that a sentence, a command or an error tells, such as `password: x` and `--password x`.

Names are no proof there: "unexpected token: end" has no secret. So a name must end in a known way, and what
follows must look like a secret: it has a digit, or is all that is said of a password or an identifier.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# How the names of secrets with these words end.
_ENDS = {
    "pass": ("password", "passwd", "passphrase", "passcode", "_pass"),
    "pwd": ("_pwd",),
    "key": tuple(
        f"{kind}{space}key"
        for kind in ("api", "access", "private", "secret", "signing", "encryption", "master")
        for space in ("", " ", "_", "-")
    ),
    "sess": ("session", "sessionid", "session id", "session_id", "session-id"),
    "sig": ("signature",),
    "code": tuple(
        f"{kind}{space}code"
        for kind in ("auth", "verification", "security", "login", "recovery", "backup")
        for space in (" ", "_", "-")
    ),
    "cred": ("credential", "credentials"),
}
_NAME_LENGTH = 32  # more than any of them has
_COLON = re.compile(r":[ \t]*")
# The first word or the quoted text behind it, unless it is a word about secrets or of Python.
_VALUE = re.compile(
    r"(?!(?:none|null|true|false|yes|no|ok|required|missing|invalid|wrong|incorrect|empty|expired|failed|denied"
    r"|unset|set|reset|changed|updated|str|string|bytes|any|return|raise|pass|break|continue)(?![\w-]))"
    r"""(?:(["'])([^"'\r\n]+)|([^\s"'<>][^\s"<>]*?)(?=["',;.:)\]}]{0,9}(?:[\s"<]|\Z)))""",
    re.I,
)
_END = re.compile(r"""["'.)\]}]*(?:[,;<]|\s*(?:\Z|[\r\n])|\s+[\w.-]+[:=])""")
_OPTION = re.compile(r"""--(?<![\w-]--)([\w-]+)(?:=|\s+|["'],\s*["'])(?!-)("[^"]*|'[^']*|[^\s"',]+)""")
_SQL = re.compile(r"((?:passw(?:or)?d|identified by) +')[^']*", re.I)
_INPUT = ", input_value="
_PARAMETERS = "[parameters: "
_WORD = re.compile(r"\w+")


class Prose:
    """Hides the values behind names that end as those of secrets with these words do."""

    def __init__(self, words: Iterable[str], mask: str) -> None:
        self._ends = tuple(end for word in words for end in _ENDS.get(word, (word,)))
        self._passwords = tuple(end for end in self._ends if end in _ENDS["pass"])
        self._mask = mask

    def masked(self, text: str) -> str:
        """The text with the secrets behind colons and options, and of errors, masked."""
        if ":" in text:
            text = self._colons(text)
        if "--" in text:
            text = _OPTION.sub(self._option, text)
        if " '" in text and self._passwords:
            text = _SQL.sub(rf"\1{self._mask}", text)
        if _PARAMETERS in text or _INPUT in text:
            text = self._inputs(self._parameters(text))
        return text

    def _colons(self, text: str) -> str:
        parts: list[str] = []
        at = scanned = 0
        for colon in _COLON.finditer(text):
            start, end = colon.span()
            name = text[max(start - _NAME_LENGTH, at) : start].lower().rstrip(""" \\"'""")
            if start < scanned or not name.endswith(self._ends):
                continue
            value = _VALUE.match(text, end)
            if value:
                scanned = value.end()
                if self._is_secret(value, name, end - start):
                    parts += text[at : value.start(value.lastindex or 0)], self._mask
                    at = scanned
        return "".join([*parts, text[at:]])

    def _is_secret(self, match: re.Match[str], name: str, space: int) -> bool:
        value = match[2] or match[3]
        is_explicit = name.endswith(self._passwords) or "_" in name.rpartition(" ")[2]
        if len(value) > 3 and any(map(str.isdigit, value)):
            return space > 1 or is_explicit  # and not a port
        if not is_explicit or match[2]:
            return is_explicit
        return not set("()[]{}").intersection(value) and _END.match(match.string, match.end()) is not None

    def _parameters(self, text: str) -> str:
        """The text without the positional values of SQLAlchemy's statements that name a secret."""
        parts = text.split(_PARAMETERS)
        for number, statement in enumerate(parts[:-1]):
            values, line_feed, rest = parts[number + 1].partition("\n")
            is_by_name = values.startswith(("{", "[{"))
            if not is_by_name and self._has_secret(statement.rpartition("[SQL: ")[2].lower()):
                parts[number + 1] = f"{self._mask}]{line_feed}{rest}"
        return _PARAMETERS.join(parts)

    def _inputs(self, text: str) -> str:
        """The text without the values that pydantic refused for a field that is a secret."""
        lines = text.split("\n")
        for number, line in enumerate(lines[1:], 1):
            start, _, rest = line.partition(_INPUT)
            value, has_type, kind = rest.rpartition(", input_type=")
            if value and self._has_secret(lines[number - 1].lower()):
                lines[number] = f"{start}{_INPUT}{self._mask}{has_type}{kind}"
        return "\n".join(lines)

    def _has_secret(self, text: str) -> bool:
        return any(word.endswith(self._ends) for word in _WORD.findall(text))

    def _option(self, match: re.Match[str]) -> str:
        name, value = f"_{match[1].lower()}", match[2]
        if not name.replace("-", "_").endswith(self._ends) or name.startswith("_no-"):
            return match[0]
        return match[0].removesuffix(value) + (value[0] if value[0] in "\"'" else "") + self._mask
