"""The exporter's own endpoints on an application: they are no traffic, and yield to the host's routes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import Map, Rule

from exporter.routes.flask import OWN
from exporter.worker.failures import logger


class OwnEndpoints:
    """Knows which rules of a routing map are the exporter's."""

    def __init__(self, url_map: Map) -> None:
        self._url_map = url_map
        self._complete = False
        self.paths: set[str] = set()
        """Paths of the exporter alone; for shared paths, and for other spellings, the rule decides."""

    @contextmanager
    def registration(self) -> Iterator[None]:
        """Mark the rules that the routing map gets inside this context as the exporter's."""
        before = set(map(id, self._url_map.iter_rules()))
        yield
        for rule in self._url_map.iter_rules():
            if id(rule) not in before:
                setattr(rule, OWN, True)
                self.paths.add(rule.rule)

    def yield_to_host(self) -> None:
        """Leave to the application each request that its own route on one of our paths can answer.

        Called at the first request, when the routes are complete: of two rules for the same requests Werkzeug
        would serve the first, which is ours. A catch-all has another path. Later calls do nothing.
        """
        if self._complete:
            return
        self._complete = True
        if not self._finds("/favicon.ico"):  # browsers ask for it beside our pages
            self.paths.add("/favicon.ico")
        own_rules: list[Rule] = []
        host_rules: list[Rule] = []
        for rule in self._url_map.iter_rules():
            (own_rules if hasattr(rule, OWN) else host_rules).append(rule)
        for host in host_rules:
            for own in own_rules:
                if host.rule != own.rule or host.build_only:
                    continue
                self.paths.discard(own.rule)
                if _place(host) == _place(own) and own.methods is not None:
                    methods = own.methods
                    # Without methods it matches nothing any more, and the next rule is tried.
                    own.methods = set() if host.methods is None else methods - host.methods
                    if "GET" in methods - own.methods:
                        _report(own, host)

    def _finds(self, path: str) -> bool:
        """Whether the routing map has a rule for this path, for any method."""
        try:
            self._url_map.bind("localhost").match(path)
        except NotFound:
            return False
        except HTTPException:
            pass
        return True

    def host_rules(self) -> Iterator[tuple[str, str]]:
        """(method, rule) of the application's routes: GET where it is allowed, else each of its methods."""
        for rule in self._url_map.iter_rules():
            if hasattr(rule, OWN) or rule.methods is None:
                continue
            methods = {"GET"} if "GET" in rule.methods else rule.methods - {"HEAD", "OPTIONS"}
            for method in sorted(methods):
                yield method, rule.rule


def _report(own: Rule, host: Rule) -> None:
    """Log that the application's route replaces ours; as a warning for metrics, the loss of the target."""
    logger.log(
        logging.WARNING if own.endpoint == "prometheus_metrics" else logging.INFO,
        "the application's route %s (endpoint %s) takes the place of the exporter's %s: if that is "
        "not meant, set EXPORTER_PATH, EXPORTER_HEALTH_PATH or EXPORTER_MONITORING_PATH to another "
        "path, or to off",
        host.rule,
        host.endpoint,
        own.endpoint,
    )


def _place(rule: Rule) -> tuple[object, ...]:
    """The conditions of a rule besides its path."""
    return rule.subdomain, rule.host, rule.websocket
