"""The numbers on the dashboards are the numbers of the alerts, of slo.yml and of `/health`."""

import re
from typing import Any

import pytest
import yaml

from exporter.settings import Settings
from grafana import thresholds
from grafana.thresholds import BURN_ALERTS, BurnAlert
from tests.rig.places import ROOT

PROMETHEUS = ROOT / "prometheus"
ALERTS = [
    rule
    for path in sorted((PROMETHEUS / "rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
SLO: dict[str, Any] = yaml.safe_load((PROMETHEUS / "slo.yml").read_text())
HOURS = {"m": 1 / 60, "h": 1, "d": 24}


def limits(alert: str, comparison: str) -> list[float]:
    """The numbers that the expressions of an alert compare with."""
    return [
        float(limit)
        for rule in ALERTS
        if rule["alert"] == alert
        for limit in re.findall(comparison, rule["expr"], re.MULTILINE)
    ]


def hours(duration: str) -> float:
    return float(duration[:-1]) * HOURS[duration[-1]]


@pytest.mark.parametrize(
    ("alert", "comparison", "threshold"),
    [
        ("FlaskErrorRatioHigh", r"error_ratio_5m > ([\d.]+)", thresholds.ERROR_RATIO_HIGH),
        ("FlaskErrorRatioCritical", r"error_ratio_5m > ([\d.]+)", thresholds.ERROR_RATIO_CRITICAL),
        ("FlaskLatencyHigh", r"p95_5m > ([\d.]+)", thresholds.LATENCY_HIGH),
        ("FlaskThreadsSaturated", r"> ([\d.]+)", thresholds.THREADS_SATURATED),
        ("FlaskRequestStuck", r"> (\d+)m", thresholds.REQUEST_STUCK / 60),
        ("FlaskQueueSlow", r"> ([\d.]+)", thresholds.QUEUE_SLOW),
        ("HostMemoryLow", r"MemTotal_bytes < ([\d.]+)", round(1 - thresholds.MEMORY_LOW, 9)),
        ("MonitoringScrapeSlow", r"> ([\d.]+)s", thresholds.SCRAPE_SLOW),
        ("MonitoringRemoteWriteBehind", r"> (\d+)m", thresholds.REMOTE_WRITE_BEHIND / 60),
        ("ProbeSlow", r"> ([\d.]+)", thresholds.PROBE_SLOW),
        ("ProbeCertificateExpiring", r"< (\d+)d", thresholds.CERTIFICATE_DAYS),
    ],
)
def test_panels_and_alerts_agree(alert: str, comparison: str, threshold: float) -> None:
    """A panel names, marks or colours exactly the value at which the alert fires."""
    assert limits(alert, f"{comparison}$") == [threshold]


def test_panels_and_health_agree() -> None:
    """`/health` warns and reports degradation where the error ratio changes its colour."""
    settings = Settings()

    assert settings.health_warning == thresholds.ERROR_RATIO_HIGH
    assert settings.health_degraded == thresholds.ERROR_RATIO_CRITICAL


def test_panels_and_scrapes_agree() -> None:
    """The pipeline dashboard names the limits that Prometheus applies to a Flask service."""
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    job = next(job for job in configuration["scrape_configs"] if job["job_name"] == "app")

    assert configuration["global"]["scrape_timeout"] == f"{thresholds.SCRAPE_TIMEOUT}s"
    assert job["sample_limit"] == thresholds.SAMPLE_LIMIT
    assert limits("MonitoringSampleLimitNear", r"/ (\d+) >") == [thresholds.SAMPLE_LIMIT]


def test_panels_and_objectives_agree() -> None:
    """The SLO dashboard counts slow requests and the budget as slo.yml does."""
    within = {objective["slo"]: objective.get("within") for objective in SLO["objectives"]}

    assert within == {"errors": None, "latency": thresholds.LATENCY_HIGH, "tail": thresholds.TAIL_HIGH}
    assert SLO["period"] == f"{thresholds.BUDGET_DAYS}d"


def test_panels_and_burn_alerts_agree() -> None:
    """The burn rates and windows are those that slo.yml sets."""
    period = hours(SLO["period"])
    alerts = [
        BurnAlert(
            burn["long"],
            burn["short"],
            round(burn["budget"] / 100 * period / hours(burn["long"]), 9),
            burn["severity"],
        )
        for burn in SLO["burn"]
    ]
    assert alerts == list(BURN_ALERTS)


def test_panels_and_recorded_burn_rules_agree() -> None:
    """Each alert that slo.yml generates compares both of its windows with the rate on the dashboard."""
    comparisons = {
        (window, float(rate))
        for rule in ALERTS
        for window, rate in re.findall(r"burn_rate_(\w+)(?:\{[^}]*\})? > ([\d.]+)", rule["expr"])
    }

    assert comparisons == {
        (window, alert.rate) for alert in BURN_ALERTS for window in (alert.long, alert.short)
    }


def test_panels_and_apdex_agree() -> None:
    """The rule records the requests within the two bounds that the panel names."""
    (rule,) = (
        rule
        for group in yaml.safe_load((PROMETHEUS / "rules/dashboards.yml").read_text())["groups"]
        for rule in group["rules"]
        if rule["record"].endswith("good_rate_5m")
    )
    (bounds,) = re.findall(r'le=~"([\d.|]+)"', rule["expr"])

    assert bounds == f"{thresholds.LATENCY_HIGH}|{thresholds.APDEX_TOLERABLE}"
