"""Measure what a Prometheus with the shipped rules needs for a fleet, beside what `capacity` predicts.

    python -m tests.bench.fleet [--instances 1000] [--endpoints 8] [--minutes 3]

A real service is asked for its metrics every few seconds, and one process answers with them for all instances
of the fleet. 1,000 instances of 8 endpoints take 2 to 3 GB.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from exporter.commands.capacity import Fleet
from tests.bench import rows
from tests.rig import sized
from tests.rig.scraper import Scraper, scraper
from tests.rig.server import Server, threaded

INTERVAL = 15.0
METHODS, STATUSES = 1, 3
TOLERANCE = 15.0  # percent
# What Prometheus asks for, and what it needs to read the answer.
ACCEPT = {
    "Accept": "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
    "Accept-Encoding": "gzip",
}


class Answers:
    """The latest metrics of a service, for whoever asks."""

    def __init__(self, server: Server, endpoints: int) -> None:
        self._server, self._endpoints = server, endpoints
        self.headers: dict[str, str] = {}
        self.body = b""
        self.renew()

    def renew(self) -> None:
        """Use the service, and ask for its metrics anew."""
        sized.use(self._server.port, self._endpoints, METHODS, STATUSES)
        answer = self._server.get("/metrics", ACCEPT)
        self.headers = {
            name: answer.headers[name]
            for name in ("Content-Type", "Content-Encoding")
            if answer.headers[name]
        }
        self.body = answer.body


@contextmanager
def serving(answers: Answers) -> Iterator[int]:
    """Answer on every address of this machine; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = answers.body
            self.send_response(200)
            for name, value in answers.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Fleet(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 2048

        def handle_error(self, *_: object) -> None:
            """Be silent about a Prometheus that ends."""

    with Fleet(("", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def appended(prometheus: Scraper) -> float:
    """Samples that were stored so far."""
    with urllib.request.urlopen(f"{prometheus.address}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return sum(map(float, re.findall(r"^prometheus_tsdb_head_samples_appended_total\S* (\S+)$", text, re.M)))


def processor_seconds(pid: int) -> float:
    """What a process has used of processors so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_of(pid: int, seconds: float) -> list[int]:
    """Bytes of a process in memory, each second for so long: garbage collection moves them up and down."""
    end = time.monotonic() + seconds
    sizes = []
    while time.monotonic() < end:
        _wait(1)
        (kibibytes,) = re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
        sizes.append(int(kibibytes) * 1024)
    return sizes


def measure(directory: Path, fleet: Fleet, minutes: int) -> list[rows.Row]:
    """Watch a Prometheus for whole minutes, after the two that it needs to know every series."""
    with threaded(directory, sized.source(fleet.endpoints, METHODS), workers=2) as server:
        answers = Answers(server, fleet.endpoints)
        with serving(answers) as port:
            targets = [
                f"127.1.{number // 250}.{number % 250 + 1}:{port}" for number in range(fleet.instances)
            ]
            group = {"targets": targets, "labels": {"service": "sized"}}
            with scraper(directory, [group], INTERVAL) as prometheus:
                pid = prometheus.program.process.pid
                stop = threading.Event()
                renewal = threading.Thread(target=_renew, args=(answers, stop))
                renewal.start()
                try:
                    _wait(120)
                    before, busy, begin = appended(prometheus), processor_seconds(pid), time.monotonic()
                    memory = memory_of(pid, 60 * minutes)
                    after, end = appended(prometheus), processor_seconds(pid)
                    elapsed = time.monotonic() - begin
                    up = prometheus.value('count(up{job="app"} == 1)')
                    series = prometheus.status()["numSeries"]
                finally:
                    stop.set()
                    renewal.join()
    return [
        rows.Row("instances that are up", up, "", None, f"of {fleet.instances}"),
        row("series in memory", series, fleet.series, ""),
        row("samples a second", (after - before) / elapsed, fleet.samples, "/s"),
        row("memory on average: off", sum(memory) / len(memory) / 1e6, fleet.memory / 1e6, " MB"),
        rows.Row(
            "memory at most, against the limit that is advised",
            max(memory) / 2**20,
            "MiB",
            fleet.memory_limit,
            f"{max(memory) / series:,.0f} bytes a series",
        ),
        rows.Row("processors", (end - busy) / elapsed, "", None, f"predicted {fleet.processors:.2f}"),
    ]


def row(name: str, measured: float, predicted: float, unit: str) -> rows.Row:
    """How far a prediction is off, in percent."""
    off = 100 * abs(measured - predicted) / predicted
    return rows.Row(
        f"{name}: off", off, "%", TOLERANCE, f"{measured:,.0f}{unit}, predicted {predicted:,.0f}{unit}"
    )


def _renew(answers: Answers, stop: threading.Event) -> None:
    while not stop.wait(INTERVAL / 2):
        answers.renew()


def _wait(seconds: float) -> None:
    threading.Event().wait(seconds)


def main() -> None:
    """Save the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("instances", 1000), ("endpoints", 8), ("minutes", 3)):
        parser.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")
    options = parser.parse_args()
    fleet = Fleet(options.endpoints, METHODS, STATUSES, options.instances, 1, 0, INTERVAL, 35.0)
    with tempfile.TemporaryDirectory() as directory:
        rows.save("fleet", measure(Path(directory), fleet, options.minutes))


if __name__ == "__main__":
    main()
