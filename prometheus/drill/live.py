"""One test alert through the receiver of the running deployment."""

import datetime
import json
import re
import time
import urllib.request
from pathlib import Path

from prometheus.drill.watch import SWITCH
from prometheus.run.children import ask

PATIENCE = 60.0  # seconds: a critical alert waits 10 s for others of its group
LABELS = {"alertname": "MonitoringDrill", "severity": "critical", "service": "drill"}
# Only requests to the people's receiver count: the dead-man's switch is sent all the time.
COUNTER = re.compile(
    r"^alertmanager_notification_requests(_failed)?_total\{"
    r'(?=.*receiver_name="people").*?integration="(\w+)".*\} (\S+)$',
    re.MULTILINE,
)


class LiveError(Exception):
    """The test alert did not get through; the message says where it stopped."""


# The error of a delivery in Alertmanager's log, on a line with `integration[number]`.
ERROR = re.compile(r'err="((?:[^"\\]|\\.)*)"')


def live(alertmanager: str, log: Path) -> str:
    """Send an alert to Alertmanager, wait for its delivery, and return a sentence that confirms it.

    `log` is Alertmanager's, which knows why a delivery fails; with compose it is somewhere else.

    Raises:
        LiveError: Alertmanager cannot be reached, has no receiver, or could not deliver.
    """
    try:
        return _through(alertmanager, log)
    except OSError as error:
        raise LiveError(
            f"Alertmanager does not answer at {alertmanager} ({error}): "
            "start the stack, or set ALERTMANAGER_URL"
        ) from error


def _through(alertmanager: str, log: Path) -> str:
    before = _counts(alertmanager)
    if not before:
        raise LiveError("nobody would be told: set ALERT_RECEIVER and ALERT_SECRET_FILE")
    length = log.stat().st_size if log.exists() else 0
    # A group of its own, or Alertmanager takes it for an earlier one, of which it has told already.
    labels = {**LABELS, "job": f"drill-{time.time_ns()}"}
    _send(alertmanager, labels, datetime.timedelta(minutes=5))
    deadline = time.monotonic() + PATIENCE
    success = False
    while time.monotonic() < deadline:
        time.sleep(0.5)
        for integration, (requests, failures) in _counts(alertmanager).items():
            new_requests, new_failures = requests - before[integration][0], failures - before[integration][1]
            if new_failures:
                _send(alertmanager, labels, datetime.timedelta(0))
                raise LiveError(
                    f"{integration} did not take the test alert: {_reason(log, length, integration)}"
                )
            # A failure is counted a moment after its request, so only a second look is sure.
            if new_requests and success:
                _send(alertmanager, labels, datetime.timedelta(0))
                return f"The test alert was handed over to {integration}. Look whether it is there."
            success = new_requests > 0
    raise LiveError(f"the test alert was not handed over within {PATIENCE:.0f} s: see Alertmanager's log")


def _reason(log: Path, length: int, integration: str) -> str:
    """Why the integration failed, in the words of the log from `length` bytes on."""
    deadline = time.monotonic() + 2
    while log.exists() and time.monotonic() < deadline:
        lines = log.read_bytes()[length:].decode(errors="replace").splitlines()
        matches = [ERROR.search(line) for line in lines if f"{integration}[" in line]
        errors: list[str] = [match[1].replace('\\"', '"') for match in matches if match]
        if errors and "STARTTLS" in errors[-1]:
            return f"{errors[-1]}. Write require_tls=false into the file of ALERT_SECRET_FILE, or use TLS"
        if errors:
            return errors[-1]
        time.sleep(0.1)
    return "Alertmanager's log says why (docker compose logs alertmanager)"


def _send(alertmanager: str, labels: dict[str, str], duration: datetime.timedelta) -> None:
    now = datetime.datetime.now(datetime.timezone.utc)
    alert = {
        "labels": labels,
        "annotations": {
            "summary": "A drill: nothing is wrong.",
            "description": "Somebody tries whether alerts arrive. If you read this, they do.",
            **_links(alertmanager),
        },
        "startsAt": now.isoformat(),
        "endsAt": (now + duration).isoformat(),
    }
    request = urllib.request.Request(  # noqa: S310 -- the operator's own address
        f"{alertmanager}/api/v2/alerts", json.dumps([alert]).encode(), {"Content-Type": "application/json"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=5):
        pass


def _links(alertmanager: str) -> dict[str, str]:
    """Those of the dead-man's switch: they lead where the links of this deployment's alerts do."""
    switches = json.loads(ask(f"{alertmanager}/api/v2/alerts?filter=alertname%3D{SWITCH}"))
    return {
        name: text
        for switch in switches
        for name, text in switch["annotations"].items()
        if name.endswith("_url")
    }


def _counts(alertmanager: str) -> dict[str, tuple[float, float]]:
    """Return the number of requests so far, and of those that failed, by integration."""
    requests: dict[str, float] = {}
    failures: dict[str, float] = {}
    for bad, integration, count in COUNTER.findall(ask(f"{alertmanager}/metrics").decode()):
        (failures if bad else requests)[integration] = float(count)
    return {integration: (count, failures[integration]) for integration, count in requests.items()}
