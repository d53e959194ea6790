"""Exposition: what is measured becomes one text, however many scrapers ask for it at once."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from exporter.merge.families import Family
from exporter.scrape.encoding import Format, encoded
from exporter.scrape.exemplars import Observed, by_family, placed
from exporter.scrape.registered import Registered, UnreadableError
from exporter.store.directory import WorkerDirectory

Headers = list[tuple[str, str]]

# gzip of 300 KB: level 1 takes under 1 ms, level 9 four.
_GZIP_LEVEL = 1


@dataclass(slots=True)
class _Part:
    """A family with the value of each line, and exemplars by line."""

    family: Family
    values: Sequence[float]
    exemplars: dict[int, Exemplar] = field(default_factory=dict)


class Exposition:
    """Renders one registry; or one worker directory, with the collectors that are computed at a scrape."""

    def __init__(
        self,
        registry: CollectorRegistry,
        directory: str | None = None,
        live: Sequence[Collector] = (),
        *,
        observed: Callable[[], Iterable[Observed]] = tuple,
        failed: Callable[[str, BaseException], None] | None = None,
        max_series: int = 1000,
    ) -> None:
        """With a `directory` the values are those of all worker files in it and of the `live` collectors.

        `observed` gives exemplars, the newest first. `failed` is told the stage and the error of a fold that
        found no space, and of a collector that raises, whose samples are then missing; without it the
        collector's exception is the caller's.
        `max_series` is the most label sets of a family of requests in the archive of the dead.
        """
        self.directory = (
            None
            if directory is None
            else WorkerDirectory(directory, max_series, failed and partial(failed, "fold"))
        )
        self._registry = registry
        self._registered: dict[Collector, Registered] = {}
        self._live = live
        self._observed = observed
        self._failed = failed
        self._turns = _Turns()

    def render(
        self, accept: str | None = None, names: Iterable[str] = (), accept_encoding: str | None = None
    ) -> tuple[bytes, Headers]:
        """The body and headers for a request's Accept, `name[]` parameters and Accept-Encoding.

        Simultaneous requests for the same share one merge, which began after each of them came in.

        Raises:
            OSError: the worker directory cannot be read.
        """
        form = Format.accepted(accept)
        wanted = frozenset(names)
        compressed = _accepts_gzip(accept_encoding)
        headers = [("Content-Type", form.content_type), ("Vary", "Accept, Accept-Encoding")]
        if compressed:
            headers.append(("Content-Encoding", "gzip"))

        def produce() -> bytes:
            body = "".join(self._texts(form, wanted)).encode()
            return gzip.compress(body, _GZIP_LEVEL, mtime=0) if compressed else body

        return self._turns.share((form.content_type, wanted, compressed), produce), headers

    def worker_files(self) -> dict[str, int]:
        """How many worker files are live, archive and corrupt; none in single-process mode."""
        return {} if self.directory is None else self.directory.counts()

    def _texts(self, form: Format, wanted: frozenset[str]) -> Iterator[str]:
        exemplars: Mapping[str, list[Observed]] = by_family(self._observed()) if form.openmetrics else {}
        for part in self._parts():
            if isinstance(part, Metric):
                metric = part
            else:
                beside = part.exemplars | placed(part.family, exemplars.get(part.family.name, ()))
                if not wanted:
                    yield encoded(part.family, part.values, beside, form)
                    continue
                metric = part.family.metric(part.values, beside)
            if wanted:
                metric = metric._restricted_metric(wanted)  # type: ignore[no-untyped-call]
            if metric is not None:
                yield from (line + "\n" for line in form.lines(metric))
        if form.openmetrics:
            yield "# EOF\n"

    def _parts(self) -> Iterator[_Part | Metric]:
        if self.directory is not None:
            for family, values in self.directory.merge():
                yield _Part(family, values)
            for collector in self._live:
                yield from self._collected(collector.collect)
            return
        registry = self._registry
        with registry._lock:
            collectors = list(registry._collector_to_names)
            target = registry._target_info_metric() if registry._target_info else None  # type: ignore[no-untyped-call]
        if target is not None:
            yield target
        known = self._registered
        self._registered = {one: known.get(one) or Registered(one) for one in collectors}
        for collector, registered in self._registered.items():
            yield from self._collected(partial(_read, registered, collector))

    def _collected(self, collect: Callable[[], Iterable[_Part | Metric]]) -> list[_Part | Metric]:
        try:
            return list(collect())
        except Exception as error:
            if self._failed is None:
                raise
            self._failed("scrape", error)
            return []


def _read(registered: Registered, collector: Collector) -> Iterable[_Part | Metric]:
    try:
        family, values, exemplars = registered.read()
    except UnreadableError:
        return collector.collect()
    return [_Part(family, values, dict(exemplars))]


class _Turns:
    """One at a time produces what all who were waiting when it began then share."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._begun = 0
        self._last: tuple[Hashable, int, bytes] = None, 0, b""

    def share(self, key: Hashable, produce: Callable[[], bytes]) -> bytes:
        """What `produce` gives for this key, if need be to another caller that began after this call."""
        arrived = self._begun
        with self._turn:
            last, number, body = self._last
            if last == key and number > arrived:
                return body
            self._begun += 1
            number = self._begun
            body = produce()
            self._last = key, number, body
            return body


def _accepts_gzip(accept_encoding: str | None) -> bool:
    for part in (accept_encoding or "").lower().split(","):
        coding, _, quality = part.partition(";")
        if coding.strip() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
