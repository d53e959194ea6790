"""Samples → text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector


class Exposition:
    """Renders what a scrape asks for."""

    def __init__(self, registry: CollectorRegistry, directory: str | None, live: Sequence[Collector]) -> None:
        self._registry = registry
        self._directory = directory
        self._live = live

    def render(
        self, accept: str | None, names: Sequence[str], accept_encoding: str | None
    ) -> tuple[bytes, list[tuple[str, str]]]:
        """The body and the headers of an answer to a scrape."""
        registry: Any = self._registry
        if self._directory is not None:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, self._directory)
            for collector in self._live:
                registry.register(collector)
        encode, content_type = choose_encoder(accept)
        return encode(registry.restricted_registry(names) if names else registry), [
            ("Content-Type", content_type)
        ]
