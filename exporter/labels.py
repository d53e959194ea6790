"""Label values that no client can make unbounded."""

from __future__ import annotations

import re

from werkzeug.exceptions import HTTPException, default_exceptions

UNMATCHED = "_unmatched"
"""The url_rule of a request that matched no rule (404, 405 and slash redirects)."""

OTHER = "_other"
"""The group of requests that the series cap does not admit."""

OTHER_METHOD = "_OTHER"

# RFC 9110, section 9, and RFC 5789.
METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"])

_SURROGATES = re.compile("[\ud800-\udfff]")


def clean(text: str) -> str:
    """The text without lone surrogates, which JSON can contain and no encoding can write."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def error_type_of(status: int) -> str:
    """The name of the HTTP error with this status, for errors without an exception."""
    return default_exceptions.get(status, HTTPException).__name__


def is_redirect(error: BaseException) -> bool:
    """Whether this exception is a redirect, and so no error."""
    return isinstance(error, HTTPException) and (error.code or 0) < 400


def coarse(label: str, value: str) -> str:
    """The value of a label above the series cap: a status by class, methods alike, others alike."""
    if label == "method":
        return OTHER_METHOD
    return value[:1] + "xx" if label == "status" else OTHER


class SeriesCap:
    """Admits at most `limit` label sets to a family; later ones are folded into a few.

    Above the limit each value becomes coarse, but the group stays if it is the application's own. So no rule
    of the routing map is ever lost, and a family has at most `limit` + 6 * (rules + 2) label sets.
    """

    __slots__ = ("_group", "_labels", "_members", "limit")

    def __init__(self, limit: int, labels: tuple[str, ...], group: str = "") -> None:
        """`labels` are the names of the family's labels, `group` the one that requests are grouped by."""
        self.limit = limit
        self._labels = labels
        self._group = group
        self._members: set[tuple[str, ...]] = set()

    def clear(self) -> None:
        """Forget all label sets and start over."""
        self._members.clear()

    def admit(self, values: tuple[str, ...], own: bool = False) -> tuple[str, ...]:
        """The label values to count under: `values`, or coarse ones above the cap.

        `own` says whether the group is the application's own and not a client's invention.
        """
        if values in self._members:
            return values
        if len(self._members) < self.limit:
            self._members.add(values)
            return values
        return tuple(
            value if own and label == self._group else coarse(label, value)
            for label, value in zip(self._labels, values, strict=True)
        )
