"""What is played: a normal fortnight, in which nobody is to be told, and one service for each incident."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tests.backtest.history import DAY, HOUR, STEP, Conditions, Service, Values, clock, day_and_night

FORTNIGHT = 14 * DAY
WINTER = 10 * DAY + 1 * HOUR  # a Sunday: the fortnight begins on a Thursday, and clocks go back an hour
BEFORE = 26 * HOUR  # of normal history before each incident
DURATION = 3 * HOUR
START = 10 * HOUR  # of the day at which the history begins, so that incidents begin at noon

HIGH, LOW = 6.0, 0.3  # requests a second at the peak

Cause: TypeAlias = Callable[[Service, Values], None]
"""Changes what a service goes through; the values are 1 during the incident."""


def step(seconds: float) -> int:
    """Number of the scrape at that time."""
    return int(seconds / STEP)


def fortnight(seed: int) -> list[Service]:
    """Four services with nothing wrong: deploys, closing time, an import, a load test, lost scrapes."""
    random = np.random.default_rng(seed)
    time = clock(FORTNIGHT)
    local = time - np.where(time > WINTER, HOUR, 0)
    hour, weekday = local / HOUR % 24, (np.floor(local / DAY) + 3) % 7
    test = (time > 5 * DAY + 15 * HOUR) & (time < 5 * DAY + 15.65 * HOUR)
    shop = Service("shop", Conditions.of(day_and_night(local, 7, 0.004) * np.where(test, 10, 1)), instances=2)
    for day in range(14):
        for instance in range(2):
            begin = step(day * DAY + 10 * HOUR + instance * 120)
            shop.down.setdefault(instance, []).append(range(begin, begin + 1))
            shop.restarts.setdefault(instance, []).append(begin + 1)
        shop.versions[step(day * DAY + 10 * HOUR) + 2] = f"1.{day + 1}"
    office = (hour >= 8) & (hour < 18) & (weekday < 5)
    intra = Service("intra", Conditions.of(np.where(office, 3.0, 18 / HOUR)))
    importing = (hour >= 2) & (hour < 3)
    batch = Service("batch", Conditions.of(np.where(importing, 4.0, 0.05), stragglers=0.02))
    tiny = Service("tiny", Conditions.of(np.full_like(time, 1 / 60), errors=0.002))
    services = [shop, intra, batch, tiny]
    for service in services:
        for instance in range(service.instances):
            chance = np.flatnonzero(random.random(len(time)) < 0.0005)
            service.down.setdefault(instance, []).extend(range(n, n + 1) for n in chance)
    return services


@dataclass(frozen=True, slots=True)
class Incident:
    """Something goes wrong at `BEFORE`; to be told within so many minutes at a high and at a low rate."""

    what: str
    name: str
    cause: Cause
    high: int
    low: int
    instances: int = 1
    info: bool = False


def _conditions(**shares: float) -> Cause:
    def cause(service: Service, during: Values) -> None:
        for name, share in shares.items():
            getattr(service.conditions, name)[during > 0] = share

    return cause


def _traffic(factor: float) -> Cause:
    def cause(service: Service, during: Values) -> None:
        service.conditions.rate[during > 0] *= factor

    return cause


def _outage(service: Service, during: Values) -> None:
    """All requests of ten minutes get a 503."""
    begin = int(np.argmax(during))
    service.conditions.refusals[begin : begin + step(600)] = 1.0


def _burst(kind: str) -> Cause:
    """All requests of 20 seconds fail: 120 or 6."""

    def cause(service: Service, during: Values) -> None:
        peak = HIGH if service.name.endswith("high") else LOW
        getattr(service.conditions, kind)[int(np.argmax(during))] = 20 * peak

    return cause


def _instance_fails(service: Service, during: Values) -> None:
    service.broken |= {(3, int(n)) for n in np.flatnonzero(during)}


def _instance_down(service: Service, during: Values) -> None:
    begin = int(np.argmax(during))
    service.down[3] = [range(begin, len(during))]


def _killed(service: Service, during: Values) -> None:
    """The container is killed every minute and is back within a scrape."""
    service.restarts[0] = list(range(int(np.argmax(during)), len(during), 60 // STEP))


def _flapping(service: Service, during: Values) -> None:
    service.down[0] = [range(n, n + 1) for n in range(int(np.argmax(during)) + 1, len(during), 2)]


def _new_type(service: Service, during: Values) -> None:
    begin = int(np.argmax(during))
    service.types[begin] = "TimeoutError"
    service.conditions.burst[begin] = 3


def _new_version(service: Service, during: Values) -> None:
    service.versions[int(np.argmax(during))] = "1.1"


INCIDENTS = (
    Incident("2 % errors from now on", "errors", _conditions(errors=0.02), 10, 60),
    Incident("one endpoint of 3 % of the traffic dead", "endpoint", _conditions(pay_errors=1.0), 10, 45),
    Incident("one of four instances fails", "instance", _instance_fails, 5, 5, instances=4),
    Incident("one of four instances is down", "down", _instance_down, 5, 5, instances=4),
    Incident("everything 503 for ten minutes", "outage", _outage, 3, 3),
    Incident("latency doubles", "doubled", _conditions(slowness=2.0), 15, 15),
    Incident("6 % take longer than half a second", "slower", _conditions(stragglers=0.06), 15, 15),
    Incident("a dependency times out: 1.5 % take 10 s", "timeouts", _conditions(timeouts=0.015), 20, 20),
    Incident("traffic -70 %", "fewer", _traffic(0.3), 30, 30),
    Incident("traffic gone", "gone", _traffic(0.0), 20, 20),
    Incident("errors for 20 s, 500", "burst", _burst("burst"), 5, 5),
    Incident("errors for 20 s, 503", "refused", _burst("refused"), 5, 5),
    Incident("the container is killed every minute", "killed", _killed, 15, 15),
    Incident("every second scrape fails", "flapping", _flapping, 15, 15),
    Incident("an error type never seen before", "type", _new_type, 5, 5, info=True),
    Incident("a version never seen before", "version", _new_version, 5, 5, info=True),
)


def incidents() -> list[Service]:
    """A service for each incident at a high and at a low rate, each after a day of normal history."""
    time = clock(BEFORE + DURATION)
    during = (time >= BEFORE).astype(float)
    services = []
    for incident in INCIDENTS:
        for level, peak in (("high", HIGH), ("low", LOW)):
            rate = day_and_night(time + START, peak)
            service = Service(f"{incident.name}-{level}", Conditions.of(rate), instances=incident.instances)
            incident.cause(service, during)
            services.append(service)
    return services
