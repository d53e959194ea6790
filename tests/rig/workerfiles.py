"""Worker files of other processes, written without those processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector

from exporter.store.directory import WorkerDirectory
from exporter.store.workerfile import WorkerFile

# Higher than any process id of Linux, so that no process has it.
NOBODY = 5_000_000

Samples = Mapping[str, float]


def key(family: str, suffix: str, documentation: str = "help", **labels: str) -> str:
    """The key of a sample in a worker file."""
    return mmap_key(family, family + suffix, list(labels), list(labels.values()), documentation)


def total(family: str = "hits", **labels: str) -> str:
    """The key of a counter."""
    return key(family, "_total", **labels)


def histogram(family: str, counts: Mapping[str, float], total: float, **labels: str) -> dict[str, float]:
    """The samples of one histogram child: counts by upper bound, not accumulated, and the sum."""
    buckets = {key(family, "_bucket", le=le, **labels): count for le, count in counts.items()}
    return {key(family, "_sum", **labels): total, **buckets}


def living(directory: Path, stem: str, pid: int, samples: Samples, timestamp: float = 0.0) -> WorkerFile:
    """The file of a process that lives for as long as the file is open."""
    file = WorkerFile(str(directory / f"{stem}_{pid}.{'buckets' if stem == 'native' else 'db'}"))
    for name, value in samples.items():
        file.write_value(name, value, timestamp)
    return file


def dead(directory: Path, stem: str, pid: int, samples: Samples, timestamp: float = 0.0) -> Path:
    """The file of a process that has ended."""
    file = living(directory, stem, pid, samples, timestamp)
    file.close()
    return Path(file._fname)


def plain(directory: Path, stem: str, pid: int, samples: Samples, timestamp: float = 0.0) -> Any:
    """The file of a process that uses prometheus_client without the exporter."""
    file: Any = MmapedDict(str(directory / f"{stem}_{pid}.db"))  # type: ignore[no-untyped-call]
    for name, value in samples.items():
        file.write_value(name, value, timestamp)
    return file


class _Metrics:
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


def lines(directory: WorkerDirectory) -> list[str]:
    """The lines of a scrape, sorted."""
    metrics = [family.metric(values) for family, values in directory.merge()]
    return sorted(generate_latest(_Metrics(metrics)).decode().splitlines())


def samples(directory: WorkerDirectory) -> dict[str, float]:
    """The samples of a scrape by their text: `hits_total{path="/"}`."""
    pairs = (line.rsplit(" ", 1) for line in lines(directory) if not line.startswith("#"))
    return {name: float(value) for name, value in pairs}


def their_lines(directory: Path) -> list[str]:
    """The lines of prometheus_client's own collector, sorted."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
    return sorted(generate_latest(registry).decode().splitlines())
