"""`python -m prometheus.drill`: fire every alert for real in a second stack.

The second stack has ports and a directory of its own, and the shipped rules and configurations with every
duration divided by 60. An alert passes when it reaches the drill's receiver with its labels and with links
that lead somewhere, and when its end arrives too. The dead-man's switch has to come once a minute, a second
here; its silence shows the absence of Alertmanager.

`--live` sends one test alert through the receiver of the deployment that is running.
"""

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from prometheus.drill.faults import Alert, faults
from prometheus.drill.live import LiveError, live
from prometheus.drill.stack import Stack
from prometheus.drill.watch import SWITCH, Course, Drill, Watch
from prometheus.run.children import ChildError
from prometheus.run.plan import Plan, PlanError
from prometheus.tools.packages import REQUIRED
from prometheus.tools.toolbox import fill

ABSENCE = "MonitoringAlertmanagerGone"

SETTLING_TIME = 15.0  # seconds before the first fault, in which the traces of the start disappear
BEAT = 1.0  # seconds between two of the dead-man's switch: a minute
SILENCE = 5.0  # seconds without the switch
PATIENCE = 60.0  # seconds for Alertmanager's absence to be noticed, and for its return


def run(stack: Stack, names: list[str]) -> list[tuple[str, Course]]:
    """Cause all faults, watch, and mend them; return each fault with the course of each of its alerts.

    With `names`, cause only the faults that raise these alerts.
    """
    watch = Watch(stack)
    drills = {
        fault.name: Drill.of(fault)
        for fault in faults()
        if not names or any(alert.name in names for alert in fault.alerts)
    }
    for drill in drills.values():
        if drill.fault.before:
            drill.fault.before(stack)
    deadline = time.time() + SETTLING_TIME
    while time.time() < deadline:
        watch.look([])
        time.sleep(0.2)
    watch.strays.clear()
    while not all(drill.over for drill in drills.values()):
        for drill in drills.values():
            if not drill.over and (drill.fault.after not in drills or drills[drill.fault.after].over):
                drill.step(stack)
        watch.look([course for drill in drills.values() if drill.cause for course in drill.courses])
        time.sleep(0.2)
    rows = [(drill.fault.name, course) for drill in drills.values() for course in drill.courses]
    check_switch(stack, [course for _, course in rows if course.alert.name == SWITCH])
    if watch.strays:
        print(
            f"These alerts came too, though no fault was to raise them: {', '.join(sorted(watch.strays))}\n"
        )
    if not names or ABSENCE in names:
        rows.append(("Alertmanager is stopped", stop_alertmanager(stack, watch)))
    return rows


def check_switch(stack: Stack, courses: list[Course]) -> None:
    """Print how often the dead-man's switch came; complain in its courses if that is not once a minute."""
    every = statistics.median(later - earlier for earlier, later in pairwise(beats(stack)))
    print(f"The dead-man's switch came every {every:.2f} s (a minute is a second here).\n")
    if not 0.5 * BEAT < every < 1.5 * BEAT:
        for course in courses:
            course.complaints.append(f"comes every {every:.1f} s")


def beats(stack: Stack) -> list[float]:
    """Return the times at which the dead-man's switch arrived."""
    return [post.time for post in stack.receiver.posts if post.path == "/heartbeat"]


def stop_alertmanager(stack: Stack, watch: Watch) -> Course:
    """Stop Alertmanager, start it again, and return the course of the alert about it.

    Nobody can deliver that alert: it arrives as the silence of the switch and ends with the next beat.
    """
    course = Course(Alert(ABSENCE, {"severity": "critical"}), cause=time.time())
    stack.children.end("alertmanager")
    while time.time() - course.cause < PATIENCE and not (course.firing and course.arrival):
        watch.look([course])
        if course.arrival is None and time.time() - beats(stack)[-1] > SILENCE:
            course.arrival = time.time()
        time.sleep(0.2)
    if course.firing is None:
        course.complaints.append("does not fire")
    course.repair = time.time()
    stack.children.start(stack.parts["alertmanager"])
    while time.time() - course.repair < PATIENCE and course.resolution is None:
        course.resolution = next((beat for beat in beats(stack) if beat > course.repair), None)
        time.sleep(0.2)
    return course


def table(rows: list[tuple[str, Course]]) -> str:
    """Return the rows as Markdown, with seconds from cause to firing and arrival, and from repair to end."""

    def seconds(begin: float | None, end: float | None) -> str:
        return "" if begin is None or end is None else f"{max(0.0, end - begin):.1f}"

    lines = [
        "| alert | labels | fault | fires | arrives | resolved | |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for fault, course in rows:
        labels = " ".join(value for label, value in course.alert.labels.items() if label != "job")
        absence = "" if course.arrival else "did not arrive" if course.repair else "did not begin"
        end = "" if course.has_ended or absence else "was not resolved"
        verdict = (
            "pass"
            if course.has_passed
            else "FAIL " + "; ".join(filter(None, [absence, end, *course.complaints]))
        )
        times = (
            seconds(course.cause, course.firing),
            seconds(course.cause, course.arrival),
            seconds(course.repair, course.resolution),
        )
        lines.append(f"| {course.alert.name} | {labels} | {fault} | {' | '.join(times)} | {verdict} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    result = argparse.ArgumentParser(prog="python -m prometheus.drill", description=__doc__.splitlines()[0])
    result.add_argument("alerts", nargs="*", metavar="alert", help="only what raises these; default: all")
    result.add_argument("--live", action="store_true", help="send one test alert through the real receiver")
    return result


def main() -> int:
    """Run the drill; return 0 if every alert passed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    command = parser()
    try:
        arguments = command.parse_args()
        names = {ABSENCE, *(alert.name for fault in faults() for alert in fault.alerts)}
        strangers = sorted(set(arguments.alerts) - names)
        if strangers:
            command.error(f"the drill has no {', '.join(strangers)}: docs/reference/alerts.md has the names")
        if arguments.live and arguments.alerts:
            command.error("--live sends an alert of its own: leave out the names")
        if arguments.live:
            plan = Plan.load()
            url = os.environ.get("ALERTMANAGER_URL", plan.url("alertmanager"))
            print(live(url, plan.logs / "alertmanager.log"))
            return 0
        for report in fill(REQUIRED).values():
            raise PlanError(report)
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="drill-") as directory, Stack(Path(directory)) as stack:
            rows = run(stack, arguments.alerts)
    except (PlanError, ChildError, LiveError) as error:
        print(f"make drill: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    passes = sum(course.has_passed for _, course in rows)
    print(f"{table(rows)}\n\n{passes} of {len(rows)} pass, in {time.monotonic() - start:.0f} s.")
    return int(passes < len(rows))


if __name__ == "__main__":
    sys.exit(main())
