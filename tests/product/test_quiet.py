"""A service that keeps its promises disturbs nobody: the only alert is the one that always comes."""

import itertools
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from prometheus.drill.receiver import Receiver
from tests.rig.deadline import eventually
from tests.rig.network import get_json
from tests.rig.places import ROOT
from tests.rig.stack import Run, running, settings

HOUR = 3600.0

# A deploy, or a pause of a busy machine, takes its seconds however fast the rules go: a larger scale
# makes minutes of them.
SCALE = 10

SWITCH = "MonitoringDeadMansSwitch"

# A fifth of the budgets: of 5,000 requests one is an error (99.9 % leaves 5), 50 are slow (95 % leaves 250).
ERROR, SLOW, MISSING = "/test/error", "/test/slow?seconds=0.6", "/orders/999999"
USUAL = ("/test/normal", "/orders", "/test/normal", "/")
THREADS, PAUSE = 4, 0.06  # about 60 requests a second


def paths() -> Iterator[str]:
    """The paths of normal traffic, without end."""
    usual = itertools.cycle(USUAL)
    for number in itertools.count(1):
        if number % 5000 == 2500:
            yield ERROR
        elif number % 100 == 0:
            yield SLOW
        else:
            yield MISSING if number % 33 == 0 else next(usual)


class Traffic:
    """Sends normal traffic in a with statement; `sent` counts it by path."""

    def __init__(self, run: Run) -> None:
        self.sent: dict[str, int] = {}
        self._run, self._paths, self._lock = run, paths(), threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(THREADS)]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        while not self._stop.wait(PAUSE):
            with self._lock:
                path = next(self._paths)
                self.sent[path] = self.sent.get(path, 0) + 1
            request(self._run, path)


def request(run: Run, path: str) -> int:
    """Status of a request to the app."""
    try:
        with urllib.request.urlopen(run.url("APP_PORT", path), timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def targets(directory: Path) -> Path:
    """Target files without the host: what else this machine does is not the service's doing."""
    directory.mkdir()
    shipped = ROOT / "prometheus/targets"
    for name in ("app", "prometheus", "alertmanager", "blackbox", "probe"):
        (directory / f"{name}.yml").write_text((shipped / f"{name}.yml").read_text())
    return directory


def firing(run: Run) -> set[str]:
    """Names of the alerts that fire."""
    alerts = get_json(run.url("PROMETHEUS_PORT", "/api/v1/alerts"))["data"]["alerts"]
    return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


def starts(run: Run) -> float:
    """Workers that were ever started."""
    return sum(run.query("flask_worker_starts_total").values())


def master(run: Run) -> int:
    """Process id of gunicorn's master."""
    (found,) = (pid for pid, parent in run.gunicorns().items() if parent == run.process.pid)
    return found


def stays_quiet(run: Run, seconds: float) -> None:
    """Look for so long whether anything fires."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert firing(run) == {SWITCH}
        time.sleep(0.5)


def quiet(tmp_path: Path, scale: float, hours: float) -> None:
    """Run normal traffic for so many scaled hours, with two deploys; nobody must be told of anything."""
    with Receiver() as receiver:
        secrets = {}
        for setting, name in (("ALERT_SECRET_FILE", "people"), ("ALERT_HEARTBEAT_FILE", "heartbeat")):
            (tmp_path / name).write_text(f"{receiver.url}/{name}\n")
            secrets[setting] = str(tmp_path / name)
        environ = settings(
            tmp_path / "run",
            TIME_SCALE=f"{scale:g}",
            TRAFFIC_USERS="0",
            TARGETS_DIR=str(targets(tmp_path / "targets")),
            ALERT_RECEIVER="webhook",
            # A new worker on a busy machine needs seconds, minutes here: two must seldom begin at once.
            GUNICORN_CMD_ARGS="--max-requests 1000 --max-requests-jitter 2000",
            **secrets,
        )
        with running(environ) as run:
            run.wait_until_up()
            # The kind of error that this service now and then has is known before an error can be a new one.
            assert request(run, ERROR) == 500
            with Traffic(run) as traffic:
                eventually(lambda: firing(run) == {SWITCH}, "the error is known", 120)
                before, restarts, beats = dict(traffic.sent), starts(run), len(receiver.posts)
                for deploys in range(3):
                    if deploys:
                        os.kill(master(run), signal.SIGHUP)
                    stays_quiet(run, hours * HOUR / scale / 3)
                restarts = starts(run) - restarts
        told = {
            (post.path, one["labels"]["alertname"])
            for post in receiver.posts[beats:]
            for one in post.document["alerts"]
            if one["status"] == "firing"
        }

    assert told == {("/heartbeat", SWITCH)}
    # Otherwise it would have shown nothing: the traffic had its share of faults, and workers came and went.
    assert traffic.sent[SLOW] - before.get(SLOW, 0) >= 10
    assert traffic.sent.get(ERROR, 0) >= int(hours)
    assert restarts >= 6


@pytest.mark.soak
def test_two_hours_of_normal_traffic_are_quiet(tmp_path: Path) -> None:
    """With deploys and workers that are recycled, they raise no alert."""
    quiet(tmp_path, scale=SCALE, hours=2)
