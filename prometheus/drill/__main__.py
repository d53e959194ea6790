"""`python -m prometheus.drill`: fire every alert for real in a second stack.

The second stack has ports and a directory of its own, and the shipped rules and configurations with every
duration divided by 60. An alert passes when it reached the drill's receiver with its labels and links that
lead somewhere, and when its end did too. That Alertmanager is gone is told by the dead-man's silence.

`--live` sends one test alert through the receiver of the deployment that is running.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from prometheus.drill.faults import Expected, faults
from prometheus.drill.live import LiveError, live
from prometheus.drill.stack import Stack
from prometheus.drill.watch import Course, Drill, Watch
from prometheus.run.children import ChildError
from prometheus.run.plan import PlanError
from prometheus.tools.packages import REQUIRED
from prometheus.tools.toolbox import fill

GONE = "MonitoringAlertmanagerGone"

SETTLED = 15.0  # seconds before the first fault, in which the traces of starting go
SILENCE = 5.0  # seconds without the dead-man's switch, which comes every second here
PATIENCE = 60.0  # seconds for Alertmanager's absence to be noticed, and for its return


def drill(stack: Stack, names: list[str]) -> list[tuple[str, Course]]:
    """Break everything, watch, and mend it: the faults and what became of their alerts.

    With `names`, only the faults that raise these alerts.
    """
    watch = Watch(stack)
    drills = {
        fault.what: Drill.of(fault)
        for fault in faults()
        if not names or any(expected.alert in names for expected in fault.expected)
    }
    for one in drills.values():
        if one.fault.before:
            one.fault.before(stack)
    deadline = time.time() + SETTLED
    while time.time() < deadline:
        watch.look([])
        time.sleep(0.2)
    watch.others.clear()
    while not all(one.over for one in drills.values()):
        for one in drills.values():
            if not one.over and (one.fault.after not in drills or drills[one.fault.after].over):
                one.step(stack)
        watch.look([course for one in drills.values() if one.caused for course in one.courses])
        time.sleep(0.2)
    rows = [(one.fault.what, course) for one in drills.values() for course in one.courses]
    if watch.others:
        print(f"Not asked for, but came too: {', '.join(sorted(watch.others))}\n")
    if not names or GONE in names:
        rows.append(("Alertmanager is stopped", alertmanager_gone(stack, watch)))
    return rows


def alertmanager_gone(stack: Stack, watch: Watch) -> Course:
    """Nobody delivers this alert: the silence of the switch arrives, and its next beat is the end."""
    course = Course(Expected(GONE, {"severity": "critical"}), caused=time.time())

    def beats() -> list[float]:
        return [post.time for post in stack.receiver.posts if post.path == "/heartbeat"]

    stack.children.end("alertmanager")
    while time.time() - course.caused < PATIENCE and not (course.fired and course.arrived):
        watch.look([course])
        if course.arrived is None and time.time() - beats()[-1] > SILENCE:
            course.arrived = time.time()
        time.sleep(0.2)
    if course.fired is None:
        course.complaints.append("does not fire")
    course.mended = time.time()
    stack.children.start(stack.parts["alertmanager"])
    while time.time() - course.mended < PATIENCE and course.resolved is None:
        course.resolved = next((beat for beat in beats() if beat > course.mended), None)
        time.sleep(0.2)
    return course


def table(rows: list[tuple[str, Course]]) -> str:
    """The rows as Markdown, with seconds from cause to firing and arrival, and from repair to resolution."""

    def seconds(start: float | None, end: float | None) -> str:
        return "" if start is None or end is None else f"{max(0.0, end - start):.1f}"

    lines = [
        "| alert | labels | fault | fires | arrives | resolved | |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for what, course in rows:
        labels = " ".join(value for label, value in course.expected.labels.items() if label != "job")
        missing = "" if course.arrived else "did not arrive" if course.mended else "did not begin"
        end = "" if course.ended or missing else "was not resolved"
        verdict = (
            "pass" if course.passed else "FAIL " + "; ".join(filter(None, [missing, end, *course.complaints]))
        )
        times = (
            seconds(course.caused, course.fired),
            seconds(course.caused, course.arrived),
            seconds(course.mended, course.resolved),
        )
        lines.append(f"| {course.expected.alert} | {labels} | {what} | {' | '.join(times)} | {verdict} |")
    return "\n".join(lines)


def main() -> int:
    """Run the drill; 0 if every alert passed."""
    parser = argparse.ArgumentParser(prog="python -m prometheus.drill", description=__doc__.splitlines()[0])
    parser.add_argument("alerts", nargs="*", metavar="alert", help="only what raises these; default: all")
    parser.add_argument("--live", action="store_true", help="send one test alert through the real receiver")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        asked = parser.parse_args()
        known = {GONE, *(expected.alert for fault in faults() for expected in fault.expected)}
        unknown = sorted(set(asked.alerts) - known)
        if unknown:
            parser.error(f"the drill has no {', '.join(unknown)}")
        if asked.live:
            print(live(os.environ.get("ALERTMANAGER_URL", "http://127.0.0.1:9093")))
            return 0
        for report in fill(REQUIRED).values():
            raise PlanError(report)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="drill-") as directory, Stack(Path(directory)) as stack:
            rows = drill(stack, asked.alerts)
    except (PlanError, ChildError, LiveError) as error:
        print(f"make drill: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    passed = sum(course.passed for _, course in rows)
    print(f"{table(rows)}\n\n{passed} of {len(rows)} pass, in {time.monotonic() - began:.0f} s.")
    return int(passed < len(rows))


if __name__ == "__main__":
    sys.exit(main())
