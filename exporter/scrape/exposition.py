"""Exposition: what is measured becomes one text, however many scrapers ask for it at once."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.metrics_core import Metric

from exporter.scrape.encoding import Format, encoded
from exporter.scrape.exemplars import Observed, by_family, placed
from exporter.scrape.sources import Source
from exporter.scrape.turns import Turns

Headers = list[tuple[str, str]]

# gzip of 300 KB: level 1 takes under 1 ms, level 9 four.
_GZIP_LEVEL = 1


class Exposition:
    """Renders one source."""

    def __init__(self, source: Source, observed: Callable[[], Iterable[Observed]] = tuple) -> None:
        """`observed` gives exemplars, the newest first."""
        self._source = source
        self._observed = observed
        self._turns = Turns()

    def render(
        self, accept: str | None = None, names: Iterable[str] = (), accept_encoding: str | None = None
    ) -> tuple[bytes, Headers]:
        """The body and headers for a request's Accept, `name[]` parameters and Accept-Encoding.

        Simultaneous requests for the same share one merge, which began after each of them came in.

        Raises:
            OSError: the source is a worker directory that cannot be read.
        """
        form = Format.accepted(accept)
        selection = frozenset(names)
        compressed = _accepts_gzip(accept_encoding)
        headers = [("Content-Type", form.content_type), ("Vary", "Accept, Accept-Encoding")]
        if compressed:
            headers.append(("Content-Encoding", "gzip"))

        def produce() -> bytes:
            body = "".join(self._texts(form, selection)).encode()
            return gzip.compress(body, _GZIP_LEVEL, mtime=0) if compressed else body

        return self._turns.share((form.content_type, selection, compressed), produce), headers

    def _texts(self, form: Format, selection: frozenset[str]) -> Iterator[str]:
        exemplars: Mapping[str, list[Observed]] = by_family(self._observed()) if form.openmetrics else {}
        for part in self._source.parts():
            if isinstance(part, Metric):
                metric = part
            else:
                beside = {**part.exemplars, **placed(part.family, exemplars.get(part.family.name, ()))}
                if not selection:
                    yield encoded(part.family, part.values, beside, form)
                    continue
                metric = part.family.metric(part.values, beside)
            if selection:
                metric = metric._restricted_metric(selection)  # type: ignore[no-untyped-call]
            if metric is not None:
                yield from (line + "\n" for line in form.lines(metric))
        if form.openmetrics:
            yield "# EOF\n"


def _accepts_gzip(accept_encoding: str | None) -> bool:
    for part in (accept_encoding or "").lower().split(","):
        coding, _, quality = part.partition(";")
        if coding.strip() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
