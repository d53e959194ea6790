"""Protobuf: what the text of a scrape says, as messages of the client model, and what only they say."""

from __future__ import annotations

import gzip
import math
import os
import random
import time
from bisect import bisect_left
from collections import Counter as Count
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeHistogramMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.samples import Exemplar

from exporter.buckets import BOUNDS, LAST, ZERO, ZERO_THRESHOLD
from exporter.scrape.encoding import Format
from exporter.scrape.exemplars import Observed
from exporter.scrape.exposition import Exposition
from exporter.scrape.sources import DirectorySource, RegistrySource
from exporter.scrape.wire import varint, zigzag
from exporter.store.directory import WorkerDirectory
from tests.rig.clientmodel import families, labels_of, native_buckets
from tests.rig.exchanges import exchange
from tests.rig.workerfiles import NOBODY, dead, histogram, key, living, total
from tests.rig.wsgi import application, call

of_today = pytest.mark.skipif(
    Version(version("prometheus-client")) < Version("0.23"),
    reason="the test asks prometheus_client for what came with 0.23",
)

PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
PROMETHEUS = f"{PROTOBUF};q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2,*/*;q=0.1"


def exposed(registry: CollectorRegistry) -> dict[str, object]:
    body, headers = Exposition(RegistrySource(registry)).render(PROTOBUF)
    assert dict(headers)["Content-Type"].startswith("application/vnd.google.protobuf; proto=io.prometheus")
    return {family.name: family for family in families(body)}


def test_every_type_of_prometheus_client_has_its_message() -> None:
    registry = CollectorRegistry()
    Counter("hits", "Hits", ["path"], registry=registry).labels('/"ü\n').inc(3)
    Gauge("level", "Level", registry=registry).set(-1.5)
    size = Summary("size", "Size", ["a"], registry=registry)
    size.labels("b").observe(7)
    took = Histogram("took", "Took", buckets=(0.5, 1), registry=registry)
    for seconds in (0.25, 0.75, 5.0):
        took.observe(seconds)
    Info("build", "Build", registry=registry).info({"version": "1"})
    Enum("state", "State", states=["on", "off"], registry=registry)

    got = exposed(registry)

    hits = got["hits_total"].metric[0]  # type: ignore[attr-defined]
    assert got["hits_total"].help == "Hits"  # type: ignore[attr-defined]
    assert (labels_of(hits), hits.counter.value) == ({"path": '/"ü\n'}, 3.0)
    assert abs(hits.counter.created_timestamp.seconds - time.time()) < 60
    assert got["level"].metric[0].gauge.value == -1.5  # type: ignore[attr-defined]
    summary = got["size"].metric[0].summary  # type: ignore[attr-defined]
    assert (summary.sample_count, summary.sample_sum) == (1, 7.0)
    classic = got["took"].metric[0].histogram  # type: ignore[attr-defined]
    assert (classic.sample_count, classic.sample_sum) == (3, 6.0)
    assert [(bucket.upper_bound, bucket.cumulative_count) for bucket in classic.bucket] == [
        (0.5, 1),
        (1.0, 2),
        (math.inf, 3),
    ]
    assert not classic.HasField("zero_threshold")
    assert labels_of(got["build_info"].metric[0]) == {"version": "1"}  # type: ignore[attr-defined]
    states = {labels_of(metric)["state"]: metric.gauge.value for metric in got["state"].metric}  # type: ignore[attr-defined]
    assert states == {"on": 1.0, "off": 0.0}
    assert [family.type for family in got.values()] == [0, 1, 2, 4, 1, 1]  # type: ignore[attr-defined]


@of_today
def test_a_users_own_collector_is_told_too() -> None:
    class Own:
        def collect(self) -> list[object]:
            counter = CounterMetricFamily("own", "Own", labels=["a"])
            counter.add_metric(["b"], 3, created=1.5e9, exemplar=Exemplar({"id": "x"}, 1.0, 1.6e9 + 0.9))
            counter.add_metric(["c"], 4, exemplar=Exemplar({"id": "y"}, 2.0))
            created_first = Metric("late", "Late", "counter")
            created_first.add_sample("late_created", {}, 1.5e9)
            created_first.add_sample("late_total", {}, 5.0, None, Exemplar({"id": "z"}, 5.0))
            summary = SummaryMetricFamily("size", "Size", count_value=4, sum_value=9.5)
            summary.add_sample("size", {"quantile": "0.5"}, 2.0)
            summary.add_sample("size_created", {}, 1.5e9)
            raw = Metric("raw_bytes", "R", "unknown", "bytes")
            raw.add_sample("raw_bytes", {}, 7.0)
            empty = Metric("empty", "E", "histogram")
            empty.add_sample("empty_sum", {}, 2.5)
            return [
                counter,
                created_first,
                summary,
                GaugeHistogramMetricFamily("gh", "G", buckets=[("1", 2), ("+Inf", 3)], gsum_value=5),
                HistogramMetricFamily("sumless", "H", buckets=[("1", 2), ("+Inf", 4)]),
                empty,
                raw,
            ]

    registry = CollectorRegistry()
    registry.register(Own())  # type: ignore[arg-type]
    got = exposed(registry)

    counter = got["own_total"].metric[0].counter  # type: ignore[attr-defined]
    assert (counter.value, counter.created_timestamp.seconds) == (3.0, 1_500_000_000)
    assert (counter.exemplar.label[0].value, counter.exemplar.timestamp.seconds) == ("x", 1_600_000_000)
    assert counter.exemplar.timestamp.nanos == 900_000_095  # as exactly as a double has it
    timeless = got["own_total"].metric[1].counter  # type: ignore[attr-defined]
    assert (timeless.exemplar.value, timeless.exemplar.HasField("timestamp")) == (2.0, False)
    late = got["late_total"].metric[0].counter  # type: ignore[attr-defined]
    assert (late.value, late.created_timestamp.seconds, late.exemplar.value) == (5.0, 1_500_000_000, 5.0)
    assert got["gh"].type == 5  # type: ignore[attr-defined]
    histograms = [got[name].metric[0].histogram for name in ("gh", "sumless", "empty")]  # type: ignore[attr-defined]
    assert [(one.sample_count, one.sample_sum) for one in histograms] == [(3, 5.0), (4, 0.0), (0, 2.5)]
    assert not any(one.HasField("created_timestamp") for one in histograms)
    summary = got["size"].metric[0].summary  # type: ignore[attr-defined]
    assert (summary.sample_count, summary.sample_sum) == (4, 9.5)
    assert [(one.quantile, one.value) for one in summary.quantile] == [(0.5, 2.0)]
    assert summary.created_timestamp.seconds == 1_500_000_000
    raw: Any = got["raw_bytes"]
    assert (raw.unit, raw.metric[0].untyped.value) == ("bytes", 7.0)


@pytest.mark.parametrize("names", [(), ("depth", "hits_total")])
@pytest.mark.parametrize(
    "bad", [({"queue": None}, 1.0), ({"queue": "\ud800"}, 1.0), ({"queue": "slow"}, None)]
)
def test_a_series_that_cannot_be_written_costs_itself(bad: tuple[Any, Any], names: tuple[str, ...]) -> None:
    """Of a collector's family, and of a plain metric."""

    class Own:
        def collect(self) -> list[Metric]:
            depth = Metric("depth", "Depth", "gauge")
            for labels, value in ({"queue": "mail"}, 3.0), bad, ({"queue": "sms"}, 4.0):
                depth.add_sample("depth", labels, value)
            return [depth]

    registry = CollectorRegistry()
    hits = Counter("hits", "Hits", ["shop"], registry=registry)
    for shop in ("north", "\ud800", "south"):
        hits.labels(shop).inc(2)
    registry.register(Own())
    errors: list[BaseException] = []
    body, _ = Exposition(RegistrySource(registry), on_failure=errors.append).render(PROTOBUF, names)
    told = {family.name: [labels_of(metric) for metric in family.metric] for family in families(body)}

    assert told == {
        "hits_total": [{"shop": "north"}, {"shop": "south"}],
        "depth": [{"queue": "mail"}, {"queue": "sms"}],
    }
    assert len(errors) == 2


@pytest.mark.parametrize(
    ("accept", "protobuf"),
    [
        (PROTOBUF, True),
        (PROMETHEUS, True),
        (PROMETHEUS.replace("q=0.6", "q=0.4"), False),
        (f"text/plain;q=0.2,{PROTOBUF};q=0.2", False),  # alike: the first
        (f"{PROTOBUF};q=0", False),
        ("application/vnd.google.protobuf", False),
        (PROTOBUF.replace("delimited", "text"), False),
        (PROTOBUF.replace("delimited", '"delimited"'), True),
        (PROTOBUF.upper().replace("PROTO=IO.PROMETHEUS.CLIENT.METRICFAMILY;ENCODING=DELIMITED", "x"), False),
        (f"{PROTOBUF};q=many", False),
        ("", False),
        (None, False),
        (",;,=", False),
    ],
)
def test_it_is_given_to_those_who_prefer_it(accept: str | None, protobuf: bool) -> None:
    assert Format.negotiate(accept).protobuf is protobuf


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("text/plain;q=0.1,application/openmetrics-text", True),
        ("application/openmetrics-text;q=0.1,text/plain;q=0.9", False),
        ("application/openmetrics-text;q=0.1,*/*", False),
        ("application/openmetrics-text;q=0,text/plain", False),
        ("application/openmetrics-text;q=nan", False),
        (f"{PROTOBUF};q=0,application/openmetrics-text;q=0.5", True),
        ("application/openmetrics-text,text/plain", True),
    ],
)
def test_of_the_texts_the_preferred_one_is_given(accept: str, openmetrics: bool) -> None:
    assert Format.negotiate(accept).openmetrics is openmetrics


@of_today
@pytest.mark.parametrize(
    ("escaping", "name", "label"),
    [
        ("", "dotted_name", "a_b"),
        (";escaping=allow-utf-8", "dotted.name", "a.b"),
        (";escaping=values", "U__dotted_2e_name", "U__a_2e_b"),
        (";escaping=unheard-of", "dotted_name", "a_b"),
    ],
)
def test_names_are_escaped_as_asked(escaping: str, name: str, label: str) -> None:
    registry = CollectorRegistry()
    Gauge("dotted.name", "d", ["a.b"], registry=registry).labels("1").set(1)
    body, _ = Exposition(RegistrySource(registry)).render(PROTOBUF + escaping)
    (family,) = families(body)

    assert (family.name, labels_of(family.metric[0])) == (name, {label: "1"})


def test_names_select_and_gzip_compresses() -> None:
    registry = CollectorRegistry()
    Counter("hits", "h", registry=registry).inc()
    Gauge("level", "l", registry=registry)
    body, headers = Exposition(RegistrySource(registry)).render(PROTOBUF, ["level"], "gzip")

    assert ("Content-Encoding", "gzip") in headers
    assert [family.name for family in families(gzip.decompress(body))] == ["level"]


def test_the_numbers_of_the_wire_format() -> None:
    """The examples of protobuf's own documentation, both ends of 64 bits, and where a byte more begins."""
    assert (varint(0), varint(150), varint(2**64 - 1)) == (b"\0", b"\x96\x01", b"\xff" * 9 + b"\x01")
    for length in range(1, 10):
        assert varint(2 ** (7 * length) - 1) == b"\xff" * (length - 1) + b"\x7f"
        assert varint(2 ** (7 * length)) == b"\x80" * length + b"\x01"
    assert [zigzag(number) for number in (0, -1, 1, -2, 2)] == [b"\0", b"\x01", b"\x02", b"\x03", b"\x04"]
    assert zigzag(-(2**31)) == varint(2**32 - 1)


# Native histograms


def test_bounds_are_those_of_schema_3() -> None:
    assert [ZERO_THRESHOLD, BOUNDS[0], BOUNDS[8], BOUNDS[-1]] == [2.0**-17, 2.0**-17, 2.0**-16, 256.0]
    assert len(BOUNDS) == 201
    for position, bound in enumerate(BOUNDS):
        assert bound == pytest.approx(2 ** ((position + ZERO) / 8), rel=1e-15)
        assert bisect_left(BOUNDS, bound) == position  # a bucket contains its upper bound
        assert bisect_left(BOUNDS, math.nextafter(bound, math.inf)) == position + 1


def test_a_request_is_in_one_native_and_one_classic_bucket() -> None:
    """Over the range and beyond both ends."""
    app, exporter = application()
    chance = random.Random(7)
    seconds = [
        0.0,
        1e-9,
        ZERO_THRESHOLD,
        256.0,
        256.1,
        1e6,
        *(10 ** chance.uniform(-5, 2) for _ in range(500)),
    ]
    instruments = exporter.core.worker.instruments["flask_"]
    instruments.begin()
    recorder = instruments.recorder(("GET", "/orders/<int:number>", "200"), own=True)
    for duration in seconds:
        recorder(exchange(duration=duration), 1000.0)
    body = call(app, "/metrics", variables={"HTTP_ACCEPT": PROTOBUF}).body
    (family,) = (family for family in families(body) if family.name == "flask_http_request_duration_seconds")
    (metric,) = (metric for metric in family.metric if metric.histogram.sample_count)
    got = metric.histogram

    expected = Count(min(max(math.ceil(math.log2(max(s, 1e-30)) * 8), ZERO), LAST) for s in seconds)
    assert (got.schema, got.zero_threshold, got.zero_count) == (3, ZERO_THRESHOLD, expected.pop(ZERO))
    assert native_buckets(got) == expected
    assert got.sample_count == len(seconds) == got.bucket[-1].cumulative_count


def test_a_histogram_without_observations_is_native_from_the_start() -> None:
    """So that the first burst is an increase."""
    app, _ = application()
    body = call(app, "/metrics", variables={"HTTP_ACCEPT": PROTOBUF}).body
    (family,) = (family for family in families(body) if family.name == "flask_http_request_duration_seconds")

    assert {metric.histogram.zero_threshold for metric in family.metric} == {ZERO_THRESHOLD}
    assert {metric.histogram.sample_count for metric in family.metric} == {0}


@pytest.mark.parametrize("native", [True, False])
def test_a_native_histogram_tells_its_start_while_it_is_young(native: bool) -> None:
    """Prometheus 3.5 ends itself over an older start, or over one at the time of an earlier scrape.

    The message that is kept for a histogram at rest is no exception.
    """
    registry = CollectorRegistry()
    took: Any = Histogram("took", "Took", registry=registry)
    counts: dict[Any, dict[int, float]] = {(): {}}
    exposition = Exposition(RegistrySource(registry, natives=lambda _: counts if native else {}))

    def start() -> float:
        (family,) = families(exposition.render(PROTOBUF)[0])
        told = family.metric[0].histogram.created_timestamp
        return float(told.seconds + told.nanos / 1e9)

    began = took._created = time.time()
    assert start() == pytest.approx(began - native, abs=1e-5)
    began = took._created = time.time() - 3600
    assert start() == (0.0 if native else pytest.approx(began, abs=1e-5))
    began = took._created = time.time() - 115
    assert start() == pytest.approx(began - native, abs=1e-5)
    with pytest.MonkeyPatch.context() as later:
        later.setattr("exporter.scrape.histogram.time", lambda: began + 121)
        assert start() == (0.0 if native else pytest.approx(began, abs=1e-5))


def test_native_histograms_can_be_turned_off() -> None:
    app, _ = application(native_histograms=False)
    call(app, "/orders/7")
    body = call(app, "/metrics", variables={"HTTP_ACCEPT": PROTOBUF}).body
    (family,) = (family for family in families(body) if family.name == "flask_http_request_duration_seconds")

    assert not any(metric.histogram.HasField("schema") for metric in family.metric)
    assert sum(metric.histogram.sample_count for metric in family.metric) == 1


def buckets(family: str, counts: dict[int, float], **labels: str) -> dict[str, float]:
    """The samples of native buckets in a worker file."""
    return {key(family, f":{index}", **labels): count for index, count in counts.items()}


@pytest.mark.parametrize(
    "counts",
    [
        [
            {3: 2.0},
            {3: 2.0, 1: 5000.0},
            {3: 70000.0, 1: 5000.0, ZERO: 9.0},
        ],  # grows, with a new bucket before
        [{1: 90000.0, 2: 1.0}, {1: 90000.0, 2: 90000.0, 9: 1.0}],  # steps up and down by more than is kept
        [{ZERO: 4.0}, {ZERO: 4.0, LAST: 1.0}],
    ],
)
def test_each_scrape_says_what_is_so_then(tmp_path: Path, counts: list[dict[int, float]]) -> None:
    """What a message has in common with the last one is kept, and what is new is not."""
    exposition = Exposition(DirectorySource(WorkerDirectory(tmp_path), []))
    total = 0.0
    files = [living(tmp_path, "histogram", NOBODY, {}), living(tmp_path, "native", NOBODY, {})]
    for now in counts:
        total = sum(now.values())
        for file, samples in zip(
            files,
            (histogram("took", {"0.5": total - 1, "+Inf": 1.0}, 1.5), buckets("took", now)),
            strict=True,
        ):
            for name, number in samples.items():
                file.write_value(name, number, 0.0)
        (family,) = families(exposition.render(PROTOBUF)[0])
        got = family.metric[0].histogram

        assert native_buckets(got) == {i: int(n) for i, n in sorted(now.items()) if i != ZERO}
        assert [bucket.cumulative_count for bucket in got.bucket] == [total - 1, total]
        assert (got.zero_count, got.sample_count) == (now.get(ZERO, 0.0), total)
    for file in files:
        file.close()


def test_workers_add_up_exactly(tmp_path: Path) -> None:
    """The living and the dead, also when they are in the archive; a time of creation is that of the first."""
    directory = WorkerDirectory(tmp_path)
    exposition = Exposition(DirectorySource(directory, []))
    expected: Count[int] = Count()
    chance = random.Random(3)
    files: list[Any] = []
    for worker in range(4):
        counts = {chance.randrange(ZERO, LAST + 1): float(chance.randrange(1, 300)) for _ in range(20)}
        expected.update({index: int(count) for index, count in counts.items()})
        classic = histogram("took", {"0.5": sum(counts.values()), "+Inf": 0.0}, 1.5, path="/")
        write = living if worker < 2 else dead
        for stem, samples in (("histogram", classic), ("native", buckets("took", counts, path="/"))):
            files.append(write(tmp_path, stem, NOBODY + worker, samples))
    began = time.time()
    for _ in range(2):  # file by file, and from the archive
        (family,) = families(exposition.render(PROTOBUF)[0])
        got = family.metric[0].histogram
        zero = expected[ZERO]
        assert (got.zero_count, native_buckets(got)) == (
            zero,
            {index: count for index, count in sorted(expected.items()) if index != ZERO},
        )
        assert got.sample_count == sum(expected.values()) == got.bucket[-1].cumulative_count
        assert labels_of(family.metric[0]) == {"path": "/"}
        assert abs(got.created_timestamp.seconds - began) < 60
    for file in files[:4]:
        file.close()
    assert (tmp_path / "archive.json").exists()
    assert b"took_bucket" in exposition.render()[0]
    assert b":-" not in exposition.render()[0]


@pytest.mark.parametrize("count", [4.0, 8.0])
def test_where_native_counts_are_missing_the_classic_form_stands_alone(tmp_path: Path, count: float) -> None:
    """The disk was full for them, or a worker of another version counts classically only."""
    dead(tmp_path, "histogram", NOBODY, histogram("took", {"0.5": 9.0, "+Inf": 0.0}, 1.5))
    dead(tmp_path, "native", NOBODY, buckets("took", {3: count}))
    (family,) = families(Exposition(DirectorySource(WorkerDirectory(tmp_path), [])).render(PROTOBUF)[0])

    assert family.metric[0].histogram.sample_count == 9
    assert not family.metric[0].histogram.HasField("schema")


def test_each_label_set_has_its_own_native_buckets(tmp_path: Path) -> None:
    """One whose worker died before its first bucket has none."""
    dead(tmp_path, "histogram", NOBODY, {key("took", "_sum", path="/begun"): 0.0})
    expected = {"/a": 9, "/b": 5, "/c": 1}
    for pid, (path, count) in enumerate(expected.items(), NOBODY):
        took = histogram("took", {"0.5": 0.0, "+Inf": float(count)}, 1.5, path=path)
        dead(tmp_path, "histogram", pid, took)
        dead(tmp_path, "native", pid, buckets("took", {3: float(count)}, path=path))
    (family,) = families(Exposition(DirectorySource(WorkerDirectory(tmp_path), [])).render(PROTOBUF)[0])

    got = {labels_of(metric)["path"]: native_buckets(metric.histogram) for metric in family.metric}
    assert got == {"/begun": {}, **{path: {3: count} for path, count in expected.items()}}
    assert all(metric.histogram.HasField("schema") for metric in family.metric)


@pytest.mark.parametrize(("count", "is_native"), [(3.0, True), (2.0, True), (1.0, False)])
def test_one_process_may_be_in_the_middle_of_one_observation(count: float, is_native: bool) -> None:
    registry = CollectorRegistry()
    took = Histogram("took", "Took", registry=registry)
    for _ in range(3):
        took.observe(1.0)
    source = RegistrySource(registry, natives=lambda _: {(): {3: count}})
    (family,) = families(Exposition(source).render(PROTOBUF)[0])

    assert family.metric[0].histogram.HasField("schema") is is_native


@pytest.mark.parametrize(("index", "before", "within"), [(3, 9.0, 9), (-20, 9.0, 12), (3, 0.0, 0)])
def test_a_count_between_the_two_reads_goes_with_the_later_one(
    index: int, before: float, within: int, tmp_path: Path
) -> None:
    """The native buckets are read last: their count is the histogram's, in each bucket that holds theirs."""
    dead(tmp_path, "histogram", NOBODY, histogram("took", {"0.5": before, "+Inf": 10.0 - before}, 1.5))
    dead(tmp_path, "native", NOBODY, buckets("took", {index: 12.0}))
    (family,) = families(Exposition(DirectorySource(WorkerDirectory(tmp_path), [])).render(PROTOBUF)[0])
    got = family.metric[0].histogram

    assert (got.sample_count, [bucket.cumulative_count for bucket in got.bucket]) == (12, [within, 12])


def test_exemplars_stand_in_their_buckets(tmp_path: Path) -> None:
    """As long as there are some, whatever was kept of an earlier scrape."""
    counts = {"0.5": 3.0, "+Inf": 1.0}
    took_seconds = histogram("took", counts, 1.5, path="/") | histogram("took", counts, 1.5, path="/late")
    dead(tmp_path, "histogram", NOBODY, took_seconds)
    dead(tmp_path, "counter", NOBODY, {total(path="/"): 2.0, total(path="/late"): 2.0})
    observed: list[Observed] = []
    exposition = Exposition(DirectorySource(WorkerDirectory(tmp_path), []), lambda: observed)
    without, _ = exposition.render(PROTOBUF)
    observed += [
        Observed("took", {"path": "/late"}, Exemplar({"request_id": "r3"}, 0.25, 1e9)),
        Observed("took", {"path": "/"}, Exemplar({"request_id": "r1"}, 0.75, 1e9)),
        Observed("hits", {"path": "/"}, Exemplar({"request_id": "r2"}, 1.0, 1e9)),
        Observed("hits", {"path": "/late"}, Exemplar({"request_id": "r4"}, 1.0, 1e9)),
    ]
    hits, took = families(exposition.render(PROTOBUF)[0])
    observed.clear()

    values = {
        labels_of(metric)["path"]: [bucket.exemplar.value for bucket in metric.histogram.bucket]
        for metric in took.metric
    }
    assert values == {"/": [0.0, 0.75], "/late": [0.25, 0.0]}
    assert [metric.counter.exemplar.label[0].value for metric in hits.metric] == ["r2", "r4"]
    assert exposition.render(PROTOBUF)[0] == without


def test_a_broken_file_of_native_buckets_costs_the_native_form_alone(tmp_path: Path) -> None:
    dead(tmp_path, "histogram", NOBODY, histogram("took", {"0.5": 9.0, "+Inf": 0.0}, 1.5))
    (tmp_path / f"native_{NOBODY}.buckets").write_bytes(b"garbage garbage")
    os.utime(tmp_path / f"native_{NOBODY}.buckets", (0, 0))
    directory = WorkerDirectory(tmp_path)
    (family,) = families(Exposition(DirectorySource(directory, [])).render(PROTOBUF)[0])

    assert family.metric[0].histogram.sample_count == 9
    assert directory.counts()["corrupt"] == 1
