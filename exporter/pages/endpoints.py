"""The exporter's own endpoints on an application: no traffic, and they yield to the host's routes."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import Map, Rule

from exporter.measure.grouping import OWN
from exporter.worker.failures import logger


class OwnEndpoints:
    """Knows which rules of a routing map are the exporter's."""

    def __init__(self, url_map: Map) -> None:
        self._url_map = url_map
        self._complete = False
        self.paths: set[str] = set()
        """Paths that are the exporter's alone; of shared ones, and of other spellings, the rule tells."""

    @contextmanager
    def registration(self) -> Iterator[None]:
        """What is added to the routing map inside this context is the exporter's."""
        before = set(map(id, self._url_map.iter_rules()))
        yield
        for rule in self._url_map.iter_rules():
            if id(rule) not in before:
                setattr(rule, OWN, True)
                self.paths.add(rule.rule)

    def yield_to_host(self) -> None:
        """Leave to the application each request that a route of its own on one of our paths can answer.

        Called when the routes are complete, at the first request: of two rules for the same requests Werkzeug
        would serve the first, which is ours. A catch-all has another path. Later calls do nothing.
        """
        if self._complete:
            return
        self._complete = True
        if not self._finds("/favicon.ico"):  # a browser that shows one of our pages asks for it
            self.paths.add("/favicon.ico")
        ours: list[Rule] = []
        hosts: list[Rule] = []
        for rule in self._url_map.iter_rules():
            (ours if hasattr(rule, OWN) else hosts).append(rule)
        for host in hosts:
            for own in ours:
                if host.rule != own.rule or host.build_only:
                    continue
                self.paths.discard(own.rule)
                if _place(host) == _place(own) and own.methods is not None:
                    before = own.methods
                    # Without methods it matches nothing any more, and the next rule is tried.
                    own.methods = set() if host.methods is None else before - host.methods
                    if "GET" in before - own.methods:
                        _tell(own, host)

    def _finds(self, path: str) -> bool:
        """Whether a route of the application answers this path, in whatever way."""
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


def _tell(own: Rule, host: Rule) -> None:
    """Say that a route of the application takes the place of ours: without metrics a target is down."""
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
    """Where a rule is looked for, beside its path."""
    return rule.subdomain, rule.host, rule.websocket
