"""Routes: the rules of the applications, for requests that have not been routed."""

from __future__ import annotations

from collections.abc import Callable

from exporter.labels import UNMATCHED

Finder = Callable[[str, str], str | None]
"""Gives the rule of a method and a path without its script name; None where there is none."""


class Routes:
    """The routing of the applications that one exporter measures."""

    def __init__(self) -> None:
        self._finders: list[Finder] = []

    def add(self, find: Finder) -> None:
        """Add the rules of an application."""
        self._finders.append(find)

    def rule(self, method: str, path: str) -> str:
        """The rule of a path without its script name; `_unmatched` for none."""
        for find in self._finders:
            rule = find(method, path)
            if rule is not None:
                return rule
        return UNMATCHED
