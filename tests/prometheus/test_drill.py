"""`make drill`: real faults, alerts that arrive and end, and the way out of the running deployment."""

import re
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Sink

from prometheus.drill.__main__ import table
from prometheus.drill.faults import Alert, faults
from prometheus.drill.live import LiveError, live
from prometheus.drill.receiver import Receiver
from prometheus.drill.sites import Site
from prometheus.drill.watch import SWITCH, Course
from tests.rig.alertmanager import Alertmanager, secret
from tests.rig.alerts import ALERTS
from tests.rig.deadline import eventually
from tests.rig.network import free_ports
from tests.rig.places import ROOT

LABELS = ("severity", "window", "scope")


def drill(*names: str) -> "subprocess.CompletedProcess[str]":
    """The drill of some alerts."""
    return subprocess.run(
        [sys.executable, "-m", "prometheus.drill", *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )


def test_every_alert_has_a_fault() -> None:
    """Each rule, not just each name, is fired by something that the drill breaks."""
    drilled = {
        (alert.name, *(alert.labels.get(label) for label in LABELS))
        for fault in faults()
        for alert in fault.alerts
    }
    # It has no receiver to arrive at, and so a part of its own in the drill.
    drilled.add(("MonitoringAlertmanagerGone", "critical", None, None))

    assert drilled == {(rule["alert"], *(rule["labels"].get(label) for label in LABELS)) for rule in ALERTS}


@pytest.mark.soak
def test_alerts_of_real_faults_arrive_and_end() -> None:
    """A service stopped, whole, in part and for its scrapes, a broken rule and a stopped Alertmanager."""
    names = ("FlaskTargetDown", "MonitoringAlertmanagerGone", "MonitoringRuleFailures")
    before = set(Path("/dev/shm").glob("drill-*"))
    answer = drill(*names)
    rows = [line.split(" | ") for line in answer.stdout.splitlines() if line.endswith(" | pass |")]

    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert sorted(row[0].removeprefix("| ") for row in rows) == sorted(["FlaskTargetDown"] * 2 + [*names])
    assert "5 of 5 pass" in answer.stdout
    assert set(Path("/dev/shm").glob("drill-*")) <= before


@pytest.mark.soak
def test_every_alert_arrives_and_ends() -> None:
    """The whole drill passes."""
    answer = drill()

    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_what_went_wrong_is_in_the_table() -> None:
    """An alert that did not arrive, was not resolved, or has a bad link is no pass."""
    alert = Alert("FlaskTargetDown", {"job": "app", "service": "down"})
    lost = Course(alert, cause=100, firing=102.04, repair=250)
    endless = Course(alert, cause=100, firing=102.04, arrival=103, repair=104)
    linkless = Course(alert, 100, 102.04, 103, 104, 109, complaints=["has no link to a dashboard"])
    good = Course(alert, 100, 102.04, 103, 104, 109)

    assert table([("stopped", course) for course in (lost, endless, linkless, good)]).splitlines()[2:] == [
        "| FlaskTargetDown | down | stopped | 2.0 |  |  | FAIL did not arrive |",
        "| FlaskTargetDown | down | stopped | 2.0 | 3.0 |  | FAIL was not resolved |",
        "| FlaskTargetDown | down | stopped | 2.0 | 3.0 | 5.0 | FAIL has no link to a dashboard |",
        "| FlaskTargetDown | down | stopped | 2.0 | 3.0 | 5.0 | pass |",
    ]


def test_unknown_alert_is_named() -> None:
    """A misspelt name is an error, not a drill of nothing."""
    answer = drill("FlaskTargetDwon")

    assert answer.returncode == 2
    assert "the drill has no FlaskTargetDwon: docs/reference/alerts.md has the names" in answer.stderr


def test_live_takes_no_names() -> None:
    """It would send its own alert, and not the one that was named."""
    answer = drill("--live", "FlaskTargetDown")

    assert answer.returncode == 2
    assert "--live sends an alert of its own: leave out the names" in answer.stderr


def test_live_goes_through_the_real_receiver(tmp_path: Path) -> None:
    """The people's receiver gets the test alert, with this deployment's links, and its end."""
    link = {"dashboard_url": "https://grafana.example.com/d/monitoring-pipeline"}
    with Receiver() as receiver:
        heartbeat = tmp_path / "heartbeat"
        heartbeat.write_text(f"{receiver.url}/heartbeat")
        environ = {
            "ALERT_RECEIVER": "discord",
            "ALERT_SECRET_FILE": secret(tmp_path, f"{receiver.url}/api/webhooks/1/a"),
            "ALERT_HEARTBEAT_FILE": str(heartbeat),
        }
        with Alertmanager(tmp_path, **environ) as alertmanager:
            alertmanager.send({"labels": {"alertname": SWITCH}, "annotations": link})
            said = live(alertmanager.url, alertmanager.path)
            eventually(lambda: "RESOLVED" in str(receiver.posts), "the end of the test alert")
        embeds = [post.document["embeds"][0] for post in receiver.posts if post.path != "/heartbeat"]
        titles = [embed["title"] for embed in embeds]

    assert said == "The test alert was handed over to discord. Look whether it is there."
    assert [re.sub(r"after \S+:", "after:", title) for title in titles] == [
        "🔴 CRITICAL drill: A drill: nothing is wrong.",
        "🟢 RESOLVED drill after: It was: A drill: nothing is wrong.",
    ]
    assert f"[Dashboard]({link['dashboard_url']}?" in embeds[0]["description"]


def test_a_caller_may_hang_up(capfd: pytest.CaptureFixture[str]) -> None:
    """What the drill cuts off leaves no traceback between its lines."""
    threads = threading.active_count()
    arrived, gone = threading.Event(), threading.Event()

    class Slow(Site):
        def metrics(self) -> str:
            arrived.set()
            assert gone.wait(30)
            return super().metrics()

    site = Slow()
    host, port = site.address.split(":")
    with socket.create_connection((host, int(port))) as caller:
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close with a reset
        caller.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert arrived.wait(30)
    gone.set()
    eventually(lambda: threading.active_count() == threads + 1, "the end of the request's thread")
    site.close()

    assert capfd.readouterr().err == ""


def test_live_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, though Alertmanager tells of no alert twice within hours, which are 48 s here."""
    monkeypatch.setattr("prometheus.drill.live.PATIENCE", 20.0)
    with Receiver() as receiver:
        file = secret(tmp_path, f"{receiver.url}/people")
        with Alertmanager(tmp_path, ALERT_RECEIVER="webhook", ALERT_SECRET_FILE=file) as alertmanager:
            said = [live(alertmanager.url, alertmanager.path) for _ in range(2)]

    assert said == ["The test alert was handed over to webhook. Look whether it is there."] * 2


def test_live_says_why_nothing_arrives(tmp_path: Path) -> None:
    """A receiver that refuses, no receiver, and no Alertmanager are told apart."""
    for name in ("none", "refusing"):
        (tmp_path / name).mkdir()
    with Receiver() as receiver:
        receiver.refusals.add("/people")
        file = secret(tmp_path, f"{receiver.url}/people")
        with (
            Alertmanager(
                tmp_path / "refusing", ALERT_RECEIVER="webhook", ALERT_SECRET_FILE=file
            ) as alertmanager,
            pytest.raises(LiveError, match=r"webhook did not take the test alert: .*status code 503"),
        ):
            live(alertmanager.url, alertmanager.path)
    with (
        Alertmanager(tmp_path / "none") as alertmanager,
        pytest.raises(LiveError, match="set ALERT_RECEIVER"),
    ):
        live(alertmanager.url, alertmanager.path)
    with pytest.raises(LiveError, match=r"does not answer at http://127.0.0.1:1 .*: start the stack"):
        live("http://127.0.0.1:1", tmp_path / "no.log")


def test_live_says_what_a_mail_server_lacks(tmp_path: Path) -> None:
    """Alertmanager's reason is quoted, with the line that has to be written where."""
    (port,) = free_ports(1)
    mail = Controller(Sink(), "127.0.0.1", port)
    mail.start()
    try:
        file = secret(tmp_path, f"smarthost=127.0.0.1:{port}\nfrom=a@example.com\nto=b@example.com")
        with (
            Alertmanager(tmp_path, ALERT_RECEIVER="email", ALERT_SECRET_FILE=file) as alertmanager,
            pytest.raises(LiveError) as refusal,
        ):
            live(alertmanager.url, alertmanager.path)
    finally:
        mail.stop()

    assert re.fullmatch(
        r"email did not take the test alert: .*STARTTLS.*"
        r"\. Write require_tls=false into the file of ALERT_SECRET_FILE, or use TLS",
        str(refusal.value),
    )


def test_live_without_a_log_names_the_command(tmp_path: Path) -> None:
    """With compose the log is in the container."""
    with Receiver() as receiver:
        receiver.refusals.add("/people")
        file = secret(tmp_path, f"{receiver.url}/people")
        with (
            Alertmanager(tmp_path, ALERT_RECEIVER="webhook", ALERT_SECRET_FILE=file) as alertmanager,
            pytest.raises(LiveError, match=r"webhook did .*: .* \(docker compose logs alertmanager\)"),
        ):
            live(alertmanager.url, tmp_path / "no.log")
