"""The processes of the stack: the command line and the environment of each, from a plan."""

import functools
import os
import subprocess
import sys
from pathlib import Path

from prometheus.run import dialect, scale
from prometheus.run.children import Part
from prometheus.run.plan import TOP, Plan
from prometheus.tools.toolbox import executable

TITLES = {
    "app": "the service",
    "prometheus": "Prometheus",
    "alertmanager": "Alertmanager",
    "blackbox": "blackbox exporter",
    "node-exporter": "node exporter",
    "grafana": "Grafana",
}

# The collectors that compose enables too, and `pressure`, whose files not every kernel has to mount.
COLLECTORS = ("cpu", "diskstats", "filesystem", "loadavg", "meminfo", "netdev", "pressure", "stat", "vmstat")


def processes(plan: Plan, names: set[str], workers: Path) -> list[Part]:
    """Return the processes to start: the app, and each other part in `names`."""
    others = {
        "prometheus": _prometheus,
        "alertmanager": _alertmanager,
        "blackbox": _blackbox,
        "node-exporter": _node_exporter,
        "grafana": _grafana,
    }
    return [_app(plan, names, workers), *(make(plan) for name, make in others.items() if name in names)]


def traffic(plan: Plan) -> Part:
    """Return the process that simulates the customers."""
    return Part("traffic", (sys.executable, "-m", "app.traffic"), {"TARGET": plan.url("app")})


def request_log(plan: Plan) -> str:
    """Return the file to which the app logs its requests; people without Loki read it."""
    return os.environ.get("EXPORTER_REQUEST_LOG", str(plan.logs / "requests.jsonl"))


@functools.cache
def api_only(name: str) -> bool:
    """Return whether a part is Debian's build, which has no web interface."""
    if name not in ("prometheus", "alertmanager"):
        return False
    answer = subprocess.run([executable(name), "--version"], capture_output=True, text=True, check=True)
    return "debian" in answer.stdout + answer.stderr


def _app(plan: Plan, names: set[str], workers: Path) -> Part:
    return Part(
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
            "EXPORTER_REQUEST_LOG": request_log(plan),
            # No load balancer has to notice the end of the app.
            "EXPORTER_DRAIN": os.environ.get("EXPORTER_DRAIN", "0"),
        },
        f"{plan.url('app')}/health/ready",
    )


def _prometheus(plan: Plan) -> Part:
    return Part(
        "prometheus",
        (
            str(executable("prometheus")),
            f"--config.file={plan.configuration}/prometheus.yml",
            f"--storage.tsdb.path={plan.data('prometheus')}",
            "--storage.tsdb.retention.time=35d",
            f"--enable-feature={dialect.features()}",
            f"--web.listen-address={plan.local('prometheus')}",
            f"--web.external-url={plan.url('prometheus')}",
            f"--web.user-assets={plan.configuration}/runbooks",
            *(scale.flags(plan.scale) if plan.scale != 1 else ()),
        ),
        health=f"{plan.url('prometheus')}/-/ready",
    )


def _alertmanager(plan: Plan) -> Part:
    return Part(
        "alertmanager",
        (
            str(executable("alertmanager")),
            f"--config.file={plan.alertmanager}",
            f"--storage.path={plan.data('alertmanager')}",
            "--cluster.listen-address=",
            "--enable-feature=receiver-name-in-metrics",
            f"--web.listen-address={plan.local('alertmanager')}",
            f"--web.external-url={plan.url('alertmanager')}",
        ),
        health=f"{plan.url('alertmanager')}/-/ready",
    )


def _blackbox(plan: Plan) -> Part:
    return Part(
        "blackbox",
        (
            str(executable("blackbox_exporter")),
            f"--config.file={plan.configuration}/blackbox.yml",
            f"--web.listen-address={plan.local('blackbox')}",
        ),
        health=f"{plan.url('blackbox')}/-/healthy",
    )


def _node_exporter(plan: Plan) -> Part:
    collectors = ["--collector.disable-defaults", *(f"--collector.{name}" for name in COLLECTORS)]
    return Part(
        "node-exporter",
        (
            str(executable("node_exporter")),
            f"--web.listen-address={plan.local('node-exporter')}",
            # Other systems have other collectors, and turn on few of them by default.
            *(collectors if sys.platform == "linux" else ()),
        ),
        health=f"{plan.url('node-exporter')}/",
    )


def _grafana(plan: Plan) -> Part:
    return Part(
        "grafana",
        (
            str(executable("grafana")),
            "server",
            f"--homepath={TOP}/.tools/grafana",
            f"--config={TOP}/grafana/grafana.ini",
        ),
        {
            "PROMETHEUS_URL": plan.url("prometheus"),
            "ALERTMANAGER_URL": plan.url("alertmanager"),
            "LOKI_URL": "http://127.0.0.1:3100",  # in compose only; the data source needs one
            "DASHBOARDS_DIR": f"{TOP}/grafana/dashboards",
            "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": f"{TOP}/grafana/dashboards/Flask/service.json",
            "GF_PATHS_PROVISIONING": f"{TOP}/grafana/provisioning",
            "GF_PATHS_DATA": str(plan.data("grafana")),
            "GF_PATHS_LOGS": str(plan.data("grafana")),
            "GF_SERVER_HTTP_ADDR": "127.0.0.1",
            "GF_SERVER_HTTP_PORT": str(plan.ports["grafana"]),
            "GF_SERVER_ROOT_URL": plan.url("grafana"),
        },
        f"{plan.url('grafana')}/api/health",
    )
