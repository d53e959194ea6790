"""`make run`: the whole stack as local processes, checked before it starts and stopped as a whole.

Settings, as environment variables: APP_PORT, PROMETHEUS_PORT, ALERTMANAGER_PORT, BLACKBOX_PORT, NODE_PORT,
GRAFANA_PORT; RUN_DIR (data and logs; .run); TARGETS_DIR (what to scrape; prometheus/targets); TRAFFIC_USERS
(simulated customers; 5, and 0 for none); TIME_SCALE (divides every duration of the rules; 1);
ALERT_RECEIVER and its like, as prometheus/alertmanager/start.sh says.
"""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from prometheus import prepare, scale, targets
from prometheus.children import ChildError, Children, Part, ask
from prometheus.packages import GRAFANA, REQUIRED
from prometheus.plan import TOP, Plan, PlanError
from prometheus.tools import executable, fill, gave_up

TITLES = {
    "app": "the service",
    "prometheus": "Prometheus",
    "alertmanager": "Alertmanager",
    "blackbox": "blackbox exporter",
    "node-exporter": "node exporter",
    "grafana": "Grafana",
}

# Seconds until every part answers, and then until every target has been scraped.
PATIENCE = 60.0


def get_tools() -> bool:
    """Make sure of the programs; whether there is a Grafana too.

    Raises:
        PlanError: a program that the stack needs cannot be had.
    """
    for report in fill(REQUIRED).values():
        raise PlanError(report)
    return not gave_up(GRAFANA) and not fill([GRAFANA])


@functools.cache
def api_only(name: str) -> bool:
    """Whether a part comes from Debian, which leaves out the web interfaces."""
    if name not in ("prometheus", "alertmanager"):
        return False
    answer = subprocess.run([executable(name), "--version"], capture_output=True, text=True, check=True)
    return "debian" in answer.stdout + answer.stderr


def parts(plan: Plan, names: set[str], workers: Path) -> list[Part]:
    """The processes to start, by name: those of `names`."""
    configuration = plan.configuration
    every = (
        Part(
            "app",
            (sys.executable, "-m", "gunicorn", "--config", "app/gunicorn.conf.py"),
            {
                "APP_BIND": plan.local("app"),
                "APP_DATABASE": str(plan.data("app") / "orders.db"),
                "APP_PROMETHEUS_URL": plan.url("prometheus"),
                "APP_ALERTMANAGER_URL": plan.url("alertmanager"),
                "APP_GRAFANA_URL": plan.url("grafana") if "grafana" in names else "",
                "APP_API_ONLY": str(int(api_only("prometheus"))),
                "PROMETHEUS_MULTIPROC_DIR": str(workers),
                # Nothing stands before the app that would have to notice first that it goes.
                "EXPORTER_DRAIN": os.environ.get("EXPORTER_DRAIN", "0"),
            },
            f"{plan.url('app')}/health/ready",
        ),
        Part(
            "prometheus",
            (
                str(executable("prometheus")),
                f"--config.file={configuration}/prometheus.yml",
                f"--storage.tsdb.path={plan.data('prometheus')}",
                "--storage.tsdb.retention.time=35d",
                "--enable-feature=exemplar-storage",
                f"--web.listen-address={plan.local('prometheus')}",
                f"--web.external-url={plan.url('prometheus')}",
                f"--web.user-assets={configuration}/runbooks",
                *(scale.flags(plan.scale) if plan.scale != 1 else ()),
            ),
            {"GRAFANA_URL": plan.url("grafana"), "RUNBOOK_URL": f"{plan.url('prometheus')}/user"},
            f"{plan.url('prometheus')}/-/ready",
        ),
        Part(
            "alertmanager",
            (
                str(executable("alertmanager")),
                f"--config.file={plan.alertmanager}",
                f"--storage.path={plan.data('alertmanager')}",
                "--cluster.listen-address=",
                f"--web.listen-address={plan.local('alertmanager')}",
                f"--web.external-url={plan.url('alertmanager')}",
            ),
            health=f"{plan.url('alertmanager')}/-/ready",
        ),
        Part(
            "blackbox",
            (
                str(executable("blackbox_exporter")),
                f"--config.file={configuration}/blackbox.yml",
                f"--web.listen-address={plan.local('blackbox')}",
            ),
            health=f"{plan.url('blackbox')}/-/healthy",
        ),
        Part(
            "node-exporter",
            (str(executable("node_exporter")), f"--web.listen-address={plan.local('node-exporter')}"),
            health=f"{plan.url('node-exporter')}/",
        ),
        Part(
            "grafana",
            (
                str(TOP / ".tools/grafana/bin/grafana"),
                "server",
                f"--homepath={TOP / '.tools/grafana'}",
                f"--config={TOP / 'grafana/grafana.ini'}",
            ),
            {
                "PROMETHEUS_URL": plan.url("prometheus"),
                "ALERTMANAGER_URL": plan.url("alertmanager"),
                "LOKI_URL": "http://127.0.0.1:3100",  # in compose only; the data source wants one
                "DASHBOARDS_DIR": str(TOP / "grafana/dashboards"),
                "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(
                    TOP / "grafana/dashboards/Flask/service.json"
                ),
                "GF_PATHS_PROVISIONING": str(TOP / "grafana/provisioning"),
                "GF_PATHS_DATA": str(plan.data("grafana")),
                "GF_PATHS_LOGS": str(plan.data("grafana")),
                "GF_SERVER_HTTP_ADDR": "127.0.0.1",
                "GF_SERVER_HTTP_PORT": str(plan.ports["grafana"]),
                "GF_SERVER_ROOT_URL": plan.url("grafana"),
            },
            f"{plan.url('grafana')}/api/health",
        ),
    )
    return [part for part in every if part.name in names]


def traffic(plan: Plan) -> Part:
    """The simulated customers."""
    return Part("traffic", (sys.executable, "-m", "app.traffic"), {"TARGET": plan.url("app")})


def all_up(plan: Plan, own: set[tuple[str, str]]) -> Callable[[], str | None]:
    """A condition to wait for: Prometheus has scraped each of the stack's own targets."""

    def condition() -> str | None:
        try:
            active = json.loads(ask(f"{plan.url('prometheus')}/api/v1/targets?state=active"))["data"][
                "activeTargets"
            ]
        except OSError as error:
            return f"prometheus does not list its targets ({error})"
        down = dict.fromkeys(own, "not scraped yet")
        for target in active:
            discovered = target["discoveredLabels"]
            key = (Path(discovered["__meta_filepath"]).name, discovered["__address__"])
            if target["health"] == "up":
                down.pop(key, None)
            elif key in down and target["lastError"]:
                down[key] = target["lastError"]
        return (
            "; ".join(f"target {address} of {file}: {why}" for (file, address), why in down.items()) or None
        )

    return condition


class Signals:
    """Ctrl-C, a terminal that closes, and SIGTERM ask to stop."""

    def __init__(self) -> None:
        self.received = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._receive)

    def _receive(self, *_: object) -> None:
        self.received = True


def run(plan: Plan) -> None:
    """Check, start, and stay until a signal comes.

    Raises:
        PlanError: the stack cannot be started so; nothing was started.
        ChildError: a part ended; everything has been stopped.
    """
    began = time.monotonic()
    prepare.check_settings()
    names = targets.parts(plan.targets) | {"app", "prometheus", "alertmanager"}
    prepare.check_ports(plan, names - {"grafana"})
    with prepare.claim(plan, names):
        if get_tools():
            names.add("grafana")
            prepare.check_ports(plan, {"grafana"})
            plan.data("grafana").mkdir(parents=True, exist_ok=True)
        else:
            names.discard("grafana")
        prepare.copy_configuration(plan)
        own = targets.localize(plan, names)
        prepare.render_alertmanager(plan)
        prepare.check_configuration(plan)
        workers = prepare.worker_directory(plan)
        signals = Signals()
        children = Children(plan.logs, TOP, lambda: signals.received)
        try:
            supervise(plan, children, parts(plan, names, workers), own, began)
        finally:
            children.stop()
            shutil.rmtree(workers, ignore_errors=True)


def supervise(
    plan: Plan, children: Children, every: list[Part], own: set[tuple[str, str]], began: float
) -> None:
    """Start all, wait until all is well, say where it is, and watch until asked to stop."""
    for part in every:
        children.start(part)
    if not children.wait(children.healthy(every), PATIENCE):
        return
    if plan.users:
        children.start(traffic(plan))
    if not children.wait(all_up(plan, own), PATIENCE):
        return
    print(f"Up after {time.monotonic() - began:.0f} s, all {len(own)} targets too:")
    for part in every:
        pages = "  (its API; Debian's build has no pages)" if api_only(part.name) else ""
        print(f"  {TITLES[part.name]:18} {plan.url(part.name)}{pages}")
    if all(part.name != "grafana" for part in every):
        print(
            "  (no Grafana: none on the PATH and no archive of it to be had, see .tools/grafana.unavailable)"
        )
    print(f"Logs are in {plan.logs}. Ctrl-C stops everything.", flush=True)
    children.wait(lambda: "", float("inf"))


def main() -> int:
    """Run the stack; 0 after a signal, 1 with what is wrong otherwise."""
    try:
        run(Plan.load())
    except KeyboardInterrupt:
        return 130
    except (PlanError, ChildError) as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
