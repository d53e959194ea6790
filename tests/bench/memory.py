"""The memory that a preloaded worker has for itself, beside the parent's.

    python -m tests.bench.memory

Two workers of gunicorn with 30 rules; what they share with the master and each other does not count. All
workers have answered requests, and then scrapes too.
"""

import http.client
import statistics
from collections.abc import Callable
from pathlib import Path

from tests.bench.rows import Row, save
from tests.bench.service import title
from tests.bench.throughput import WORKERS, serving
from tests.rig.memory import own
from tests.rig.network import free_ports

COMPARED = ("bare", "parent", "families", "everything")
RULES = 30
REQUESTS = 2000
SCRAPES = 60
MIB = 1 << 20

# The most that everything may need beyond the parent (MiB).
MORE = 2.0


def main() -> None:
    """Measure, print a table, write the file."""
    answered, scraped = {}, {}
    for kind in COMPARED:
        (port,) = free_ports(1)
        with serving(kind, port, "--preload", "--threads", "4", rules=RULES) as master:
            _get(port, (f"/rule/{number % RULES}/{number}" for number in range(REQUESTS)).__next__, REQUESTS)
            answered[kind] = _median(master)
            _get(port, lambda: "/metrics", SCRAPES)
            scraped[kind] = _median(master)
    save(
        "memory",
        [
            Row(
                f"{title(kind)}, beyond the parent",
                round((scraped[kind] - scraped["parent"]) / MIB, 1),
                "MiB",
                MORE if kind == "everything" else None,
                detail=f"{scraped[kind] / MIB:.1f} MiB; {answered[kind] / MIB:.1f} before the first scrape",
            )
            for kind in COMPARED
        ],
    )


def _get(port: int, path: Callable[[], str], times: int) -> None:
    for _ in range(times):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", path())
        connection.getresponse().read()
        connection.close()


def _median(master: int) -> float:
    workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    if len(workers) != WORKERS:
        raise SystemExit(f"{len(workers)} workers are there instead of {WORKERS}")
    return statistics.median(own(int(pid)) for pid in workers)


if __name__ == "__main__":
    main()
