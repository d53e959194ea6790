"""Routes: the rules of the applications, for requests that have not been routed."""

from __future__ import annotations

from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map

from exporter.labels import UNMATCHED


class Routes:
    """The routing maps of the applications that one exporter measures."""

    def __init__(self) -> None:
        self._maps: list[Map] = []

    def add(self, url_map: Map) -> None:
        """Add the rules of an application."""
        self._maps.append(url_map)

    def rule(self, method: str, path: str) -> str:
        """The rule of a path without its script name, on any host; `_unmatched` for none."""
        for url_map in self._maps:
            hosts = {rule.host if url_map.host_matching else rule.subdomain for rule in url_map.iter_rules()}
            for host in sorted((host or "" for host in hosts if "<" not in (host or "")), key=len):
                rule = _rule(url_map, host, method, path)
                if rule is not None:
                    return rule
        return UNMATCHED


def _rule(url_map: Map, host: str, method: str, path: str) -> str | None:
    adapter = (
        url_map.bind(host or "localhost")
        if url_map.host_matching
        else url_map.bind("localhost", subdomain=host)
    )
    for websocket in (False, True):
        try:
            rule, _ = adapter.match(path, method, return_rule=True, websocket=websocket)
        except HTTPException:
            continue
        except Exception:  # a converter of the application's own
            return None
        return str(rule.rule)
    return None
