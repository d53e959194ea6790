"""The rules in vmalert: their own tests through vmalert-tool, with every known difference by name."""

from __future__ import annotations

import math
import re
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from tests.prometheus.test_travel import START, write_rules
from tests.rig import ruletests
from tests.rig.deadline import eventually
from tests.rig.engines import Engine, needed, victoriametrics
from tests.rig.network import free_ports

# Why an alert or a recorded series differs from Prometheus in one of its tests.
FIRST = "increase() counts the value with which a counter begins, and Prometheus' does not"
WINDOW = "a window holds the step from the sample before it too, so that a change is seen a sample longer"
DIGITS = "a stored value keeps some 13 digits"
GROUP = "vmalert-tool gives every alert the name of its group, and these checks ask for those without"

MONITORING = {
    "MonitoringAlertmanagerGone": FIRST,
    "MonitoringNotificationsFailing": FIRST,
    "MonitoringRuleFailures": FIRST,
    "MonitoringStorageTrouble": FIRST,
    "MonitoringRemoteWriteRefused": FIRST,
    "MonitoringLogLinesDropped": FIRST,
    "MonitoringLogShippingStopped": WINDOW,
}
KNOWN: dict[str, dict[str, str]] = {
    "dashboards": {},
    "host": {},
    "host-edges": {"HostCpuSaturated": WINDOW},
    "monitoring": MONITORING,
    "monitoring-edges": MONITORING,
    "percentiles": {},
    "probe": {},
    "probe-edges": {},
    "requests": {
        "url_rule_status:flask_http_request_duration_seconds:rate_5m": WINDOW,
        "url_rule:flask_http_request_duration_seconds_sum:rate_5m": WINDOW,
        "url_rule:flask_http_request_duration_seconds_bucket:rate_5m": WINDOW,
        "url_rule_error_type:flask_http_request_errors:rate_5m": WINDOW,
        "error_group:flask_http_request_error_group:seen_5m": WINDOW,
        "job:flask_http_request_duration_seconds:error_ratio_5m": DIGITS,
        "job:flask_http_request_duration_seconds:p95_5m": DIGITS,
    },
    "service-edges": {
        "FlaskExporterFailures": WINDOW,
        "FlaskLogErrorBurst": WINDOW,
        "FlaskSeriesCapReached": WINDOW,
        "FlaskTrafficGone": GROUP,
        "FlaskTrafficLow": GROUP,
        "FlaskWorkerRestartLoop": WINDOW,
    },
    "service": {
        "FlaskErrorRatioCritical": WINDOW,
        "FlaskExporterFailures": FIRST,
        "FlaskSeriesCapReached": FIRST,
    },
    "slo": {},
    "slo-edges": {},
    "slo-windows": {},
}
LONG = {"monitoring-edges", "probe", "service", "service-edges", "slo", "slo-windows"}


def converted(name: str, directory: Path) -> Path:
    """The tests of a file as vmalert-tool takes them: without native histograms, which it does not know."""
    document = ruletests.load(name)
    document.pop("fuzzy_compare", None)
    tests = []
    for test in document["tests"]:
        if any("{{" in series["values"] for series in test["input_series"]):
            continue
        checks = [{**check, "expr": bare(check["expr"])} for check in test.pop("promql_expr_test", ())]
        tests.append({**test, "metricsql_expr_test": checks})
    return ruletests.write({**document, "tests": tests}, directory)


def bare(expression: str) -> str:
    """An expression whose answer has the labels of Prometheus': round() keeps the name here."""
    if expression.startswith("round("):
        return f'label_del({expression}, "__name__")'
    return f'label_del({expression}, "alertgroup")' if expression.startswith("ALERTS") else expression


def differences(output: str) -> set[str]:
    """The alerts and recorded series of the checks that fail."""
    names = set(re.findall(r"alertname: (\w+)", output))
    for expression in re.findall(r'^\s+expr: "(.*)", time:', output, re.MULTILINE):
        alert = re.search(r'alertname=\\"(\w+)', expression)
        names.add(alert[1] if alert else re.findall(r"[a-z_]+:[\w:]+|ALERTS", expression)[0])
    return names


def test_vmalert_takes_every_rule(tmp_path: Path) -> None:
    """As start.sh writes them for it, with functions and templates that it has."""
    subprocess.run(["sh", START, f"--vmalert={tmp_path}"], check=True)
    command = [str(needed("vmalert")), f"-rule={tmp_path}/*.yml", "-dryRun"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.soak) if name in LONG else name for name in KNOWN]
)
def test_rules_do_the_same_in_vmalert(tmp_path: Path, name: str) -> None:
    """But for the known differences."""
    assert write_rules(tmp_path).returncode == 0
    command = [
        str(needed("vmalert-tool")),
        "unittest",
        f"--files={converted(name, tmp_path)}",
        "--disableAlertgroupLabel",
    ]
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    output = answer.stdout + answer.stderr
    assert "Unit Testing" in output, output

    assert differences(output) == KNOWN[name].keys(), output


@pytest.mark.soak
def test_layers_are_in_time(tmp_path: Path) -> None:
    """A ratio is that of the rates of the same interval, however many layers of rules lie between."""
    subprocess.run(["sh", START, f"--vmalert={tmp_path}/rules"], check=True)
    with victoriametrics(tmp_path / "store") as store, vmalert(tmp_path, store):
        begin = int(time.time()) - 900
        for moment in range(begin, begin + 900, 5):
            push(store, moment, begin)
        moment = begin + 900

        def scrape() -> bool:
            nonlocal moment
            while moment <= time.time():
                push(store, moment, begin)
                moment += 5
            return len(recorded(store, "error_ratio_5m")) >= 5

        eventually(scrape, "five evaluations of the third layer", 150)
        ratio = recorded(store, "error_ratio_5m")
        rate, errors = (recorded(store, name) for name in ("rate_5m", "errors_rate_5m"))

    late = [
        next(
            number
            for number in range(4)
            for before in [at - 3 - 15 * number]
            if before in rate and math.isclose(errors.get(before, 0) / rate[before], value, rel_tol=1e-9)
        )
        for at, value in list(ratio.items())[1:]
    ]
    print(f"evaluations late: {late}")
    assert set(late) <= {0, 1}
    assert 0 in late


def vmalert(directory: Path, store: Engine) -> Engine:
    """A vmalert with the flags of cluster.yml that tells nobody."""
    (port,) = free_ports(1)
    return Engine(
        [
            needed("vmalert"),
            f"-rule={directory}/rules/*.yml",
            f"-datasource.url={store.url}",
            f"-remoteRead.url={store.url}",
            f"-remoteWrite.url={store.url}",
            "-remoteWrite.flushInterval=1s",
            "-notifier.blackhole",
            "-disableAlertgroupLabel",
            f"-httpListenAddr=127.0.0.1:{port}",
        ],
        directory,
        port,
    )


def push(store: Engine, moment: int, begin: int) -> None:
    """One sample of a service whose share of errors rises all the time."""
    elapsed = moment - begin
    labels = 'job="app",service="orders",instance="a:1",method="GET",url_rule="/"'
    name = "flask_http_request_duration_seconds_count"
    lines = [
        f'{name}{{{labels},status="{status}"}} {value} {moment * 1000}'
        for status, value in (("200", 1000 * elapsed), ("500", elapsed**2))
    ]
    url = f"{store.url}/api/v1/import/prometheus"
    urllib.request.urlopen(url, "\n".join(lines).encode(), timeout=30).close()


def recorded(store: Engine, name: str) -> dict[int, float]:
    """The samples of a recorded series of the service, by their time."""
    samples = store.samples(f"job:flask_http_request_duration_seconds:{name}")
    return {round(at): value for _, points in samples for at, value in points}
