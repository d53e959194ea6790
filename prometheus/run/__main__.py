"""`make run`: the whole stack as local processes, checked before it starts and stopped as a whole.

Settings, as environment variables: APP_PORT, PROMETHEUS_PORT, ALERTMANAGER_PORT, BLACKBOX_PORT, NODE_PORT,
GRAFANA_PORT, PORT_OFFSET (added to the defaults of these; 0); RUN_DIR (data and logs; .run); TARGETS_DIR
(what to scrape; prometheus/targets); TRAFFIC_USERS (simulated customers; 5, and 0 for none); TIME_SCALE
(divides every duration of the rules; 1); and ALERT_RECEIVER with the settings of each receiver, see
prometheus/alertmanager/start.sh.
"""

import argparse
import contextlib
import os
import signal
import sys
import time

from prometheus.run import mail, ports, preparation, targets
from prometheus.run.children import ChildError, Children, Part
from prometheus.run.parts import TITLES, api_only, processes, request_log, traffic
from prometheus.run.plan import TOP, Plan, PlanError
from prometheus.run.scrapes import Scrapes
from prometheus.tools.packages import GRAFANA, REQUIRED
from prometheus.tools.toolbox import fill, gave_up

# The most seconds until every part answers, and then until every target has been scraped.
PATIENCE = 60.0


def get_tools() -> bool:
    """Get the programs that the stack needs, and tell whether Grafana is there too.

    Raises:
        PlanError: a program that the stack needs cannot be installed.
    """
    for report in fill(REQUIRED).values():
        raise PlanError(report)
    return not gave_up(GRAFANA) and not fill([GRAFANA])


class Signals:
    """Sets `stop` once Ctrl-C, SIGTERM or a closing terminal asks the run to stop."""

    def __init__(self) -> None:
        self.stop = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._receive)

    def _receive(self, *_: object) -> None:
        self.stop = True


def run(plan: Plan, since: float) -> None:
    """Check everything, start it, and run until a signal comes.

    `since` is the time.time() at which the user began to wait.

    Raises:
        PlanError: the stack cannot start like this; nothing has been started.
        ChildError: a part ended; everything has been stopped.
    """
    preparation.check_settings()
    names = targets.part_names(plan.targets) | {"app", "prometheus", "alertmanager"}
    with preparation.claim(plan, names):
        ports.check(plan, names - {"grafana"})
        if get_tools():
            names.add("grafana")
            ports.check(plan, {"grafana"})
            plan.data("grafana").mkdir(parents=True, exist_ok=True)
        else:
            names.discard("grafana")
        preparation.copy_configuration(plan, grafana="grafana" in names)
        scrapes = Scrapes(plan, *targets.localize(plan, names))
        warnings = targets.check_jobs(plan)
        preparation.render_alertmanager(plan)
        preparation.check_configuration(plan)
        warnings += mail.complaints(plan.alertmanager)
        workers = preparation.worker_directory(plan)
        signals = Signals()
        children = Children(plan.logs, TOP, lambda: signals.stop, [workers])
        try:
            for warning in warnings:
                print(f"warning: {warning}")
            supervise(plan, children, processes(plan, names, workers), scrapes, since)
        finally:
            # The terminal may be gone, and the parts must stop all the same.
            with contextlib.suppress(OSError):
                print("stopping", flush=True)
            children.stop()
            with contextlib.suppress(OSError):
                print("stopped", flush=True)


def supervise(plan: Plan, children: Children, parts: list[Part], scrapes: Scrapes, since: float) -> None:
    """Start all parts, wait for their health, print their addresses, and watch until a signal comes."""
    print(f"starting {', '.join(part.name for part in parts)}", flush=True)
    for part in parts:
        children.start(part)
    if not children.wait(children.healthy(parts), PATIENCE):
        return
    if plan.users:
        children.start(traffic(plan))
    print(f"waiting until Prometheus has scraped all {scrapes.count} targets", flush=True)
    if not children.wait(scrapes.complaint, PATIENCE):
        return
    up = scrapes.count - len(scrapes.down)
    everything = f"all {up} targets too" if not scrapes.down else f"but only {up} of {scrapes.count} targets"
    print(f"Up after {time.time() - since:.0f} s, {everything}:")
    for complaint in scrapes.down.values():
        print(f"  DOWN: {complaint}")
    for complaint in scrapes.unseen():
        print(f"  UNSEEN: {complaint}")
    for part in parts:
        pages = "  (its API; Debian's build has no pages)" if api_only(part.name) else ""
        print(f"  {TITLES[part.name]:18} {plan.url(part.name)}{pages}")
    if all(part.name != "grafana" for part in parts):
        print("  (no Grafana: neither on the PATH nor to be downloaded, see .tools/grafana.unavailable)")
    print(f"  (no Loki: it comes with compose; the app logs its requests to {request_log(plan)})")
    print(f"Logs are in {plan.logs}. Ctrl-C stops everything.", flush=True)
    children.watch()


def parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    result = argparse.ArgumentParser(prog="python -m prometheus.run", description=__doc__.splitlines()[0])
    result.add_argument(
        "--since",
        type=float,
        default=time.time(),
        metavar="SECONDS",
        help="the Unix time from which the start is timed: that of `make run`; default: now",
    )
    result.add_argument("--stop", action="store_true", help="end the run that is there, or what it has left")
    return result


def main() -> int:
    """Run the stack; return 0 after a signal, 1 with a line on stderr if something is wrong."""
    arguments = parser().parse_args()
    # Only the app needs a worker directory, and each run makes a new one for it.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    try:
        if arguments.stop:
            print(preparation.stop(Plan.load()))
            return 0
        run(Plan.load(), arguments.since)
    except KeyboardInterrupt:
        return 130
    except (PlanError, ChildError) as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
