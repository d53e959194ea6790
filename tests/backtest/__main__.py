"""`python -m tests.backtest`: what a normal fortnight raises, and how soon incidents are told."""

import argparse
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from tests.backtest.history import Service
from tests.backtest.play import Timeline, play, told
from tests.backtest.scenes import BEFORE, DURATION, FORTNIGHT, INCIDENTS, Incident, fortnight, incidents

TIMES = 2  # an incident is told so often at most

# The objectives whose alerts are played side by side; "" is for alerts of none. A rule costs nearly the same
# for one service as for many, so the rules are shared out and not the services. The dearer share comes first.
SHARES = ({"latency", "tail"}, {"", "errors"})


def main() -> int:
    """Print both tables; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.backtest", description=__doc__)
    parser.add_argument(
        "--seed", type=int, default=14, help="of the chance in the history; default: %(default)s"
    )
    parser.add_argument("--only", default="", help="only services whose name has this in it", metavar="WORD")
    arguments = parser.parse_args()
    start = time.monotonic()

    def wanted(services: Iterable[Service]) -> list[Service]:
        return [service for service in services if arguments.only in service.name]

    histories = (
        (wanted(fortnight(arguments.seed)), 0, int(FORTNIGHT / 60)),
        (wanted(incidents()), 60, int((BEFORE + DURATION) / 60)),
    )
    if not any(services for services, *_ in histories):
        parser.error(f"no service has {arguments.only} in its name")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = []
        for services, first, last in histories:
            series = [line for service in services for line in service.series(arguments.seed)]
            parts.append([pool.submit(play, series, first, last, share) for share in SHARES])
        normal, planted = (_merge(part.result() for part in history) for history in parts)
    misses = _false("a normal fortnight of four services", normal)
    before = {minute: alerts for minute, alerts in planted.items() if minute < BEFORE / 60}
    misses += _false("the day before the incidents", before)
    print("| incident | requests a second | told after | by | later | messages |")
    print("| --- | ---: | ---: | --- | --- | ---: |")
    for incident in INCIDENTS:
        for level, limit in (("high", incident.high), ("low", incident.low)):
            if arguments.only in f"{incident.name}-{level}":
                row, good = _row(planted, incident, level, limit)
                misses += not good
                print(row + ("" if good else f" **goal: {limit} min, told {TIMES} times at most**"))
    verdict = f"{misses} goals are missed" if misses else "All goals are met"
    print(f"\n{verdict}, in {time.monotonic() - start:.0f} s, with seed {arguments.seed}.")
    return int(misses > 0)


def _merge(timelines: Iterable[Timeline]) -> Timeline:
    whole: Timeline = {}
    for timeline in timelines:
        for minute, alerts in timeline.items():
            whole.setdefault(minute, []).extend(alerts)
    return whole


def _false(when: str, timeline: Timeline) -> int:
    """Print and count the messages about services with nothing wrong."""
    messages = [
        f"{alert} of {service} at minute {minute}"
        for service, about in told(timeline).items()
        for minute, alert in about
    ]
    print(f"False alarms above info in {when}: {len(messages)}. {', '.join(messages)}\n")
    return len(messages)


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
    others = ", ".join(f"{name} after {when - begin} min" for when, name in later)
    good = minute - begin <= limit and len(messages) <= TIMES
    return f"| {incident.what} | {rate} | {minute - begin} min | {alert} | {others} | {len(messages)} |", good


if __name__ == "__main__":
    sys.exit(main())
