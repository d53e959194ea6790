"""What a scrape costs: 50 endpoints with 3 statuses, in one process and merged from several workers' files.

    python -m tests.bench.scrape

Beside prometheus_client's `generate_latest` and `MultiProcessCollector`, on the same metrics in the same run,
and checked to say the same line by line. CPU time of this process, the least of several rounds. Draws
`tests/bench/scrape.png`.
"""

from __future__ import annotations

import math
import random
import shutil
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.utils import floatToGoString

from exporter import buckets as native
from exporter.measure.native import Natives
from exporter.scrape.exposition import Exposition
from exporter.scrape.sources import DirectorySource, RegistrySource
from exporter.settings import DEFAULT_BUCKETS
from exporter.store.directory import WorkerDirectory
from exporter.store.workerfile import WorkerFile
from exporter.worker.failures import Failures
from tests.bench.rows import Row, save
from tests.rig.workerfiles import NOBODY, histogram, key, living

PICTURE = Path(__file__).with_name("scrape.png")
FAMILY = "flask_http_request_duration_seconds"
OPENMETRICS = "application/openmetrics-text;version=1.0.0"
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
CHILDREN = [
    {"method": "GET", "url_rule": f"/endpoint/{number}/<int:id>", "status": status}
    for number in range(50)
    for status in ("200", "404", "500")
]
BOUNDS = [str(floatToGoString(bound)) for bound in DEFAULT_BUCKETS]  # type: ignore[no-untyped-call]
WORKERS = 8
DEAD = (0, 50, 100, 200, 300, 400, 500)


def main() -> None:
    """Measure, print a table, draw, write the file."""
    rows = one_process()
    # On tmpfs, where worker files belong.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as scratch:
        several, ours, theirs = several_processes(Path(scratch))
    draw(ours, theirs)
    save("scrape", rows + several)


def cpu_ms(action: Callable[[], object], rounds: int) -> float:
    """The least CPU time of several rounds, in milliseconds."""
    found = []
    for _ in range(rounds):
        before = time.process_time()
        action()
        found.append(time.process_time() - before)
    return min(found) * 1000


def one_process() -> list[Row]:
    """generate_latest and ours on one registry."""
    registry = CollectorRegistry()
    family = Histogram(FAMILY, "Duration", list(CHILDREN[0]), registry=registry, buckets=DEFAULT_BUCKETS)
    natives = Natives(None, Failures(None))
    chance = random.Random(1)
    for labels in CHILDREN:
        buckets = natives.buckets(family, labels)
        for _ in range(20):
            seconds = chance.expovariate(2)
            family.labels(**labels).observe(seconds)
            doubles, at = buckets[bisect_left(native.BOUNDS, seconds)]
            doubles[at] += 1.0
    exposition = Exposition(RegistrySource(registry, natives=natives.counts))
    assert exposition.render()[0] == generate_latest(registry)
    assert exposition.render(OPENMETRICS)[0] == generate_openmetrics(registry)  # type: ignore[no-untyped-call]
    theirs = cpu_ms(lambda: generate_latest(registry), 10)
    ours = cpu_ms(exposition.render, 50)
    theirs_om = cpu_ms(lambda: generate_openmetrics(registry), 10)  # type: ignore[no-untyped-call]
    ours_om = cpu_ms(lambda: exposition.render(OPENMETRICS), 50)
    ours_pb = min(cpu_ms(lambda: exposition.render(PROTOBUF), 1) for _ in changes(family, natives, 200))
    return [
        Row("one process: of generate_latest", round(ours / theirs, 3), "", 0.15, _versus(ours, theirs)),
        Row(
            "one process: the same in OpenMetrics",
            round(ours_om / theirs_om, 3),
            "",
            0.15,
            _versus(ours_om, theirs_om),
        ),
        Row(
            "one process: protobuf with native buckets, half of them changed",
            round(ours_pb, 2),
            "ms a scrape",
            1.5,
            f"{len(exposition.render(PROTOBUF)[0]) / 1024:.0f} KiB, text {ours:.2f} ms",
        ),
    ]


def changes(family: Histogram, natives: Natives, rounds: int) -> Iterator[None]:
    """Before each round, one request more to every second child."""
    for seconds in random.Random(2).choices([0.003, 0.04, 0.5], k=rounds):
        for labels in CHILDREN[::2]:
            family.labels(**labels).observe(seconds)
            doubles, at = natives.buckets(family, labels)[bisect_left(native.BOUNDS, seconds)]
            doubles[at] += 1.0
        yield


def several_processes(
    scratch: Path, dead: Sequence[int] = DEAD, beside: Sequence[int] = DEAD
) -> tuple[list[Row], dict[int, float], dict[int, float]]:
    """Rows, and the time of a scrape after so many workers have died: ours, and theirs `beside`."""
    fresh, aged, everything, full = (scratch / name for name in ("fresh", "aged", "theirs", "full"))
    for directory in (fresh, aged, everything, full):
        directory.mkdir()
    files = [worker(place, pid) for place in (fresh, aged, everything, full) for pid in range(WORKERS)]
    files += [native_worker(full, pid) for pid in range(WORKERS)]
    file = worker(scratch, WORKERS)
    ended = file._fname
    file.close()

    def theirs_of(directory: Path) -> bytes:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, str(directory))  # type: ignore[no-untyped-call]
        return generate_latest(registry)

    young = _exposition(fresh)
    shared = WorkerDirectory(aged)
    exposition = Exposition(DirectorySource(shared, []))
    assert sorted(young.render()[0].split(b"\n")) == sorted(theirs_of(fresh).split(b"\n"))
    cold = cpu_ms(lambda: _exposition(fresh).render(), 5)
    ours: dict[int, float] = {}
    theirs: dict[int, float] = {}
    for number in dead:
        for pid in range(max(ours, default=0), number):
            for directory in (aged, everything) if number in beside else (aged,):
                shutil.copy(ended, directory / f"histogram_{NOBODY + WORKERS + pid}.db")
        exposition.render()
        ours[number] = cpu_ms(exposition.render, 30)
        if number in beside:
            theirs[number] = cpu_ms(lambda: theirs_of(everything), 5 if number == 0 else 1)
    # In turns, so that a busy moment of the machine meets both.
    turns = [(cpu_ms(young.render, 1), cpu_ms(exposition.render, 1)) for _ in range(60)]
    first, last = (min(times) for times in zip(*turns, strict=True))
    complete = _exposition(full)
    detailed = cpu_ms(lambda: complete.render(PROTOBUF), 60)
    left = shared.counts()
    assert left == {"live": WORKERS, "archive": int(bool(dead[-1])), "corrupt": 0}, left
    for file in files:
        file.close()
    rows = [
        Row(
            "8 workers: of MultiProcessCollector",
            round(first / theirs[0], 3),
            "",
            0.1,
            _versus(first, theirs[0]),
        ),
        Row(
            "8 workers: protobuf with native buckets, of theirs without",
            round(detailed / theirs[0], 3),
            "",
            0.1,
            _versus(detailed, theirs[0]),
        ),
        Row(
            "8 workers, first scrape: of theirs",
            round(cold / theirs[0], 3),
            "",
            1.0,
            _versus(cold, theirs[0]),
        ),
        Row(
            f"8 workers after {dead[-1]} dead: of ours without",
            round(last / first, 3),
            "",
            1.2,
            _versus(last, first),
        ),
    ]
    if dead[-1] in beside:
        rows.append(Row(f"prometheus_client after {dead[-1]} dead", round(theirs[dead[-1]]), "ms a scrape"))
    return rows, ours, theirs


def _exposition(directory: Path) -> Exposition:
    return Exposition(DirectorySource(WorkerDirectory(directory), []))


def worker(directory: Path, number: int) -> WorkerFile:
    """The file of one worker: every child, in an order of its own, with sums that add up exactly."""
    samples: dict[str, float] = {}
    for labels, counts, total in children(number):
        samples |= histogram(FAMILY, counts, total, **labels)
    return living(directory, "histogram", NOBODY + number, samples)


def native_worker(directory: Path, number: int) -> WorkerFile:
    """The native buckets of the same worker: two for each classic one."""
    samples: dict[str, float] = {}
    for labels, counts, _ in children(number):
        for bound, count in counts.items():
            index = native.LAST if bound == "+Inf" else math.ceil(math.log2(float(bound)) * 8)
            half = count // 2
            samples[key(FAMILY, f":{index}", **labels)] = count - half
            samples[key(FAMILY, f":{index - 1}", **labels)] = half
    return living(directory, "native", NOBODY + number, samples)


def children(number: int) -> Iterator[tuple[dict[str, str], dict[str, float], float]]:
    """Every child of a worker: labels, counts by upper bound, and the sum."""
    chance = random.Random(number)
    for labels in chance.sample(CHILDREN, len(CHILDREN)):
        counts = {bound: float(chance.randrange(50)) for bound in BOUNDS}
        yield labels, counts, chance.randrange(1 << 20) / 1024


def _versus(ours: float, theirs: float) -> str:
    return f"{ours:.2f} ms to {theirs:.1f} ms"


def draw(ours: dict[int, float], theirs: dict[int, float]) -> None:
    """The time of a scrape by the number of workers that have died."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4), dpi=110, layout="constrained")
    for times, label, colour in (
        (theirs, "prometheus_client", "#c4622d"),
        (ours, "this exporter", "#2d6fc4"),
    ):
        axes.plot([*times], [*times.values()], marker="o", color=colour, label=label)
        axes.annotate(f"{times[DEAD[-1]]:,.1f} ms", (DEAD[-1], times[DEAD[-1]]), xytext=(0, 8),
                      textcoords="offset points", ha="right", color=colour)  # fmt: skip
    axes.set(
        yscale="log",
        xlabel="workers that have died since the start (8 are alive)",
        ylabel="CPU time of one scrape, ms",
        title="A scrape of 50 endpoints with 3 statuses, merged from worker files",
    )
    axes.margins(y=0.15)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(PICTURE)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
