"""Exposition: all families of a source become one text, however many scrapers ask for it at once."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.metrics_core import Metric

from exporter.scrape.encoding import Format, family_text, writable
from exporter.scrape.exemplars import Observed, by_family, by_line
from exporter.scrape.protobuf import family_message, metric_messages
from exporter.scrape.sources import OnFailure, Part, Source
from exporter.scrape.turns import Turns

Headers = list[tuple[str, str]]

# gzip of 300 KB: level 1 takes under 1 ms, level 9 four.
_GZIP_LEVEL = 1


class Exposition:
    """Renders one source."""

    def __init__(
        self,
        source: Source,
        exemplars: Callable[[], Iterable[Observed]] = tuple,
        on_failure: OnFailure | None = None,
    ) -> None:
        """`exemplars` gives the newest first; `on_failure` is called with each error of a part.

        Without `on_failure` the caller gets the exception.
        """
        self._source = source
        self._observe = exemplars
        self._on_failure = on_failure
        self._turns = Turns()

    def render(
        self, accept: str | None = None, names: Iterable[str] = (), accept_encoding: str | None = None
    ) -> tuple[bytes, Headers]:
        """The body and headers for a request's Accept, `name[]` parameters and Accept-Encoding.

        Simultaneous requests for the same content share one merge, which begins after each of them arrived.

        Raises:
            OSError: the source is a worker directory that cannot be read.
        """
        form = Format.negotiate(accept)
        selection = frozenset(names)
        gzips = _accepts_gzip(accept_encoding)
        headers = [("Content-Type", form.content_type), ("Vary", "Accept, Accept-Encoding")]
        if gzips:
            headers.append(("Content-Encoding", "gzip"))

        def produce() -> bytes:
            body = b"".join((self._messages if form.protobuf else self._texts)(form, selection))
            return gzip.compress(body, _GZIP_LEVEL, mtime=0) if gzips else body

        return self._turns.share((form.content_type, selection, gzips), produce), headers

    def _texts(self, form: Format, selection: frozenset[str]) -> Iterator[bytes]:
        exemplars = self._exemplars() if form.openmetrics else {}
        for part in self._source.parts(details=False):
            try:
                yield _text(part, exemplars, form, selection).encode()
            except Exception as error:
                self._report(error)
                yield _remains(part, form, selection).encode()
        if form.openmetrics:
            yield b"# EOF\n"

    def _messages(self, form: Format, selection: frozenset[str]) -> Iterator[bytes]:
        exemplars = self._exemplars()
        for part in self._source.parts(details=True):
            try:
                yield _message(part, exemplars, form, selection)
            except Exception as error:
                self._report(error)
                yield _message_remains(part, form, selection)

    def _exemplars(self) -> Mapping[str, list[Observed]]:
        try:
            return by_family(self._observe())
        except Exception as error:
            self._report(error)
            return {}

    def _report(self, error: Exception) -> None:
        if self._on_failure is None:
            raise error
        self._on_failure(error)


def _text(
    part: Part | Metric, exemplars: Mapping[str, list[Observed]], form: Format, selection: frozenset[str]
) -> str:
    """The text of one family, or of the selected ones of its samples."""
    if isinstance(part, Metric):
        return form.text(part, selection)
    line_exemplars = {**part.exemplars, **by_line(part.family, exemplars.get(part.family.name, ()))}
    if selection:
        return form.text(part.family.metric(part.values, line_exemplars), selection)
    return family_text(part.family, part.values, line_exemplars, form)


def _remains(part: Part | Metric, form: Format, selection: frozenset[str]) -> str:
    """As `_text`, without exemplars and without the samples that cannot be written; "" if none remains."""
    try:
        metric = part if isinstance(part, Metric) else part.family.metric(part.values)
        return form.text(writable(metric, form), selection)
    except Exception:  # not even its name and help text can be written
        return ""


def _message(
    part: Part | Metric, exemplars: Mapping[str, list[Observed]], form: Format, selection: frozenset[str]
) -> bytes:
    """The message of one family, or of the selected ones of its samples."""
    if isinstance(part, Metric):
        return _metric_message(part, form, selection)
    line_exemplars = {**part.exemplars, **by_line(part.family, exemplars.get(part.family.name, ()))}
    if selection:
        return _metric_message(part.family.metric(part.values, line_exemplars), form, selection)
    return family_message(part.family, part.values, line_exemplars, part.natives, part.created, form.escaping)


def _message_remains(part: Part | Metric, form: Format, selection: frozenset[str]) -> bytes:
    """As `_remains`, for a message."""
    try:
        metric = part if isinstance(part, Metric) else part.family.metric(part.values)
        return _metric_message(writable(metric, form), form, selection)
    except Exception:  # not even its name and help text can be written
        return b""


def _metric_message(metric: Metric, form: Format, selection: frozenset[str]) -> bytes:
    part = metric._restricted_metric(selection) if selection else metric  # type: ignore[no-untyped-call]
    return b"" if part is None else b"".join(metric_messages(part, form.escaping))


def _accepts_gzip(accept_encoding: str | None) -> bool:
    for part in (accept_encoding or "").lower().split(","):
        coding, _, quality = part.partition(";")
        if coding.strip() == "gzip":
            return quality.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
