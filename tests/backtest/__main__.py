"""`python -m tests.backtest`: what a normal fortnight raises, and how soon incidents are told."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tests.backtest.play import Timeline, play, told
from tests.backtest.scenes import BEFORE, DURATION, FORTNIGHT, INCIDENTS, Incident, fortnight, incidents

SEED = 14
TIMES = 2  # an incident is told so often at most


def main() -> int:
    """Print both tables; return 1 if a goal is missed."""
    start = time.monotonic()
    with ThreadPoolExecutor() as pool:
        normal, planted = pool.submit(_fortnight), pool.submit(_incidents)
        alarms, timeline = normal.result(), planted.result()
    misses = _false("a normal fortnight of four services", alarms)
    before = {minute: alerts for minute, alerts in timeline.items() if minute < BEFORE / 60}
    misses += _false("the day before the incidents", before)
    print("| incident | requests a second | told after | by | later | episodes |")
    print("| --- | ---: | ---: | --- | --- | ---: |")
    for incident in INCIDENTS:
        for level, limit in (("high", incident.high), ("low", incident.low)):
            row, good = _row(timeline, incident, level, limit)
            misses += not good
            print(row + ("" if good else f" **goal: {limit} min, told {TIMES} times at most**"))
    verdict = f"{misses} goals are missed" if misses else "All goals are met"
    print(f"\n{verdict}, in {time.monotonic() - start:.0f} s.")
    return int(misses > 0)


def _false(when: str, timeline: Timeline) -> int:
    """Print and count the messages about services with nothing wrong."""
    messages = [
        f"{alert} of {service} at minute {minute}"
        for service, about in told(timeline).items()
        for minute, alert in about
    ]
    print(f"False alarms above info in {when}: {len(messages)}. {', '.join(messages)}\n")
    return len(messages)


def _fortnight() -> Timeline:
    random = np.random.default_rng(SEED)
    series = [line for service in fortnight(random) for line in service.series(random)]
    return play(series, 0, int(FORTNIGHT / 60))


def _incidents() -> Timeline:
    random = np.random.default_rng(SEED)
    series = [line for service in incidents() for line in service.series(random)]
    return play(series, 60, int((BEFORE + DURATION) / 60))


def _row(timeline: Timeline, incident: Incident, level: str, limit: int) -> tuple[str, bool]:
    service, begin = f"{incident.name}-{level}", int(BEFORE / 60)
    mine = {
        minute: [alert for alert in alerts if alert.get("service") == service]
        for minute, alerts in timeline.items()
        if minute >= begin
    }
    messages = told(mine).get(service, [])
    rate = {"high": "6", "low": "0.3"}[level]
    if incident.info:
        firing = [
            (minute, alert["alertname"])
            for minute in sorted(mine)
            for alert in mine[minute]
            if alert["severity"] == "info"
        ]
        messages = firing[:1] + messages
    if not messages:
        return f"| {incident.what} | {rate} | **not told** | | | |", False
    (minute, alert), *later = messages
    others = ", ".join(f"{name} {when - begin}" for when, name in later)
    good = minute - begin <= limit and len(messages) <= TIMES
    return f"| {incident.what} | {rate} | {minute - begin} min | {alert} | {others} | {len(messages)} |", good


if __name__ == "__main__":
    sys.exit(main())
