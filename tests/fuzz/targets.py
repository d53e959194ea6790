"""What the exporter does with bytes that somebody else wrote: each target takes any, and never raises."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from ipaddress import ip_network

from exporter.addresses import client_address
from exporter.log.masking import Mask
from exporter.measure.recorder import announced_size
from exporter.measure.requestid import well_formed
from exporter.measure.tracing import announced
from exporter.merge.format import CorruptFileError
from exporter.merge.merge import Merge
from exporter.pages import errors
from exporter.pages.answers import arguments_of, as_json
from exporter.pages.figures import Totals, slow_element, stats
from exporter.pages.filter import Filter
from exporter.scrape.encoding import Format, family_text
from exporter.settings import DEFAULT_MASK, PREFIX, Settings, SettingsError
from exporter.store import archive, workerfile
from exporter.worker import errorslots, inflight, requests, slots, slowest

STEMS = ("counter", "histogram", "summary", "gauge_all", "gauge_livesum", "gauge_mostrecent", "gauge_min")
_PROXIES = (ip_network("127.0.0.0/8"),)
_FORMATS = (Format.negotiate(""), Format.negotiate("application/openmetrics-text; version=1.0.0"))


@cache
def _file() -> int:
    return os.memfd_create("fuzzed")


def worker_file(data: bytes) -> None:
    """A worker file of the kind that the first byte says, through the merge to the text of a scrape."""
    descriptor, stem = _file(), STEMS[data[0] % len(STEMS)] if data else STEMS[0]
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, data[1:], 0)
    merge = Merge()
    with suppress(CorruptFileError):
        content = workerfile.read(descriptor)
        merged = merge([merge.content(stem, "1", True, os.fstat(descriptor), content)])
        _shown(merged)
        total = archive.Archive()
        layout = merge.content(stem, "1", False, os.fstat(descriptor), content)
        total.fold(stem, layout.layout.keys(), layout.pairs())
        loaded = archive.load(total.dump())
        _shown(merge(merge.archive_contents(loaded.series, loaded.created)))


def the_archive(data: bytes) -> None:
    """An archive."""
    merge = Merge()
    with suppress(CorruptFileError):
        loaded = archive.load(data)
        _shown(merge(merge.archive_contents(loaded.series, loaded.created)))


def _shown(merged: object) -> None:
    for family, values in merged:  # type: ignore[attr-defined]
        for form in _FORMATS:
            family_text(family, values, {}, form).encode()


def slots_file(data: bytes) -> None:
    """A file of slots, read and taken over."""
    with suppress(ValueError, struct.error):
        for name, _ in slots._walk(slots._entries(data)):
            name.encode(errors="surrogatepass")
    for _ in slots._walk(slots._recent(data)):
        pass


def flight_recorder(data: bytes) -> None:
    """A ring of requests, up to the figures that are made of it."""
    header = requests.Header.of(data)
    if header is None or header.records > 1000:
        return
    content = requests.Content.of(data[: header.length].ljust(header.length, b"\0"))
    assert content is not None
    stats(Totals(), list(requests.history(content, content)), 1.0, 1)
    for request in requests.in_flight(content):
        json.dumps(asdict(request))
    inflight.count(0, header, data[requests.HEADER : header.first], lambda at, size: data[at : at + size])


def errors_file(data: bytes) -> None:
    """A file of error groups, with or without its header, up to the page that shows them."""
    content = data if data.startswith(errorslots.START) else errorslots.START + data
    groups = [group for _, group in errorslots.unpack(content.ljust(errorslots.SIZE, b"\0"))]
    as_json(errors.body(map(errorslots.merge, zip(groups, reversed(groups), strict=True)), None))
    for group in groups:
        assert len(errorslots.pack(group)) == errorslots.SLOT
        as_json(errors.body(groups, group.fingerprint.error_group))


def slow_requests(data: bytes) -> None:
    """A ring of slow requests, up to what is shown of them."""
    for _, request in slowest._requests(data):
        json.dumps(slow_element(request))


def _text(data: bytes) -> str:
    """As a server hands a header over."""
    return data.decode("latin-1")


def forwarding_headers(data: bytes) -> None:
    """Every header in which a proxy names the client; the lines of the input are their values."""
    names = ("FORWARDED", "X_FORWARDED_FOR", "X_REAL_IP", "CF_CONNECTING_IP", "VIA")
    values = dict(zip((f"HTTP_{name}" for name in names), _text(data).split("\n"), strict=False))
    client_address({"REMOTE_ADDR": "127.0.0.1", **values}, _PROXIES)


def request_headers(data: bytes) -> None:
    """`traceparent`, X-Request-ID, Content-Length and Accept."""
    text = _text(data)
    assert len(announced({"HTTP_TRACEPARENT": text})) in (0, 32)
    well_formed(text)
    assert 0 <= announced_size(text) <= 1 << 40
    Format.negotiate(text)


_MASK = Mask(DEFAULT_MASK)


def query(data: bytes) -> None:
    """A query string, as it is asked and as it is logged."""
    environ = {"QUERY_STRING": _text(data)}
    with suppress(ValueError):
        Filter.of(arguments_of(environ))
    assert "hunter2" not in _MASK.query(f"password=hunter2&{environ['QUERY_STRING']}")
    _MASK.text(environ["QUERY_STRING"])


def settings(data: bytes) -> None:
    """Variables of the environment: `NAME=value` in each line."""
    pairs = (line.partition("=") for line in data.decode("utf-8", "surrogateescape").split("\n"))
    with suppress(SettingsError):
        Settings.load({PREFIX + name: value for name, _, value in pairs})


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (
        worker_file,
        the_archive,
        slots_file,
        flight_recorder,
        errors_file,
        slow_requests,
        forwarding_headers,
        request_headers,
        query,
        settings,
    )
}
