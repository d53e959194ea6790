"""What is lost when a part fails: real processes, and a target that counts its scrapes."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from prometheus.drill.sites import Site
from prometheus.run import scale
from tests.rig import engines
from tests.rig.alerts import ALERTS
from tests.rig.deadline import eventually
from tests.rig.engines import Engine
from tests.rig.network import free_ports, get_json
from tests.rig.places import ROOT

CONFIGURATION = """\
global:
  scrape_interval: {interval}
  scrape_timeout: {interval}

rule_files:
  - rules/*.yml

alerting:
  alertmanagers: []

scrape_configs:
  - job_name: counting
    static_configs:
      - targets: [{targets}]
"""
NAME = "scrapes_total"


class Target(ThreadingHTTPServer):
    """Exposes how often it was scraped, under each name by which it is asked: every sample has its number."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("", 0), Handler)
        self.scrapes: Counter[str] = Counter()
        self.lock = threading.Lock()

    def handle_error(self, *_: object) -> None:
        """Be silent about one that asks and goes before the answer."""

    @property
    def count(self) -> int:
        """Scrapes under all names."""
        return sum(self.scrapes.values())


class Handler(BaseHTTPRequestHandler):
    server: Target

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.scrapes[self.headers["Host"]] += 1
            body = f"# TYPE {NAME} counter\n{NAME} {self.server.scrapes[self.headers['Host']]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def target() -> Iterator[Target]:
    with Target() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def configuration(target: Target, interval: str, hosts: int = 1) -> str:
    """A prometheus.yml in the shipped form, with the target under so many addresses."""
    targets = ", ".join(f"127.0.0.{host + 1}:{target.server_port}" for host in range(hosts))
    return CONFIGURATION.format(interval=interval, targets=targets)


def receiver(kind: str, directory: Path, port: int) -> Engine:
    """What samples are sent to."""
    if kind == "prometheus":
        return engines.prometheus(directory, "global: {}\n", "--web.enable-remote-write-receiver", port=port)
    # When it gives up a connection that nothing comes through, it loses what it has not written yet.
    return engines.victoriametrics(directory, "-http.maxGracefulShutdownDuration=30s", port=port)


def sender(kind: str, directory: Path, scrapes: str, url: str) -> Engine:
    """What scrapes, and sends to this address."""
    if kind == "vmagent":
        directory.mkdir()
        (directory / "prometheus.yml").write_text(scrapes)
        return engines.vmagent(directory, directory / "prometheus.yml", url)
    flags = ("--agent",) if kind == "agent" else ()
    return engines.prometheus(directory, scrapes, *flags, REMOTE_WRITE_URL=url)


def numbers(store: Engine) -> dict[str, list[int]]:
    """The number of each sample that is stored, by instance."""
    return {
        series["instance"]: [int(value) for _, value in points if not math.isnan(value)]
        for series, points in store.samples(NAME)
    }


def lost(store: Engine) -> int:
    """How many numbers are missing, or there twice, not counting those of scrapes that failed."""
    wrong = 0
    for stored in numbers(store).values():
        there = Counter(stored)
        wrong += sum(there[number] != 1 for number in range(1, max(stored, default=0) + 1))
    failures = sum(value == 0 for _, points in store.samples("up") for _, value in points)
    return max(0, wrong - failures)


def fewest(store: Engine) -> int:
    """The number of samples of the instance that has the fewest."""
    return min(map(len, numbers(store).values()), default=0)


def outage(
    directory: Path, target: Target, kinds: tuple[str, str], interval: str, seconds: float
) -> tuple[int, int]:
    """Let the receiver be gone for so long; return how many samples it has then, and how many are lost."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/api/v1/write"
    with ExitStack() as stack:
        with receiver(kinds[1], directory / "receiver", port) as store:
            stack.enter_context(sender(kinds[0], directory / "sender", configuration(target, interval), url))
            eventually(lambda: fewest(store) > 5, "samples arrive")
            if kinds[1] == "prometheus":
                store.end(signal.SIGKILL)
            else:  # VictoriaMetrics has no log of what it took: it is asked to end
                assert store.end() == 0, store.text()
        begin, before = time.monotonic(), target.count
        eventually(
            lambda: time.monotonic() > begin + seconds and target.count > before + 10,
            "the outage",
            seconds + 60,
        )
        store = stack.enter_context(receiver(kinds[1], directory / "receiver", port))
        return arrived(store, target)


def arrived(store: Engine, target: Target) -> tuple[int, int]:
    """Wait until the newest samples are there and none is missing; return how many are there, and lost."""
    newest = 0.9 * min(target.scrapes.values(), default=0)
    with suppress(AssertionError):  # the caller says how many are missing
        eventually(lambda: fewest(store) > newest and not lost(store), "every sample arrives", 60)
    return fewest(store), lost(store)


KINDS = [
    ("prometheus", "victoriametrics"),
    ("agent", "prometheus"),
    ("vmagent", "victoriametrics"),
    ("prometheus", "prometheus"),
    ("agent", "victoriametrics"),
]


@pytest.mark.parametrize("kinds", KINDS[:3], ids=" to ".join)
def test_no_sample_is_lost_while_the_receiver_is_gone(
    tmp_path: Path, target: Target, kinds: tuple[str, str]
) -> None:
    """They wait on the sender's disk, and each of them arrives once."""
    samples, missing = outage(tmp_path, target, kinds, "100ms", 1)

    assert missing == 0
    assert samples > 10


@pytest.mark.soak
@pytest.mark.parametrize("kinds", KINDS, ids=" to ".join)
def test_two_minutes_without_the_receiver(tmp_path: Path, target: Target, kinds: tuple[str, str]) -> None:
    """The same with two whole minutes."""
    samples, missing = outage(tmp_path, target, kinds, "1s", 120)

    print(f"{' to '.join(kinds)}: {samples} samples, {missing} lost")
    assert missing == 0
    assert samples > 120


@dataclass(frozen=True)
class Sending:
    """A Prometheus that scrapes itself and sends to a site, and the series for which shipped alerts hold."""

    site: Site
    sender: Engine
    told: list[dict[str, str]]

    def series(self, alert: str, factor: float) -> list[dict[str, str]]:
        """Those of MonitoringRemoteWrite…, with the durations of its expression divided by a factor."""
        (promql,) = (rule["expr"] for rule in ALERTS if rule["alert"] == f"MonitoringRemoteWrite{alert}")
        result = self.sender.ask("query", query=scale.expression(promql, factor))["result"]
        return [found["metric"] for found in result]


@pytest.fixture
def sending(tmp_path: Path) -> Iterator[Sending]:
    """Samples have arrived."""
    (port,) = free_ports(1)
    itself = CONFIGURATION.format(interval="200ms", targets=f"127.0.0.1:{port}")
    with closing(Site()) as site:
        url = f"http://{site.address}/api/v1/write"
        with engines.prometheus(tmp_path, itself, port=port, REMOTE_WRITE_URL=url) as sender:
            sent = "max(prometheus_remote_storage_samples_total)"
            eventually(lambda: sender.value(sent), "samples are sent")
            yield Sending(site, sender, [{"job": "counting", "instance": f"127.0.0.1:{port}", "url": url}])


def test_samples_that_wait_are_told(sending: Sending) -> None:
    """They are late, until they arrive; three seconds are five minutes."""
    assert sending.series("Behind", 100) == []
    sending.site.status = 503
    eventually(lambda: sending.series("Behind", 100) == sending.told, "the samples are late")
    sending.site.status = 200
    eventually(lambda: sending.series("Behind", 100) == [], "the samples arrive")
    assert sending.series("Refused", 100) == []


def test_samples_that_are_refused_are_told(sending: Sending) -> None:
    """They are lost, and none is late; an hour is a minute."""
    sending.site.status = 400
    eventually(lambda: sending.series("Refused", 60) == sending.told, "the samples are refused")
    assert sending.series("Behind", 60) == []


def times(store: Engine) -> list[float]:
    """When the one series that is stored has samples."""
    ((_, points),) = store.samples(NAME)
    return [at for at, value in points if not math.isnan(value)]


def test_one_of_a_pair_is_killed(tmp_path: Path, target: Target) -> None:
    """The receiver makes one series of the two, and has every sample of the one that is left."""
    relabel = ROOT / "prometheus/cluster/relabel.yml"
    flags = (f"-relabelConfig={relabel}", "-dedup.minScrapeInterval=250ms")
    scrapes = configuration(target, "250ms")
    with engines.victoriametrics(tmp_path / "store", *flags) as store, ExitStack() as stack:
        pair = [
            stack.enter_context(
                engines.prometheus(
                    tmp_path / name,
                    scrapes,
                    REPLICA=name,
                    RULES="off",
                    REMOTE_WRITE_URL=f"{store.url}/api/v1/write",
                )
            )
            for name in "ab"
        ]
        eventually(lambda: target.count > 10 and store.samples(NAME), "both send")
        pair[0].end(signal.SIGKILL)
        left = target.count
        eventually(lambda: target.count > left + 6, "the one that is left scrapes on")
        pair[0] = stack.enter_context(
            engines.prometheus(
                tmp_path / "a",
                scrapes,
                REPLICA="a",
                RULES="off",
                REMOTE_WRITE_URL=f"{store.url}/api/v1/write",
            )
        )
        end = target.count
        eventually(lambda: max(next(iter(numbers(store).values()))) > end + 4, "both send again")
        survivor = times(pair[1])
        stored = times(store)

    longest = max(second - first for first, second in pairwise(survivor))
    covered = [at for at in stored if survivor[0] <= at <= survivor[-1]]
    assert max(second - first for first, second in pairwise(covered)) <= longest + 0.25
    assert len(stored) < target.count  # one of two


def cluster(
    directory: Path, stack: ExitStack
) -> tuple[list[Engine], Engine, Engine, Callable[[int], Engine]]:
    """The cluster with the replication of cluster.yml, and how to start one of its vmstorage again."""
    vmstorage, vminsert, vmselect = engines.on_path("vmstorage", "vminsert", "vmselect")
    ports = [free_ports(3) for _ in range(3)]
    front = free_ports(2)

    def storage(number: int) -> Engine:
        http, insert, select = ports[number]
        engine = Engine(
            [
                vmstorage,
                f"-storageDataPath={directory}/storage-{number}",
                "-retentionPeriod=35d",
                "-dedup.minScrapeInterval=1ms",
                f"-httpListenAddr=127.0.0.1:{http}",
                f"-vminsertAddr=127.0.0.1:{insert}",
                f"-vmselectAddr=127.0.0.1:{select}",
            ],
            directory,
            http,
        )
        engine.ready("/health")
        return stack.enter_context(engine)

    storages = [storage(number) for number in range(3)]
    insert = Engine(
        [
            vminsert,
            "-storageNode=" + ",".join(f"127.0.0.1:{insert}" for _, insert, _ in ports),
            "-replicationFactor=2",
            f"-relabelConfig={ROOT}/prometheus/cluster/relabel.yml",
            f"-httpListenAddr=127.0.0.1:{front[0]}",
        ],
        directory,
        front[0],
    )
    insert.ready("/health")
    select = Engine(
        [
            vmselect,
            "-storageNode=" + ",".join(f"127.0.0.1:{select}" for _, _, select in ports),
            "-replicationFactor=2",
            "-dedup.minScrapeInterval=1ms",
            "-search.latencyOffset=0s",
            f"-cacheDataPath={directory}/cache",
            f"-httpListenAddr=127.0.0.1:{front[1]}",
        ],
        directory,
        front[1],
        "/select/0/prometheus",
    )
    select.ready("/health")
    return storages, stack.enter_context(insert), stack.enter_context(select), storage


def test_a_storage_node_is_killed(tmp_path: Path, target: Target) -> None:
    """Answers are complete meanwhile and afterwards, whichever of the three it is."""
    with ExitStack() as stack:
        storages, insert, select, start = cluster(tmp_path, stack)
        url = f"{insert.url}/insert/0/prometheus/api/v1/write"
        scrapes = configuration(target, "500ms", hosts=8)
        source = stack.enter_context(sender("prometheus", tmp_path / "sender", scrapes, url))

        def complete() -> bool:
            """Wait until the cluster answers with every sample that has been scraped by now."""
            scraped = numbers(source)
            return eventually(
                lambda: all(set(scraped[each]) <= set(numbers(select).get(each, ())) for each in scraped),
                "every sample of eight series",
                60,
            )

        eventually(lambda: len(numbers(source)) == 8 and fewest(source) > 3, "scrapes")
        assert complete()
        # The last: what one that is killed has not yet on its disk, some seconds, has one copy for ever.
        for number, how in enumerate((signal.SIGTERM, signal.SIGTERM, signal.SIGKILL)):
            storages[number].end(how)
            assert complete()
            storages[number] = start(number)
            assert complete()


def test_shards_have_every_target_once(tmp_path: Path, target: Target) -> None:
    """Agents share the targets by the hash of their address; where all is together rules see all of them."""
    scrapes = configuration(target, "200ms", hosts=16)
    with receiver("prometheus", tmp_path / "store", 0) as store, ExitStack() as stack:
        agents = [
            stack.enter_context(
                engines.prometheus(
                    tmp_path / f"agent{number}",
                    scrapes,
                    "--agent",
                    SHARD=f"{number}/2",
                    REMOTE_WRITE_URL=f"{store.url}/api/v1/write",
                )
            )
            for number in (1, 2)
        ]
        eventually(lambda: store.value("count(up == 1)") == 16, "all targets are up")
        shares = [
            {one["scrapeUrl"] for one in get_json(f"{agent.url}/api/v1/targets")["data"]["activeTargets"]}
            for agent in agents
        ]

    assert min(map(len, shares)) > 0
    assert len(shares[0]) + len(shares[1]) == len(shares[0] | shares[1]) == 16
