"""Numbers stay exact while workers are recycled and killed: what clients were answered is what is counted."""

from __future__ import annotations

import http.client
import itertools
import os
import random
import signal
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.rig.server import Server, serving

CLIENTS = 8
REQUEST = b"GET /orders/%d HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
COUNT = "flask_http_request_duration_seconds_count"
SCRAPE_INTERVAL = 0.1


@dataclass
class Load:
    """Clients that ask until so many requests have been answered, and what became of them."""

    master: Server
    wanted: int
    complete: int = 0
    broken: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        threads = [threading.Thread(target=self._client) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _client(self) -> None:
        for number in itertools.count():
            complete = self._ask(number % 50)
            with self._lock:
                self.complete += complete
                self.broken += not complete
                if self.complete >= self.wanted:
                    return

    def _ask(self, number: int) -> bool:
        """Whether a whole answer came back."""
        try:
            with socket.create_connection(("127.0.0.1", self.master.port), timeout=60) as connection:
                connection.sendall(REQUEST % number)
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
        except OSError:
            return False
        head, _, body = answer.partition(b"\r\n\r\n")
        return head.startswith(b"HTTP/1.1 200 ") and b"Content-Length: %d\r\n" % len(body) in head


class Scraper(threading.Thread):
    """Scrapes ten times a second, and notes every series of a counter or histogram that fell or vanished."""

    def __init__(self, master: Server) -> None:
        super().__init__()
        self.stop = threading.Event()
        self.scrapes = 0
        self.faults: list[str] = []
        self.last: dict[str, float] = {}
        self._master = master

    def run(self) -> None:
        due = time.monotonic()
        while not self.stop.wait(max(due - time.monotonic(), 0)):
            due += SCRAPE_INTERVAL
            try:
                answer = self._master.get("/metrics")
            except (OSError, http.client.HTTPException):
                continue  # the worker that was asked has been killed
            assert answer.status == 200, answer.text
            self.take(answer.text)

    def take(self, body: str) -> None:
        self.scrapes += 1
        now = rising(body)
        for series, before in self.last.items():
            if now.get(series, -1.0) < before:
                self.faults.append(f"scrape {self.scrapes}: {series} from {before!r} to {now.get(series)!r}")
        self.last = now


def rising(body: str) -> dict[str, float]:
    """The samples that may never fall: all of counters and histograms."""
    found, kind = {}, ""
    for line in body.splitlines():
        if line.startswith("# TYPE"):
            kind = line.rpartition(" ")[2]
        elif not line.startswith("#") and kind in ("counter", "histogram"):
            series, _, value = line.rpartition(" ")
            found[series] = float(value)
    return found


def kill_workers(load: Load, every: int, stop: threading.Event, killed: list[int]) -> None:
    """Kill a child of the master at random after so many answers, again and again."""
    master = load.master.process.pid
    children = Path(f"/proc/{master}/task/{master}/children")
    while not stop.wait(0.01):
        pids = children.read_text().split()
        if pids and load.complete >= (len(killed) + 1) * every:
            with suppress(ProcessLookupError):  # it may have ended since, by --max-requests
                os.kill(pid := int(random.choice(pids)), signal.SIGKILL)
                killed.append(pid)


def counts_exactly(directory: Path, requests: int, every: int) -> None:
    options = ["--max-requests", "200", "-k", "gthread", "--threads", "2"]
    with serving(directory, *options, workers=4) as master:
        stop, killed = threading.Event(), list[int]()
        scraper, load = Scraper(master), Load(master, requests)
        killer = threading.Thread(target=kill_workers, args=(load, every, stop, killed))
        started = time.monotonic()
        killer.start()
        scraper.start()
        load.run()
        seconds = time.monotonic() - started
        stop.set()
        scraper.stop.set()
        killer.join()
        scraper.join()
        answer = master.get("/metrics")
        scraper.take(answer.text)
        counted = sum(value for series, value in rising(answer.text).items() if series.startswith(COUNT))
        print(
            f"{load.complete} answers, {load.broken} broken off, {len(killed)} workers killed, "
            f"counted {counted:.0f}, {scraper.scrapes} scrapes, {seconds:.0f} s"
        )

        assert answer.status == 200
        assert killed
        assert load.complete <= counted <= load.complete + load.broken
        assert load.broken <= CLIENTS * (len(killed) + 1)
        assert scraper.faults == []


def test_killed_workers_leave_exact_numbers(tmp_path: Path) -> None:
    """Workers are recycled after 200 requests and killed after each 150: nothing lost, doubled or falling."""
    counts_exactly(tmp_path, 1_500, 150)


@pytest.mark.soak
def test_killed_workers_leave_exact_numbers_for_long(tmp_path: Path) -> None:
    """100,000 requests and a worker killed after each 500."""
    counts_exactly(tmp_path, 100_000, 500)
