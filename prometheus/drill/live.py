"""One test alert through the receiver of the running deployment."""

import datetime
import json
import re
import time
import urllib.request

from prometheus.run.children import ask

PATIENCE = 60.0  # seconds: a critical alert waits 10 s for others of its group
LABELS = {"alertname": "MonitoringDrill", "severity": "critical", "service": "drill"}
# Requests to the people's receiver alone: the dead-man's switch is sent all the time.
COUNTER = re.compile(
    r"^alertmanager_notification_requests(_failed)?_total\{"
    r'(?=.*receiver_name="people").*?integration="(\w+)".*\} (\S+)$',
    re.MULTILINE,
)


class LiveError(Exception):
    """The test alert did not get through; the message says where it stopped."""


def live(alertmanager: str) -> str:
    """Send an alert to Alertmanager and wait until it has been handed over; a sentence that says so.

    Raises:
        LiveError: Alertmanager cannot be reached, has no receiver, or could not deliver.
    """
    try:
        return _through(alertmanager)
    except OSError as error:
        raise LiveError(
            f"Alertmanager does not answer at {alertmanager} ({error}): set ALERTMANAGER_URL"
        ) from error


def _through(alertmanager: str) -> str:
    before = _counts(alertmanager)
    if not before:
        raise LiveError("nobody would be told: set ALERT_RECEIVER and ALERT_SECRET_FILE")
    _send(alertmanager, datetime.timedelta(minutes=5))
    deadline = time.monotonic() + PATIENCE
    handed_over = False
    while time.monotonic() < deadline:
        time.sleep(0.5)
        for integration, (asked, failed) in _counts(alertmanager).items():
            new_asked, new_failed = asked - before[integration][0], failed - before[integration][1]
            if new_failed:
                _send(alertmanager, datetime.timedelta(0))
                raise LiveError(f"{integration} did not take the test alert: Alertmanager's log says why")
            # A failure is counted a moment after the request: a second look makes sure.
            if new_asked and handed_over:
                _send(alertmanager, datetime.timedelta(0))
                return f"The test alert was handed over to {integration}. Look whether it is there."
            handed_over = new_asked > 0
    raise LiveError(f"the test alert was not handed over within {PATIENCE:.0f} s: see Alertmanager's log")


def _send(alertmanager: str, lasts: datetime.timedelta) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    alert = {
        "labels": LABELS,
        "annotations": {
            "summary": "A drill: nothing is wrong.",
            "description": "Somebody tries whether alerts arrive. If you read this, they do.",
            "runbook_url": "http://127.0.0.1:9090/user/MonitoringDeadMansSwitch.md",
            "dashboard_url": "http://127.0.0.1:3000/d/monitoring-pipeline",
        },
        "startsAt": now.isoformat(),
        "endsAt": (now + lasts).isoformat(),
    }
    request = urllib.request.Request(  # noqa: S310 -- the operator's own address
        f"{alertmanager}/api/v2/alerts", json.dumps([alert]).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=5):
        pass


def _counts(alertmanager: str) -> dict[str, tuple[float, float]]:
    """Requests so far and those that failed, by integration."""
    asked: dict[str, float] = {}
    failed: dict[str, float] = {}
    for bad, integration, count in COUNTER.findall(ask(f"{alertmanager}/metrics").decode()):
        (failed if bad else asked)[integration] = float(count)
    return {integration: (count, failed[integration]) for integration, count in asked.items()}
