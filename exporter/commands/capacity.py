"""`python -m exporter capacity`: what a Prometheus needs for services of a certain size.

Series are counted as the exporter and the rules make them, with native histograms. What a series costs was
measured (deploy/capacity.md). Every endpoint is taken to answer each method with each status, 200 and 500
among them: the first 50 have these from the start.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from typing import Any

BUCKETS = 15  # of a duration: those of EXPORTER_BUCKETS, and +Inf
HISTOGRAM = BUCKETS + 3  # with count, sum and the native histogram
SIZES = 20  # two histograms of eight buckets: of requests and of responses
TARGET = 5  # up, scrape_duration_seconds and their like, which Prometheus adds
OBJECTIVES = 96  # three of them, in all their windows
MINUTE = 60.0  # objectives and tables by instance and endpoint are recorded once a minute

BYTES_IN_MEMORY = 3_000  # of a series, with rules and dashboards; 2,000 without
BYTES_ON_DISK = 2.5  # of a sample
SECONDS_A_SAMPLE = 2e-6
SECONDS_A_BUCKET = 1.5e-6 * 15  # for all rules, at each evaluation
ROOM = 1.25  # of a limit, above what it is the limit of


@dataclass(frozen=True, slots=True)
class Fleet:
    """Services of one size, and how a Prometheus looks after them."""

    endpoints: int
    methods: int
    statuses: int
    instances: int
    services: int
    deploys: int
    interval: float
    days: float

    @property
    def durations(self) -> int:
        """Label sets of the duration at an instance; /static has two statuses of its own."""
        return self.endpoints * self.methods * self.statuses + 2

    @property
    def exposed(self) -> int:
        """Series that an instance exposes."""
        routes = self.endpoints * self.methods
        errors = routes * (self.statuses - 1)
        others = 2 * self.endpoints + self.methods * self.statuses + 75
        return HISTOGRAM * self.durations + SIZES * (routes + 1) + errors + others

    @property
    def recorded(self) -> int:
        """Series that the rules make for each instance."""
        return BUCKETS + 3 + self._by_endpoint

    @property
    def _by_endpoint(self) -> int:
        return 7 * (self.endpoints + 1)

    @property
    def of_service(self) -> int:
        """Series that the rules make for each service."""
        return (
            self.endpoints * self.statuses
            + 2
            + (BUCKETS + 5) * (self.endpoints + 1)
            + 6 * self.endpoints
            + OBJECTIVES
            + 29
        )

    @property
    def series(self) -> int:
        """Series in memory: those of an address that is gone stay for three hours."""
        return (
            self.instances * (1 + self.deploys) * (self.exposed + TARGET + self.recorded)
            + self.services * self.of_service
        )

    @property
    def samples(self) -> float:
        """Samples a second, those of rules included."""
        instance = (self.exposed + TARGET + self.recorded - self._by_endpoint) / self.interval
        instance += self._by_endpoint / MINUTE
        service = (self.of_service - OBJECTIVES) / self.interval + OBJECTIVES / MINUTE
        return self.instances * instance + self.services * service

    @property
    def memory(self) -> float:
        """Bytes of memory."""
        return self.series * BYTES_IN_MEMORY

    @property
    def disk(self) -> float:
        """Bytes on disk."""
        return self.samples * BYTES_ON_DISK * self.days * 86_400

    @property
    def processors(self) -> float:
        """Processors that are busy on average."""
        buckets = self.instances * self.durations * BUCKETS
        return self.samples * SECONDS_A_SAMPLE + buckets * SECONDS_A_BUCKET / self.interval

    @property
    def sample_limit(self) -> int:
        """The least `sample_limit` of the job, in whole thousands."""
        return math.ceil(self.exposed * ROOM / 1000) * 1000

    @property
    def memory_limit(self) -> int:
        """The least `mem_limit` of Prometheus, in MiB that compose takes; it needs some for itself."""
        return math.ceil(self.memory * ROOM / 2**20 / 128 + 1) * 128


def add_command(commands: Any) -> None:
    """Add `capacity` to the subcommands of an argument parser."""
    parser = commands.add_parser(
        "capacity", help="what Prometheus needs for services of a certain size", description=__doc__
    )
    for name, default, meaning in (
        ("endpoints", None, "endpoints of a service that are in use"),
        ("statuses", None, "statuses that an endpoint answers, 200 and 500 among them; 3 with 404"),
        ("instances", None, "instances of all services together"),
        ("methods", 1, "methods of an endpoint"),
        ("services", 1, "services that they belong to"),
    ):
        needed = default is None
        text = meaning if needed else f"{meaning} (default: {default})"
        lowest = 2 if name == "statuses" else 1
        parser.add_argument(f"--{name}", type=_number(lowest), default=default, required=needed, help=text)
    parser.add_argument(
        "--deploys",
        type=_number(0),
        default=0,
        help="deploys within three hours that give every instance a new address (default: 0)",
    )
    parser.add_argument("--interval", type=_positive, default=15.0, help="seconds from scrape to scrape (15)")
    parser.add_argument("--days", type=_positive, default=35.0, help="days that samples are kept (35)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the table; the exit status is 2 where there are fewer instances than services."""
    if options.instances < options.services:
        sys.stderr.write(
            f"capacity: --instances {options.instances} for --services {options.services}: "
            "each service has one at least\n"
        )
        return 2
    names = Fleet.__dataclass_fields__
    sys.stdout.write(table(Fleet(**{name: getattr(options, name) for name in names})))
    return 0


def table(fleet: Fleet) -> str:
    """What the fleet needs, for people."""
    rows = (
        ("series of an instance", f"{fleet.exposed:,}", f"sample_limit: {fleet.sample_limit} or more"),
        ("recorded for it", f"{fleet.recorded:,}", ""),
        ("recorded for a service", f"{fleet.of_service:,}", ""),
        ("series in memory", f"{fleet.series:,}", ""),
        ("samples a second", f"{fleet.samples:,.0f}", ""),
        ("memory of Prometheus", f"{fleet.memory / 1e9:.2f} GB", f"mem_limit: {fleet.memory_limit}m or more"),
        ("processors", f"{fleet.processors:.2f}", "on average, with rules"),
        ("disk", f"{fleet.disk / 1e9:,.0f} GB", f"for {fleet.days:g} days"),
    )
    return "".join(f"{name:<24}{value:>14}   {remark}".rstrip() + "\n" for name, value, remark in rows)


def _number(lowest: int) -> Any:
    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from {lowest} on")
        return int(text)

    return whole


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number above 0")
    return number
