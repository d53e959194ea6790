"""The text of a scrape: prometheus_client's to the letter, made once for all who ask at the same time."""

from __future__ import annotations

import gzip
import random
import re
import threading
import weakref
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import pytest
from packaging.version import Version
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar

from exporter.scrape.exemplars import Observed, of_requests
from exporter.scrape.exposition import Exposition
from exporter.scrape.sources import DirectorySource, RegistrySource
from exporter.scrape.turns import Turns
from exporter.store.directory import WorkerDirectory
from exporter.worker.requests import Request
from tests.rig.deadline import eventually
from tests.rig.workerfiles import NOBODY, dead, histogram, key, living, their_lines, total
from tests.rig.wsgi import Raises, application, call, counted

ACCEPTED = [
    None,
    "*/*",
    "text/plain;version=0.0.4",
    "text/plain;version=1.0.0;escaping=allow-utf-8",
    "text/plain;version=1.0.0;escaping=values",
    "text/plain;version=1.0.0;escaping=dots",
    "application/openmetrics-text",
    "application/openmetrics-text;version=0.0.1,text/plain;q=0.5",
    "application/openmetrics-text;version=1.0.0;escaping=underscores",
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8",
    "application/openmetrics-text;version=1.0.0;escaping=values",
    "application/openmetrics-text;version=2.0.0;escaping=dots",
]
OPENMETRICS = "application/openmetrics-text;version=1.0.0"


class Custom:
    """A collector of the user's own."""

    def describe(self) -> Iterable[Metric]:
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily("custom", "Own", labels=["a"])
        family.add_metric(["b"], 3, created=1.5e9)
        return [family, GaugeMetricFamily("plain", "Own", value=1e7)]


@pytest.fixture
def registry() -> CollectorRegistry:
    """One of everything, with names, labels, help texts and values that need care."""
    chance = random.Random(4)
    made = CollectorRegistry(target_info={"env": "test"})
    took = Histogram("took_seconds", 'How\\long "it"\ntook: 100 %s %', ["path"], registry=made)
    for path in ("/", '/q"uo\\te\n', "/ü%s", "/<int:id>"):
        for _ in range(30):
            took.labels(path).observe(
                chance.random() * 3, {"id": path[:5]} if chance.random() < 0.3 else None
            )
    Histogram("below_zero", "b", buckets=(-1, 0, 1), registry=made).observe(0.5)
    Histogram("from_zero", "f", buckets=(0, 1), registry=made).observe(0.5)
    hits = Counter("hits", "h", ["a"], registry=made)
    for value in (0.1, 1e6, 999999.0, 1e21, 5e-7, float("inf"), float("nan")):
        hits.labels(str(value)).inc(value, {"id": "x"})
    if hasattr(Counter, "reset"):
        hits.labels("0.1").reset()
    Counter("nobody_yet", "n", ["a"], registry=made)
    gauge = Gauge("level", "l", ["a"], unit="bytes", registry=made)
    for number in (-2e7, -0.0, float("-inf"), 3):
        gauge.labels(str(number)).set(number)
    Gauge("asked", "a", registry=made).set_function(lambda: 12345678)
    Summary("size", "s", ["a"], registry=made).labels("b").observe(7)
    if Version(version("prometheus-client")) >= Version("0.22"):  # names of all letters came with it
        Counter("dotted.name", "d", ["a.b", "c:d"], registry=made).labels("1", "2").inc()
    Gauge("colon:name", "c", registry=made).set(1)
    Info("build", "i", registry=made).info({"a": "b"})
    Enum("state", "e", states=["on", "off"], registry=made)
    made.register(Custom())
    return made


@pytest.mark.parametrize("accept", ACCEPTED)
def test_one_process_says_what_prometheus_client_says(
    accept: str | None, registry: CollectorRegistry
) -> None:
    """Byte for byte in every format and escaping; again after values and children have changed."""
    encode, content_type = choose_encoder(accept or "")
    exposition = Exposition(RegistrySource(registry))
    body, headers = exposition.render(accept)

    assert body == encode(registry)
    assert dict(headers)["Content-Type"] == content_type

    hits = registry._names_to_collectors["hits"]
    assert isinstance(hits, Counter)
    hits.labels("0.1").inc(7)
    hits.labels("new").inc()
    hits.remove("nan")
    assert exposition.render(accept)[0] == encode(registry)


@pytest.mark.parametrize("accept", ACCEPTED)
def test_names_select_samples(accept: str | None, registry: CollectorRegistry) -> None:
    """`name[]` gives the samples of these names and their families' heads."""
    names = ["hits_total", "took_seconds_bucket", "plain", "size_created", "target_info", "unknown"]
    encode, _ = choose_encoder(accept or "")
    body, _ = Exposition(RegistrySource(registry)).render(accept, names)

    assert sorted(body.split(b"\n")) == sorted(encode(registry.restricted_registry(names)).split(b"\n"))


def test_created_series_can_be_turned_off(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in prometheus_client, at any time, and from the start."""
    exposition = Exposition(RegistrySource(registry))
    assert b"hits_created" in exposition.render()[0]
    monkeypatch.setattr("prometheus_client.metrics._use_created", False)

    for each in exposition, Exposition(RegistrySource(registry)):
        assert each.render()[0] == choose_encoder("")[0](registry)


@pytest.mark.parametrize("latency_as_histogram", [True, False])
def test_what_the_exporter_records_reads_as_prometheus_client_tells_it(latency_as_histogram: bool) -> None:
    app, exporter = application(default_latency_as_histogram=latency_as_histogram)
    for path in ("/orders/7", "/orders/700", "/nowhere"):
        call(app, path)

    def requests(text: bytes) -> list[bytes]:
        return [line for line in text.splitlines() if line.startswith(b"flask_http_request_duration")]

    text, _ = Exposition(RegistrySource(exporter.registry)).render()
    assert requests(text) == requests(choose_encoder("")[0](exporter.registry))
    assert b'duration_seconds_count{method="GET",status="200",url_rule="/orders/<int:number>"} 2.0' in text


def test_a_version_that_is_no_number_gets_the_plain_text(registry: CollectorRegistry) -> None:
    """prometheus_client raises TypeError for it, and before 0.22 it did not look at versions."""
    accept = "application/openmetrics-text;version=1.a"
    try:
        encode, content_type = choose_encoder(accept)
    except TypeError:
        encode, content_type = choose_encoder("")
    body, headers = Exposition(RegistrySource(registry)).render(accept)

    assert dict(headers)["Content-Type"] == content_type
    assert body == encode(registry)


@pytest.mark.parametrize(
    ("accept_encoding", "compressed"),
    [
        (None, False),
        ("identity", False),
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000", False),
        ("xgzip", False),
    ],
)
def test_gzip_where_asked(accept_encoding: str | None, compressed: bool, registry: CollectorRegistry) -> None:
    """The body is compressed for those who say so, and the same."""
    exposition = Exposition(RegistrySource(registry))
    body, headers = exposition.render(None, (), accept_encoding)

    assert ("Content-Encoding", "gzip") in headers or not compressed
    assert (gzip.decompress(body) if compressed else body) == exposition.render()[0]
    assert dict(headers)["Vary"] == "Accept, Accept-Encoding"


def test_a_collector_that_raises_costs_its_own_samples(registry: CollectorRegistry) -> None:
    """The others are served and the failure is reported; without a listener it is the caller's."""

    class Broken:
        def describe(self) -> list[Metric]:
            return []

        def collect(self) -> list[Metric]:
            raise ValueError("broken")

    whole = Exposition(RegistrySource(registry)).render()[0]
    registry.register(Broken())
    Gauge("divided", "d", registry=registry).set_function(lambda: 1 / 0)
    failed: list[type[BaseException]] = []
    body, _ = Exposition(RegistrySource(registry, lambda error: failed.append(type(error)))).render()

    assert body == whole
    assert failed == [ValueError, ZeroDivisionError]
    with pytest.raises(ValueError, match="broken"):
        Exposition(RegistrySource(registry)).render()


class Odd:
    """A collector of somebody who did not look what he hands over."""

    def __init__(self, *families: Any) -> None:
        self.families = families

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        return self.families


def gauge(*series: tuple[Any, Any], documentation: Any = "Jobs that wait") -> Metric:
    """A gauge with these labels and values."""
    family = Metric("queue_depth", "", "gauge")
    family.documentation = documentation
    for labels, value in series:
        family.add_sample("queue_depth", labels, value)
    return family


GOOD = ({"queue": "mail"}, 3)
GOOD_LINE = 'queue_depth{queue="mail"} 3.0'


@pytest.mark.parametrize(
    ("family", "kept"),
    [
        (gauge(GOOD, ({"queue": None}, 1)), True),
        (gauge(GOOD, ({"queue": 7}, 1)), True),
        (gauge(({"queue": "slow"}, None), GOOD), True),
        (gauge(({"queue": "slow"}, "many"), GOOD), True),
        (gauge(GOOD, ({"queue"}, 1), GOOD), True),
        (gauge(({"queue": "\udcff"}, 1), GOOD), True),
        (gauge(*[({"queue": None}, 1)] * 5, GOOD, *[({"queue": 7}, 1)] * 3), True),
        (gauge(({"queue": None}, 1)), False),
        (gauge(GOOD, documentation=None), False),
        (None, False),
        ("queue_depth 3", False),
    ],
)
@pytest.mark.parametrize("accept", [None, OPENMETRICS])
@pytest.mark.parametrize("names", [(), ("queue_depth", "hits_total")])
def test_a_series_that_cannot_be_written_costs_itself(
    family: Any, kept: bool, accept: str | None, names: tuple[str, ...]
) -> None:
    registry = CollectorRegistry()
    Counter("hits", "h", registry=registry).inc()
    registry.register(Odd(family))
    Counter("misses", "h", registry=registry)
    errors: list[BaseException] = []
    text = Exposition(RegistrySource(registry), on_failure=errors.append).render(accept, names)[0].decode()

    assert "hits_total 1.0\n" in text
    assert ("misses_total 0.0\n" in text) == (not names)
    assert text.count(f"{GOOD_LINE}\n") >= kept
    assert len(errors) == 1
    with pytest.raises(type(errors[0])):
        Exposition(RegistrySource(registry)).render(accept, names)


@pytest.mark.parametrize("accept", [None, OPENMETRICS])
def test_a_label_that_is_no_text_costs_its_series_of_a_plain_metric(accept: str | None) -> None:
    """JSON may hold a lone surrogate, and a view may make a label of it."""
    registry = CollectorRegistry()
    seconds = Histogram("took", "h", ["shop"], registry=registry)
    for shop in ("north", "\ud800", "south"):
        seconds.labels(shop).observe(1)
    errors: list[BaseException] = []
    text = Exposition(RegistrySource(registry), on_failure=errors.append).render(accept)[0].decode()

    assert re.findall(r'took_count\{shop="(.*)"\} 1\.0', text) == ["north", "south"]
    assert [type(error) for error in errors] == [UnicodeEncodeError]


def test_exemplars_that_cannot_be_had_or_written_cost_themselves() -> None:
    registry = CollectorRegistry()
    Counter("hits", "h", registry=registry).inc(1, {"id": "\ud800"})
    errors: list[BaseException] = []
    exposition = Exposition(RegistrySource(registry), Raises(OSError("disk")), errors.append)

    assert "hits_total 1.0\n" in exposition.render(OPENMETRICS)[0].decode()
    assert [type(error) for error in errors] == [OSError, UnicodeEncodeError]


def test_the_page_counts_what_it_cannot_write() -> None:
    app, exporter = application()
    exporter.registry.register(Odd(gauge(GOOD, ({"queue": None}, 1))))
    answer = call(app, "/metrics")

    assert answer.status == "200 OK"
    assert f"{GOOD_LINE}\n" in answer.body.decode()
    assert counted(exporter, "flask_exporter_failures_total") == {("scrape",): 1}


def test_several_processes_say_what_prometheus_client_says(tmp_path: Path) -> None:
    """Line by line after sorting, of the same living files; with the live collectors after them."""
    counts = {"0.5": 3.0, "1.0": 0.0, "+Inf": 2.0}
    files = [
        living(tmp_path, stem, NOBODY + worker, samples)
        for worker in range(2)
        for stem, samples in (
            ("counter", {total(path=f"/{worker}"): 1e7, total(path="/%s"): 0.5}),
            ("histogram", histogram("took", counts, 1.25, path="/")),
        )
    ]
    theirs = their_lines(tmp_path)
    body, _ = Exposition(DirectorySource(WorkerDirectory(tmp_path), [Custom()])).render()
    for file in files:
        file.close()

    custom = choose_encoder("")[0](_Only(Custom())).decode().splitlines()
    assert sorted(body.decode().splitlines()) == sorted(theirs + custom)


class _Only:
    def __init__(self, collector: Custom) -> None:
        self._collector = collector

    def collect(self) -> Iterable[Metric]:
        return self._collector.collect()


def request(number: int, duration: float, status: int = 200, error_type: str = "") -> Request:
    return Request(
        start_time=1e9 + number,
        duration=duration,
        method="GET",
        url_rule="/orders",
        endpoint="orders",
        path="/orders",
        status=status,
        failed=status >= 500,
        error_type=error_type,
        request_size=0,
        response_size=0,
        request_id=f"r{number}",
        trace_id="0af7651916cd43dd8448eb211c80319c" if number % 2 else "",
        disconnected=False,
    )


def test_exemplars_under_several_workers(tmp_path: Path) -> None:
    """The newest request of each bucket and of each kind of error is there, once; others have no place."""
    labels = {"method": "GET", "url_rule": "/orders", "status": "200"}
    errors, refused = ({**labels, "status": status} for status in ("500", "400"))
    counts = {"0.5": 3.0, "1.0": 1.0, "+Inf": 2.0}
    dead(tmp_path, "histogram", NOBODY, histogram("took", counts, 1.0, **labels))
    kinds = total("errors", **errors, error_type="KeyError"), total("errors", **refused, error_type="")
    dead(tmp_path, "counter", NOBODY, dict.fromkeys(kinds, 2.0))
    newest_first = [
        request(9, 0.2),
        request(8, 7.0),
        request(7, 0.1),
        request(6, 0.3, 500, "KeyError"),
        request(5, 0.3, 500, "ValueError"),
        request(4, 0.5, 503),
        request(3, 0.5, 400),
        request(2, 0.5, 399),
    ]
    exposition = Exposition(
        DirectorySource(WorkerDirectory(tmp_path), []),
        lambda: of_requests(newest_first, durations="took", errors="errors", group="url_rule"),
    )
    text = exposition.render(OPENMETRICS)[0].decode()
    shown = {
        (sample.name, sample.labels.get("le", sample.labels["status"])): sample.exemplar._replace(
            timestamp=float(sample.exemplar.timestamp)
        )
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar
    }

    assert shown == {
        ("took_bucket", "0.5"): Exemplar(
            {"request_id": "r9", "trace_id": "0af7651916cd43dd8448eb211c80319c"}, 0.2, 1e9 + 9.2
        ),
        ("took_bucket", "+Inf"): Exemplar({"request_id": "r8"}, 7.0, 1e9 + 15.0),
        ("errors_total", "500"): Exemplar({"request_id": "r6"}, 1.0, 1e9 + 6.3),
        ("errors_total", "400"): Exemplar(
            {"request_id": "r3", "trace_id": "0af7651916cd43dd8448eb211c80319c"}, 1.0, 1e9 + 3.5
        ),
    }
    assert b"r9" not in exposition.render()[0]


def test_a_summary_has_no_exemplars(tmp_path: Path) -> None:
    """OpenMetrics refuses them there; an application can ask for its durations as a summary."""
    dead(tmp_path, "summary", NOBODY, {key("took", "_count"): 2.0, key("took", "_sum"): 0.5})
    observed = [Observed("took", {}, Exemplar({"request_id": "r1"}, 0.25, 1e9))]
    exposition = Exposition(DirectorySource(WorkerDirectory(tmp_path), []), lambda: observed)

    assert "took_count 2.0" in exposition.render(OPENMETRICS)[0].decode().splitlines()


def test_an_exemplar_in_one_process_takes_the_place_of_an_older_one() -> None:
    """A sample has one exemplar: the flight recorder's before prometheus_client's own."""
    registry = CollectorRegistry()
    Counter("hits", "h", ["a"], registry=registry).labels("b").inc(1, {"id": "old"})
    new = Observed("hits", {"a": "b"}, Exemplar({"id": "new"}, 1.0, 5.0))
    text = Exposition(RegistrySource(registry), lambda: [new]).render(OPENMETRICS)[0].decode()

    assert 'hits_total{a="b"} 1.0 # {id="new"} 1.0 5.0\n' in text
    assert "old" not in text


class CountingLock:
    """A lock that knows how many have asked for it."""

    def __init__(self) -> None:
        self.asked = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self.asked += 1
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_simultaneous_scrapers_share_one_merge() -> None:
    """Nine who ask while a merge is under way wait for the next one, and that serves all of them."""
    registry = CollectorRegistry()
    running, finish = threading.Event(), threading.Event()
    merges: list[int] = []

    class Slow:
        def describe(self) -> list[Metric]:
            return []

        def collect(self) -> list[Metric]:
            merges.append(len(merges))
            running.set()
            finish.wait(30)
            return [GaugeMetricFamily("merge", "m", value=merges[-1])]

    registry.register(Slow())
    exposition = Exposition(RegistrySource(registry))
    bodies: list[bytes] = []
    scrapers = [threading.Thread(target=lambda: bodies.append(exposition.render()[0])) for _ in range(10)]
    turn = CountingLock()
    exposition._turns._turn = turn  # type: ignore[assignment]
    scrapers[0].start()
    assert running.wait(30)
    for scraper in scrapers[1:]:
        scraper.start()
    eventually(lambda: turn.asked == 10, "all scrapers to wait")
    finish.set()
    for scraper in scrapers:
        scraper.join()

    assert merges == [0, 1]
    assert sorted(b"merge 1.0" in body for body in bodies) == [False] + [True] * 9


def test_an_answer_is_kept_by_nobody() -> None:
    """It is large, and nobody will ask for it again."""

    class Answer:
        pass

    turns = Turns()
    answer: Any = turns.share("metrics", cast("Any", Answer))
    memory = weakref.ref(answer)
    del answer

    assert memory() is None


@pytest.mark.parametrize(
    "others",
    [
        [{"names": ["first"]}, {"names": ["second"]}],
        [{"names": ["first"]}, {}],
        [{}, {"accept": OPENMETRICS}],
        [{"accept_encoding": "gzip"}, {}],
    ],
)
def test_simultaneous_scrapers_of_other_contents_each_get_their_own(others: list[dict[str, Any]]) -> None:
    registry = CollectorRegistry()
    running, finish = threading.Event(), threading.Event()

    def slow() -> float:
        running.set()
        finish.wait(30)
        return 1.0

    Gauge("first", "f", registry=registry).set_function(slow)
    Gauge("second", "s", registry=registry).set(2.0)
    exposition = Exposition(RegistrySource(registry))
    bodies: dict[int, bytes] = {}

    def scrape(number: int) -> None:
        bodies[number] = exposition.render(**others[number])[0]

    turn = CountingLock()
    exposition._turns._turn = turn  # type: ignore[assignment]
    scrapers = [threading.Thread(target=exposition.render)]
    scrapers += [threading.Thread(target=scrape, args=[number]) for number in range(2)]
    scrapers[0].start()
    assert running.wait(30)
    for scraper in scrapers[1:]:
        scraper.start()
    eventually(lambda: turn.asked == 3, "all scrapers to wait")
    finish.set()
    for scraper in scrapers:
        scraper.join()

    assert bodies == {number: exposition.render(**others[number])[0] for number in range(2)}
    assert bodies[0] != bodies[1]


def test_a_failed_merge_serves_nobody() -> None:
    """The next one tries again."""
    registry = CollectorRegistry()
    numbers = iter([1 / 1, 0.0])
    Gauge("divided", "d", registry=registry).set_function(lambda: 1 / (1 - next(numbers)))
    exposition = Exposition(RegistrySource(registry))
    with pytest.raises(ZeroDivisionError):
        exposition.render()

    assert b"divided 1.0\n" in exposition.render()[0]


def test_a_missing_directory_is_the_callers_error(tmp_path: Path) -> None:
    """Somebody has removed it."""
    with pytest.raises(FileNotFoundError):
        Exposition(DirectorySource(WorkerDirectory(tmp_path / "gone"), [])).render()
