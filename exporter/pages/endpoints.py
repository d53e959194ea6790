"""The exporter's own endpoints on an application: no traffic, and they yield to the host's routes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from werkzeug.routing import Map, Rule


class OwnEndpoints:
    """Knows which rules of a routing map are the exporter's."""

    def __init__(self, url_map: Map) -> None:
        self._url_map = url_map
        self._complete = False
        self._rules: list[Rule] = []
        self.paths: set[str] = set()
        """Paths whose requests are answered by the exporter."""

    @contextmanager
    def registering(self) -> Iterator[None]:
        """What is added to the routing map inside this context is the exporter's."""
        before = set(map(id, self._url_map.iter_rules()))
        yield
        for rule in self._url_map.iter_rules():
            if id(rule) not in before:
                self._rules.append(rule)
                self.paths.add(rule.rule)

    def yield_to_host(self) -> None:
        """Drop each rule whose path the application serves itself; a catch-all has another path.

        Called when the routes are complete, at the first request: of two rules with the same path Werkzeug
        would serve the first, which is ours. Later calls do nothing.
        """
        if self._complete:
            return
        self._complete = True
        own = set(map(id, self._rules))
        host_paths = {rule.rule for rule in self._url_map.iter_rules() if id(rule) not in own}
        for rule in self._rules:
            if rule.rule in host_paths:
                rule.methods = set()  # matches nothing any more, so the next rule is tried
                self.paths.discard(rule.rule)

    def host_rules(self) -> Iterator[tuple[str, str]]:
        """(method, rule) of the application's routes: GET where it is allowed, else each of its methods."""
        for rule in self._url_map.iter_rules():
            if rule.rule in self.paths or rule.methods is None:
                continue
            methods = {"GET"} if "GET" in rule.methods else rule.methods - {"HEAD", "OPTIONS"}
            for method in sorted(methods):
                yield method, rule.rule
