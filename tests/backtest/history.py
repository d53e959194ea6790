"""Synthetic history: services with customers, nights, deploys and faults, as scrapes would show them."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

STEP = 30  # seconds between two scrapes
HOUR = 3600.0
DAY = 24 * HOUR

BOUNDS = (0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0)
MEDIAN, SPREAD = 0.05, 0.9  # of the log-normal duration: 5 % take longer than 0.22 s, 0.5 % longer than 0.5 s

# Endpoint → its share of the traffic.
ENDPOINTS = {"/": 0.97, "/pay": 0.03}


@dataclass(slots=True)
class Conditions:
    """What a service goes through, for each step: requests a second, and what becomes of them."""

    rate: Values
    errors: Values  # share of requests that fail with 500
    refusals: Values  # share of requests that fail with 503
    pay_errors: Values  # share of the requests to /pay that fail besides
    burst: Values  # so many requests to / besides, which fail with 500
    refused: Values  # the same with 503
    slowness: Values  # factor on every duration
    timeouts: Values  # share of requests that take 10 seconds
    stragglers: Values  # share of requests that take 0.8 seconds

    @classmethod
    def of(cls, rate: Values, errors: float = 0.0002, stragglers: float = 0.0) -> "Conditions":
        """Return the conditions of a service that is well."""
        zero = np.zeros_like(rate)
        return cls(
            rate=rate,
            errors=zero + errors,
            refusals=zero.copy(),
            pay_errors=zero.copy(),
            burst=zero.copy(),
            refused=zero.copy(),
            slowness=zero + 1,
            timeouts=zero.copy(),
            stragglers=zero + stragglers,
        )


@dataclass(slots=True)
class Service:
    """One service: its conditions, and how each of its instances fares."""

    name: str
    conditions: Conditions
    instances: int = 1
    restarts: dict[int, list[int]] = field(default_factory=dict)  # instance → steps at which it begins anew
    down: dict[int, list[range]] = field(default_factory=dict)  # instance → steps at which it is not scraped
    broken: set[tuple[int, int]] = field(default_factory=set)  # (instance, step) in which all requests fail
    versions: dict[int, str] = field(default_factory=lambda: {0: "1.0"})  # step → version from then on
    types: dict[int, str] = field(default_factory=lambda: {0: "ValueError"})  # step → error type from then on

    def series(self, seed: int) -> Iterator[tuple[str, str]]:
        """Yield name with labels, and values in promtool's notation, of all series of the service."""
        random = np.random.default_rng([seed, *self.name.encode()])
        for instance in range(self.instances):
            yield from self._instance(instance, random)

    def _instance(self, instance: int, random: np.random.Generator) -> Iterator[tuple[str, str]]:
        steps = len(self.conditions.rate)
        labels = f'job="app", service="{self.name}", instance="{self.name}-{instance}:8000"'
        lost = {step for steps in self.down.get(instance, []) for step in steps}
        restarts = sorted(self.restarts.get(instance, []))
        write = _Writer(steps, lost, restarts).text
        yield f"up{{{labels}}}", " ".join("0" if step in lost else "1" for step in range(steps))
        broken = np.array([(instance, step) in self.broken for step in range(steps)])
        errors = np.zeros(steps)
        for endpoint, share in ENDPOINTS.items():
            count = random.poisson(self.conditions.rate * STEP * share / self.instances).astype(float)
            failures = np.where(broken, 1, self.conditions.errors)
            if endpoint == "/pay":
                failures = np.maximum(failures, self.conditions.pay_errors)
            bad = random.binomial(count.astype(int), np.minimum(failures, 1)).astype(float)
            refused = random.binomial((count - bad).astype(int), self.conditions.refusals).astype(float)
            if endpoint == "/":
                bad, refused = bad + self.conditions.burst, refused + self.conditions.refused
                count = count + self.conditions.burst + self.conditions.refused
            errors += bad
            own = f'{labels}, method="GET", url_rule="{endpoint}"'
            name = "flask_http_request_duration_seconds"
            yield f'{name}_count{{{own}, status="200"}}', write(count - bad - refused)
            yield f'{name}_count{{{own}, status="500"}}', write(bad)
            if refused.any():
                yield f'{name}_count{{{own}, status="503"}}', write(refused, late=True)
            for bound, below in self._buckets(count, random):
                yield f'{name}_bucket{{{own}, status="200", le="{bound}"}}', write(below)
            yield from self._types(endpoint, own, bad, write)
        yield f'flask_log_messages_total{{{labels}, level="ERROR"}}', write(errors)
        cpu = np.full(steps, 0.5)
        yield f"flask_worker_cpu_seconds_total{{{labels}}}", write(cpu)
        starts = np.zeros(steps)
        starts[[0, *restarts]] = 2
        yield f"flask_worker_starts_total{{{labels}}}", write(starts)
        begins = [*sorted(self.versions), steps]
        for begin, end in pairwise(begins):
            present = [step >= begin and step < end and step not in lost for step in range(steps)]
            text = " ".join(
                "1" if here else "stale" if step == end else "_" for step, here in enumerate(present)
            )
            yield f'flask_app_info{{{labels}, version="{self.versions[begin]}"}}', text

    def _buckets(self, count: Values, random: np.random.Generator) -> Iterator[tuple[str, Values]]:
        rest = count.astype(int)
        below = np.zeros_like(count)
        previous = np.zeros_like(count)
        for bound in BOUNDS:
            share = self._within(bound)
            here = random.binomial(rest, np.clip((share - previous) / np.maximum(1 - previous, 1e-12), 0, 1))
            rest, previous = rest - here, share
            below = below + here
            yield str(bound), below
        yield "+Inf", count

    def _within(self, bound: float) -> Values:
        c = self.conditions
        typical = np.array([_normal(math.log(bound / (MEDIAN * f)) / SPREAD) for f in np.unique(c.slowness)])
        normal = typical[np.searchsorted(np.unique(c.slowness), c.slowness)]
        return np.asarray(
            normal * (1 - c.timeouts - c.stragglers)
            + c.stragglers * (bound >= 1)
            + c.timeouts * (bound >= 10)
        )

    def _types(
        self, endpoint: str, own: str, bad: Values, write: "Callable[..., str]"
    ) -> Iterator[tuple[str, str]]:
        labels = own.partition(", method")[0]
        begins = [*sorted(self.types), len(bad)]
        for number, (begin, end) in enumerate(pairwise(begins)):
            mine = np.zeros_like(bad)
            mine[begin:end] = bad[begin:end]
            if mine.any():
                kind, text = f'error_type="{self.types[begin]}"', write(mine, late=True)
                yield f'flask_http_request_errors_total{{{own}, status="500", {kind}}}', text
                group = f'{kind}, error_group="{endpoint}-{number}", where="app:{endpoint}"'
                yield f"flask_http_request_error_group_total{{{labels}, {group}}}", text


@dataclass(frozen=True, slots=True)
class _Writer:
    steps: int
    lost: set[int]
    restarts: list[int]

    def text(self, amounts: Values, late: bool = False) -> str:
        """Write a counter of amounts, begun anew at restarts; a `late` one appears when it counts."""
        total = np.zeros(self.steps)
        for begin, end in zip([0, *self.restarts], [*self.restarts, self.steps], strict=True):
            total[begin:end] = np.cumsum(amounts[begin:end])
        parts = []
        absent = True
        for step, value in enumerate(total):
            if step in self.lost or (late and value == 0):
                parts.append("_" if absent else "stale")
                absent = True
            else:
                parts.append(f"{value:.10g}")
                absent = False
        return " ".join(parts)


def _normal(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def clock(seconds: float) -> Values:
    """Return the times of all scrapes of so many seconds."""
    return np.arange(0, seconds, STEP, dtype=float)


def day_and_night(time: Values, peak: float, low: float = 0.1, noon: float = 14.0) -> Values:
    """Return requests a second that rise and fall over the day, down to `low` times the peak."""
    wave = 0.5 + 0.5 * np.cos(2 * math.pi * (time / HOUR - noon) / 24)
    return np.asarray(peak * (low + (1 - low) * wave))
