"""Sources: which families are found by the names of their samples."""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Summary

from exporter.scrape.sources import DirectorySource, RegistrySource
from exporter.store.directory import WorkerDirectory
from tests.rig.workerfiles import NOBODY, dead, key, total


def test_families_are_found_by_the_name_of_a_sample(tmp_path: Path) -> None:
    """In one process and in several."""
    registry = CollectorRegistry()
    for name in ("hits", "misses"):
        Counter(name, "help", registry=registry).inc()
    Summary("size", "help", registry=registry)
    dead(tmp_path, "counter", NOBODY, {total("hits"): 1.0, total("misses"): 1.0})
    dead(tmp_path, "summary", NOBODY, {key("size", "_count"): 0.0, key("size", "_sum"): 0.0})

    for source in (RegistrySource(registry), DirectorySource(WorkerDirectory(tmp_path), [])):
        found = source.metrics(["misses_total", "size_sum", "hits"])
        assert sorted(family.name for family in found) == ["misses", "size"]
