"""The real Alertmanager with the shipped configuration tells receivers that the tests own."""

import asyncio
import contextlib
import email
import email.policy
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.message import EmailMessage
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from prometheus.drill.receiver import Receiver
from prometheus.run.mail import complaints
from prometheus.tools.toolbox import executable
from tests.rig.alertmanager import Alertmanager, secret
from tests.rig.deadline import eventually
from tests.rig.network import free_ports, get_json
from tests.rig.places import ROOT

START = ROOT / "prometheus/alertmanager/start.sh"
BEGAN = datetime(2026, 3, 1, 12, 0, tzinfo=timezone.utc)

LABELS = {"alertname": "FlaskErrorRatioCritical", "job": "app", "service": "orders", "severity": "critical"}
ANNOTATIONS = {
    "summary": "More than a tenth of the requests fail.",
    "headline": "orders: 87% of requests fail",
    "description": "87% of the requests to orders in the last 5 minutes ended in an error (limit: 10%). "
    "Users see error pages.",
    "culprits": "/orders/<int:id> (ValueError, 12/s, 96% of the errors). Version 1.4.2 came 6m ago.",
    "past": "At worst 93.1% of the requests to orders failed.",
    "runbook_url": "http://127.0.0.1:9090/user/FlaskErrorRatioCritical.md",
    "dashboard_url": "http://127.0.0.1:3000/d/flask-errors?var-job=app&var-service=orders",
}
WINDOW = f"&from={int(BEGAN.timestamp() - 3600) * 1000}&to=now"
DASHBOARD = ANNOTATIONS["dashboard_url"] + WINDOW
REQUESTS = (
    "http://127.0.0.1:3000/d/flask-requests?var-job=app&var-service=orders&var-status_class=5.." + WINDOW
)


def alert(
    ends: datetime | None = None, annotations: dict[str, str] = ANNOTATIONS, **labels: str
) -> dict[str, Any]:
    """An alert of the kind that the rules send: firing, or with `ends` resolved."""
    until = ends or datetime.now(timezone.utc) + timedelta(hours=1)
    return {
        "labels": LABELS | labels,
        "annotations": annotations,
        "startsAt": BEGAN.isoformat(),
        "endsAt": until.isoformat(),
        "generatorURL": "http://127.0.0.1:9090/graph",
    }


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """An HTTP receiver."""
    with Receiver() as receiver:
        yield receiver


def silence(alertmanager: Alertmanager) -> str:
    """Address of the form that silences the test's alert."""
    return (
        f"{alertmanager.url}/#/silences/new?filter=%7B"
        "alertname%3D%22FlaskErrorRatioCritical%22%2Cservice%3D%22orders%22%7D"
    )


def test_discord(tmp_path: Path, receiver: Receiver) -> None:
    """Discord gets the message as an embed, with what is felt, since when, and links; then the resolution."""
    file = secret(tmp_path, f"{receiver.url}/api/webhooks/123/abc-DEF_1\n")
    with Alertmanager(tmp_path, ALERT_RECEIVER="discord", ALERT_SECRET_FILE=file) as alertmanager:
        alertmanager.send(alert())
        eventually(lambda: receiver.posts, "a message", 20)
        alertmanager.send(alert(ends=BEGAN + timedelta(minutes=7)))
        eventually(lambda: len(receiver.posts) > 1, "the resolution")
    fired, resolved = (post.document["embeds"][0] for post in receiver.posts)

    assert receiver.posts[0].path == "/api/webhooks/123/abc-DEF_1"
    assert fired["title"] == "🔴 CRITICAL orders: 87% of requests fail"
    assert fired["description"] == (
        f"{ANNOTATIONS['description']}\n{ANNOTATIONS['culprits']}\nSince 1 Mar 12:00 UTC.\n\n"
        f"[Dashboard]({DASHBOARD}) · [Log lines]({REQUESTS}) · [What to do]({ANNOTATIONS['runbook_url']}) · "
        f"[Silence]({silence(alertmanager)}) "
    )
    assert resolved["title"] == (
        "🟢 RESOLVED orders after 7m: At worst 93.1% of the requests to orders failed."
    )
    assert resolved["description"].startswith(
        "Over: At worst 93.1% of the requests to orders failed.\n"
        "From 1 Mar 12:00 to 12:07 UTC: it lasted 7m.\n\n[Dashboard]("
    )
    assert "What to do" not in resolved["description"]
    assert f"&to={int(BEGAN.timestamp() + 17 * 60) * 1000})" in resolved["description"]


def test_two_tell_people_once(tmp_path: Path, receiver: Receiver) -> None:
    """Both get every alert; each alert is told by one of them, and by the other if that one is gone."""
    ports = free_ports(2)
    file = secret(tmp_path, f"{receiver.url}/alerts\n")

    def started(own: int, other: int) -> Alertmanager:
        return Alertmanager(
            tmp_path / f"{own}",
            f"--cluster.listen-address=127.0.0.1:{own}",
            f"--cluster.peer=127.0.0.1:{other}",
            "--cluster.peer-timeout=1s",
            "--cluster.gossip-interval=20ms",  # it waits for tens of them before its first message
            "--cluster.reconnect-interval=1s",
            ALERT_RECEIVER="webhook",
            ALERT_SECRET_FILE=file,
        )

    def told() -> list[tuple[str, str]]:
        documents = [post.document for post in receiver.posts]
        return [(each["status"], each["commonLabels"]["service"]) for each in documents]

    def peers(each: Alertmanager) -> int:
        return len(get_json(f"{each.url}/api/v2/status")["cluster"].get("peers", ()))

    with started(*reversed(ports)) as second:
        with started(*ports) as first:
            eventually(lambda: peers(first) == peers(second) == 2, "they know each other")
            for each in first, second:
                each.send(alert())
            eventually(told, "a message", 20)
            for each in first, second:
                each.send(alert(ends=BEGAN + timedelta(minutes=7)))
            eventually(lambda: ("resolved", "orders") in told(), "the resolution", 20)
        second.send(alert(service="shop"))
        eventually(lambda: ("firing", "shop") in told(), "a message of the one that is left", 20)

    assert told() == [("firing", "orders"), ("resolved", "orders"), ("firing", "shop")]


def test_slack(tmp_path: Path, receiver: Receiver) -> None:
    """Slack gets one attachment whose marks are escaped and whose title leads to the dashboard."""
    file = secret(tmp_path, f"{receiver.url}/services/T0/B0/abc")
    with Alertmanager(tmp_path, ALERT_RECEIVER="slack", ALERT_SECRET_FILE=file) as alertmanager:
        alertmanager.send(alert())
        eventually(lambda: receiver.posts, "a message", 20)
    (attachment,) = receiver.posts[0].document["attachments"]

    assert attachment["title"] == "CRITICAL orders: 87% of requests fail"
    assert attachment["title_link"] == DASHBOARD
    assert attachment["color"] == "danger"
    assert attachment["text"] == (
        f"{ANNOTATIONS['description']}\n"
        "/orders/&lt;int:id&gt; (ValueError, 12/s, 96% of the errors). Version 1.4.2 came 6m ago.\n"
        f"Since 1 Mar 12:00 UTC.\n\n<{DASHBOARD}|Dashboard> · <{REQUESTS}|Log lines> · "
        f"<{ANNOTATIONS['runbook_url']}|What to do> · <{silence(alertmanager)}|Silence> "
    )


def test_webhook(tmp_path: Path, receiver: Receiver) -> None:
    """A webhook gets the document of its page, with all labels and annotations, and then the resolution."""
    file = secret(tmp_path, f"{receiver.url}/alerts?team=shop")
    with Alertmanager(tmp_path, ALERT_RECEIVER="webhook", ALERT_SECRET_FILE=file) as alertmanager:
        alertmanager.send(alert())
        eventually(lambda: receiver.posts, "a message", 20)
        alertmanager.send(alert(ends=BEGAN + timedelta(minutes=7)))
        eventually(lambda: len(receiver.posts) > 1, "the resolution")
    fired, resolved = (post.document for post in receiver.posts)

    page = (START.parent / "webhook.md").read_text(encoding="utf-8")
    example = page.partition("```json\n")[2].partition("```")[0]
    fired.pop("notification_reason", None)  # not of every release

    assert receiver.posts[0].path == "/alerts?team=shop"
    assert fired == json.loads(example) | {"externalURL": alertmanager.url}
    assert [(one["labels"], one["annotations"]) for one in fired["alerts"]] == [(LABELS, ANNOTATIONS)]
    assert [(one["status"], one["endsAt"]) for one in resolved["alerts"]] == [
        ("resolved", "2026-03-01T12:07:00Z")
    ]


@pytest.mark.parametrize(
    ("name", "dashboard", "lines"),
    [
        ("FlaskLatencyHigh", "flask-endpoints?var-job=app", "flask-requests?var-job=app&var-slower=0.5"),
        (
            "FlaskLatencyBudgetBurn",
            "flask-slo?var-slo=latency&var-url_rule=%2Forders",
            "flask-requests?var-slo=latency&var-url_rule=%2Forders&var-slower=0.5",
        ),
        (
            "FlaskNewErrorType",
            "flask-errors?var-error_type=KeyError",
            "flask-requests?var-error_type=KeyError",
        ),
        ("FlaskTargetDown", "flask-service?var-job=app", None),
    ],
)
def test_lines_are_those_of_the_requests_that_the_alert_is_about(
    tmp_path: Path, receiver: Receiver, name: str, dashboard: str, lines: str | None
) -> None:
    """The link carries the alert's own selection, and has none where no request is to blame."""
    file = secret(tmp_path, f"{receiver.url}/services/T0/B0/abc")
    about = ANNOTATIONS | {"dashboard_url": f"http://127.0.0.1:3000/d/{dashboard}"}
    with Alertmanager(tmp_path, ALERT_RECEIVER="slack", ALERT_SECRET_FILE=file) as alertmanager:
        alertmanager.send(alert(annotations=about, alertname=name))
        eventually(lambda: receiver.posts, "a message", 20)
    (attachment,) = receiver.posts[0].document["attachments"]
    found = re.findall(r"<(\S+)\|Log lines>", attachment["text"])

    assert found == ([] if lines is None else [f"http://127.0.0.1:3000/d/{lines}{WINDOW}"])


@pytest.mark.parametrize("kind", ["discord", "slack"])
def test_many_long_alerts_stay_within_the_limits(tmp_path: Path, receiver: Receiver, kind: str) -> None:
    """Sixty alerts with long texts are one message that the service takes, and all its links are whole."""
    path = {"discord": "api/webhooks/1/a", "slack": "services/T/B/x"}[kind]
    file = secret(tmp_path, f"{receiver.url}/{path}")
    endpoint = "/" + "a-very-long-name-of-a-resource/" * 6
    long = ANNOTATIONS | {
        "description": ANNOTATIONS["description"] + 3 * endpoint,
        "culprits": " " + 3 * f"{endpoint}, ",
    }
    with Alertmanager(tmp_path, ALERT_RECEIVER=kind, ALERT_SECRET_FILE=file) as alertmanager:
        alertmanager.send(*(alert(annotations=long, url_rule=f"{endpoint}{n}") for n in range(60)))

        # The first message goes out when the first alerts are in, the next one has all of them.
        def complete() -> bool:
            return bool(receiver.posts) and "Five of 60 alerts" in json.dumps(receiver.posts[-1].document)

        eventually(complete, "a message about all alerts")
    document = receiver.posts[-1].document

    if kind == "discord":  # https://discord.com/developers/docs/resources/message#embed-object-embed-limits
        (embed,) = document["embeds"]
        assert len(embed["title"]) <= 256
        assert len(embed["description"]) <= 4096
        assert len(document.get("content", "")) <= 2000
        text = embed["description"]
    else:  # https://docs.slack.dev/messaging/: 4,000 characters recommended, cut above 40,000
        (attachment,) = document["attachments"]
        text = attachment["text"]
        assert len(text) <= 4000
    assert text.count("Since 1 Mar") == 5
    assert text.count(DASHBOARD) == text.count(REQUESTS) == 1
    assert silence(alertmanager) in text
    assert "Five of 60 alerts are shown." in text


class Mailbox:
    """Keeps the e-mails that come, if user and password are right."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.logins: list[tuple[bytes, bytes]] = []

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        content = envelope.content
        assert isinstance(content, bytes)
        mail = email.message_from_bytes(content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"

    def authenticate(self, *arguments: Any) -> AuthResult:
        login = arguments[4]
        assert isinstance(login, LoginPassword)
        self.logins.append((login.login, login.password))
        return AuthResult(success=self.logins[-1] == (b"stack", b"pass word $1"))


@contextlib.contextmanager
def smtp_server(mailbox: Mailbox) -> Iterator[int]:
    """An SMTP server on a free port that wants a login."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)

    def protocol() -> SMTP:
        return SMTP(
            mailbox,
            loop=loop,
            hostname="127.0.0.1",
            authenticator=mailbox.authenticate,
            auth_required=True,
            auth_require_tls=False,
            auth_exclude_mechanism=["LOGIN"],  # prompts in words that Alertmanager does not know
        )

    server = loop.run_until_complete(loop.create_server(protocol, "127.0.0.1", 0))
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS", "ignore:Session.login_data")
def test_email(tmp_path: Path) -> None:
    """An e-mail comes over SMTP with login, as text and as HTML, and so does its resolution."""
    mailbox = Mailbox()
    with smtp_server(mailbox) as port:
        file = secret(
            tmp_path,
            f"smarthost=127.0.0.1:{port}\nfrom=Stack <stack@example.com>\nto=a@example.com, b@example.com\n"
            "username=stack\npassword=pass word $1\nrequire_tls=false\n",
        )
        with Alertmanager(tmp_path, ALERT_RECEIVER="email", ALERT_SECRET_FILE=file) as alertmanager:
            alertmanager.send(alert())
            eventually(lambda: mailbox.mails, "an e-mail", 20)
            alertmanager.send(alert(ends=BEGAN + timedelta(minutes=7)))
            eventually(lambda: len(mailbox.mails) > 1, "the resolution")
            assert set(mailbox.logins) == {(b"stack", b"pass word $1")}
    fired, resolved = mailbox.mails
    text, html = (fired.get_body(kind) for kind in (("plain",), ("html",)))

    assert fired["Subject"] == "CRITICAL orders: 87% of requests fail"
    assert resolved["References"] == fired["References"]  # one thread
    assert fired["From"] == "Stack <stack@example.com>"
    assert fired["To"] == "a@example.com, b@example.com"
    assert text is not None
    assert text.get_content().replace("\r\n", "\n").rstrip("\n") == (
        f"{ANNOTATIONS['description']}\n{ANNOTATIONS['culprits']}\nSince 1 Mar 12:00 UTC.\n\n"
        f"Dashboard:  {DASHBOARD}\nLog lines:  {REQUESTS}\n"
        f"What to do: {ANNOTATIONS['runbook_url']}\nSilence:    {silence(alertmanager)}"
    )
    assert html is not None
    assert "/orders/&lt;int:id&gt; (ValueError, 12/s, 96% of the errors)." in html.get_content()
    assert "border-left: 8px solid #c62828" in html.get_content()
    assert f'<a href="{DASHBOARD.replace("&", "&amp;")}" style=' in html.get_content()
    assert f'<a href="{REQUESTS.replace("&", "&amp;")}">Log lines</a>' in html.get_content()
    assert f'<a href="{silence(alertmanager)}">Silence</a>' in html.get_content()
    assert resolved["Subject"] == (
        "RESOLVED orders after 7m: At worst 93.1% of the requests to orders failed."
    )


def test_no_receiver_needs_no_secret(tmp_path: Path) -> None:
    """By default nobody is told, and the alerts can be read from Alertmanager."""
    with Alertmanager(tmp_path) as alertmanager:
        alertmanager.send(alert())
        with urllib.request.urlopen(f"{alertmanager.url}/api/v2/alerts", timeout=10) as answer:
            (known,) = json.load(answer)

    assert known["labels"] == LABELS
    assert known["receivers"] == [{"name": "people"}]


def test_dead_mans_switch_goes_to_its_own_receiver(tmp_path: Path, receiver: Receiver) -> None:
    """The switch comes again and again, to the heartbeat's address alone; a real alert goes to the people."""
    heartbeat = tmp_path / "heartbeat"
    heartbeat.write_text(f"{receiver.url}/heartbeat")
    file = secret(tmp_path, f"{receiver.url}/people")
    switch = alert(alertname="MonitoringDeadMansSwitch", severity="info")
    environ = {"ALERT_RECEIVER": "webhook", "ALERT_SECRET_FILE": file, "ALERT_HEARTBEAT_FILE": str(heartbeat)}
    with Alertmanager(tmp_path, **environ) as alertmanager:
        alertmanager.send(switch, alert())
        eventually(lambda: len(receiver.posts) > 3, "a message and some heartbeats")
    names = {
        (post.path, one["labels"]["alertname"]) for post in receiver.posts for one in post.document["alerts"]
    }

    assert names == {("/heartbeat", "MonitoringDeadMansSwitch"), ("/people", "FlaskErrorRatioCritical")}
    assert [post.path for post in receiver.posts].count("/people") == 1


def heartbeats(directory: Path, receiver: Receiver, count: int) -> list[float]:
    """The seconds between so many arrivals of the switch, as they would be with the shipped times."""
    heartbeat = directory / "heartbeat"
    heartbeat.write_text(f"{receiver.url}/heartbeat")
    with Alertmanager(directory, ALERT_HEARTBEAT_FILE=str(heartbeat)) as alertmanager:
        alertmanager.send(alert(alertname="MonitoringDeadMansSwitch", severity="info"))
        limit = 30 + 180 * count / alertmanager.factor
        eventually(lambda: len(receiver.posts) > count, "heartbeats", limit)
    times = [post.time for post in receiver.posts]
    return [alertmanager.factor * (later - earlier) for earlier, later in pairwise(times)]


def test_dead_mans_switch_comes_as_often_as_its_runbook_says(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every minute, a second here. A repetition that came due a moment later would skip each second one."""
    runbook = (ROOT / "prometheus/runbooks/MonitoringDeadMansSwitch.md").read_text(encoding="utf-8")
    monkeypatch.setattr(Alertmanager, "factor", 60.0)

    assert "every minute" in runbook
    assert statistics.median(heartbeats(tmp_path, receiver, 5)) == pytest.approx(60, abs=15)


@pytest.mark.soak
def test_dead_mans_switch_comes_every_minute(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the times as they are shipped."""
    monkeypatch.setattr(Alertmanager, "factor", 1.0)

    assert heartbeats(tmp_path, receiver, 5) == pytest.approx([60] * 5, abs=2)


def states(alertmanager: Alertmanager) -> dict[tuple[str, ...], str]:
    """Name, service and further labels of each alert → active or suppressed."""
    with urllib.request.urlopen(f"{alertmanager.url}/api/v2/alerts", timeout=10) as answer:
        return {
            (
                one["labels"]["alertname"],
                *(one["labels"][label] for label in ("service", "env") if label in one["labels"]),
            ): one["status"]["state"]
            for one in json.load(answer)
        }


def test_a_cause_silences_its_symptoms(tmp_path: Path) -> None:
    """What follows from something is held back for that service in that environment, and only there."""
    with Alertmanager(tmp_path) as alertmanager:
        alertmanager.send(
            alert(alertname="FlaskTargetDown", scope="service", instance="a:1"),
            alert(alertname="ProbeFailed", job="probe", instance="http://a:1/"),
            alert(alertname="FlaskTrafficGone", severity="warning"),
            # A certificate is no symptom of it, and neither is a deploy.
            alert(alertname="ProbeCertificateExpiring", job="probe", severity="warning"),
            alert(alertname="FlaskNewVersion", severity="info"),
            alert(alertname="FlaskTargetDown", scope="instance", instance="c:1", service="calm"),
            alert(alertname="FlaskErrorRatioCritical", service="calm"),
            alert(alertname="FlaskErrorRatioHigh", service="calm", severity="warning"),
            alert(alertname="FlaskErrorBudgetBurn", service="calm", slo="errors", window="1h"),
            alert(alertname="FlaskErrorBurst", service="calm", severity="warning"),
            alert(alertname="FlaskLatencyHigh", service="calm", severity="warning"),
            alert(alertname="FlaskLatencyUnusual", service="calm", severity="warning"),
            alert(alertname="FlaskTargetDown", scope="service", service="shop", env="staging"),
            alert(alertname="FlaskErrorRatioCritical", service="shop", env="staging"),
            alert(alertname="FlaskErrorRatioCritical", service="shop", env="prod"),
            alert(alertname="FlaskWorkerRestartLoop", service="dying"),
            alert(alertname="FlaskLatencyUnusual", service="dying", severity="warning"),
            alert(alertname="FlaskErrorRatioHigh", service="dying", severity="warning"),
            alert(alertname="HostMemoryLow", service="", job="node"),
        )
        eventually(
            lambda: len(states(alertmanager)) == 19 and "suppressed" in states(alertmanager).values(),
            "the alerts are sorted",
            20,
        )
        sorted_alerts = states(alertmanager)

    assert sorted_alerts == {
        ("FlaskTargetDown", "orders"): "active",
        ("ProbeFailed", "orders"): "suppressed",
        ("FlaskTrafficGone", "orders"): "suppressed",
        ("ProbeCertificateExpiring", "orders"): "active",
        ("FlaskNewVersion", "orders"): "active",
        ("FlaskTargetDown", "calm"): "active",
        ("FlaskErrorRatioCritical", "calm"): "active",
        ("FlaskErrorRatioHigh", "calm"): "suppressed",
        ("FlaskErrorBudgetBurn", "calm"): "suppressed",
        ("FlaskErrorBurst", "calm"): "suppressed",
        ("FlaskLatencyHigh", "calm"): "suppressed",
        ("FlaskLatencyUnusual", "calm"): "active",
        ("FlaskTargetDown", "shop", "staging"): "active",
        ("FlaskErrorRatioCritical", "shop", "staging"): "suppressed",
        ("FlaskErrorRatioCritical", "shop", "prod"): "active",
        ("FlaskWorkerRestartLoop", "dying"): "active",
        ("FlaskLatencyUnusual", "dying"): "suppressed",
        ("FlaskErrorRatioHigh", "dying"): "active",
        ("HostMemoryLow",): "active",
    }


def test_one_trouble_is_one_message(tmp_path: Path, receiver: Receiver) -> None:
    """Alerts of one service that come together are one message, and what is over in it is marked."""
    file = secret(tmp_path, f"{receiver.url}/services/T0/B0/abc")
    with Alertmanager(tmp_path, ALERT_RECEIVER="slack", ALERT_SECRET_FILE=file) as alertmanager:
        alertmanager.send(alert(), alert(alertname="FlaskLatencyBudgetBurn", slo="tail"))
        # The first message may have gone out with the first of them.
        eventually(
            lambda: "and more" in json.dumps([post.document for post in receiver.posts[-1:]]),
            "both in one message",
            20,
        )
        count = len(receiver.posts)
        alertmanager.send(
            alert(), alert(ends=BEGAN + timedelta(minutes=7), alertname="FlaskLatencyBudgetBurn", slo="tail")
        )
        eventually(lambda: len(receiver.posts) > count, "a part of it is over", 20)
    first, second = (post.document["attachments"][0] for post in receiver.posts[count - 1 : count + 1])

    assert first["title"] == "CRITICAL orders: 87% of requests fail, and more"
    assert first["text"].count("Since 1 Mar") == 2
    assert second["title"] == "CRITICAL orders: 87% of requests fail"
    assert second["text"].count("Since 1 Mar") == second["text"].count("Over: At worst") == 1


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_a_mail_server_without_starttls_is_named_at_the_start(tmp_path: Path) -> None:
    """Alertmanager alone finds out with the first alert, and says so in its log."""

    def found(line: str = "", host: str = "127.0.0.1") -> list[str]:
        content = f"smarthost={host}:{port}\nfrom=a@example.com\nto=b@example.com\n{line}"
        answer = start(tmp_path, ALERT_RECEIVER="email", ALERT_SECRET_FILE=secret(tmp_path, content))
        assert answer.stderr == ""
        return complaints(tmp_path / "alertmanager.yml")

    with smtp_server(Mailbox()) as port:
        assert found() == [
            f"smarthost=127.0.0.1:{port} in the file of ALERT_SECRET_FILE offers no STARTTLS and will get no "
            "alert: write require_tls=false into the file, or name a server with TLS"
        ]
        assert found("require_tls=false\n") == []
    assert found("require_tls=false\n") == [
        f"smarthost=127.0.0.1:{port} in the file of ALERT_SECRET_FILE does not answer (Connection refused): "
        "start it, or mend its address"
    ]
    (typo,) = found(host="smtp..example.com")
    assert typo.startswith(f"smarthost=smtp..example.com:{port} in the file of ALERT_SECRET_FILE does not ")
    assert start(tmp_path).returncode == 0
    assert complaints(tmp_path / "alertmanager.yml") == []


def test_an_environment_is_named_first(tmp_path: Path, receiver: Receiver) -> None:
    """What fails in staging wakes nobody."""
    file = secret(tmp_path, f"{receiver.url}/services/T0/B0/abc")
    with Alertmanager(tmp_path, ALERT_RECEIVER="slack", ALERT_SECRET_FILE=file) as alertmanager:
        alertmanager.send(alert(env="staging"))
        eventually(lambda: receiver.posts, "a message", 20)
        alertmanager.send(alert(ends=BEGAN + timedelta(minutes=7), env="staging"))
        eventually(lambda: len(receiver.posts) > 1, "the resolution")
    titles = [post.document["attachments"][0]["title"] for post in receiver.posts]

    assert titles[0] == "CRITICAL staging orders: 87% of requests fail"
    assert titles[1].startswith("RESOLVED staging orders after 7m: At worst")


@pytest.mark.parametrize("kind", ["discord", "slack"])
def test_an_alert_of_ones_own_has_only_the_links_that_it_names(
    tmp_path: Path, receiver: Receiver, kind: str
) -> None:
    """Without annotations and severity the message is its name, without empty links."""
    path = {"discord": "api/webhooks/1/a", "slack": "services/T/B/x"}[kind]
    bare = {
        "labels": {"alertname": "Own", "service": "orders"},
        "annotations": {},
        "startsAt": BEGAN.isoformat(),
        "endsAt": (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat(),
    }
    with Alertmanager(
        tmp_path, ALERT_RECEIVER=kind, ALERT_SECRET_FILE=secret(tmp_path, f"{receiver.url}/{path}")
    ) as alertmanager:
        alertmanager.send(bare)
        eventually(lambda: receiver.posts, "a message", 20)
    document = receiver.posts[0].document
    message = document["embeds"][0] if kind == "discord" else document["attachments"][0]
    text = message.get("description") or message["text"]

    assert message["title"].removeprefix("🟠 ") == "orders: Own"
    assert re.findall(r"\[(.*?)\]\(|\|(.*?)>", text) in ([("Silence", "")], [("", "Silence")])
    assert "from=" not in json.dumps(document)


EMAIL = "smarthost=smtp.example.com:587\nfrom=a@example.com\nto=b@example.com\n"


@pytest.mark.parametrize(
    ("receiver_name", "content", "complaint"),
    [
        ("pager", None, "ALERT_RECEIVER=pager is unknown: use none, discord, slack, email or webhook"),
        ("discord", None, "there is no such file"),
        ("discord", "", "is empty: write a URL such as https://discord.com/api/webhooks/123/abc into it"),
        ("discord", "https://discord.com/channels/1/2\n", "is malformed: it must hold one line with a URL"),
        (
            "discord",
            "http://discord.com/api/webhooks/1/a\n",
            "http:// would send the secret in plain text; write",
        ),
        (
            "slack",
            "http://hooks.slack.com/services/T/B/x\n",
            "as in https://hooks.slack.com/services/T0/B0/abc",
        ),
        ("discord", "https://discord.com/api/webhooks/1/a\nx\n", "is malformed"),
        ("slack", "https://hooks.slack.com/\n", "such as https://hooks.slack.com/services/T0/B0/abc"),
        ("webhook", "example.com/alerts\n", "such as https://example.com/alerts"),
        ("email", "\n", "is empty: write lines such as smarthost=smtp.example.com:587 into it"),
        ("email", EMAIL.replace("from=a@example.com\n", ""), "is malformed: it needs one line from="),
        ("email", EMAIL.replace(":587", ""), "smarthost=smtp.example.com is not host:port"),
        ("email", EMAIL.replace("b@example.com", "b"), "to=b is no address"),
        ("email", EMAIL + "username=u\n", "username= and password= go together"),
        ("email", EMAIL + "require_tls=no\n", "require_tls=no is neither true nor false"),
        ("email", EMAIL + "passwort=x\n", "is malformed: each line is smarthost=, from=, to=, username="),
        ("email", EMAIL + 'username=u\npassword=a"b\n', "without quotes and backslashes"),
    ],
)
def test_a_secret_that_cannot_work_is_refused_at_the_start(
    tmp_path: Path, receiver_name: str, content: str | None, complaint: str
) -> None:
    """One line names the setting and the remedy, and Alertmanager is not started."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)

    answer = start(tmp_path, ALERT_RECEIVER=receiver_name, ALERT_SECRET_FILE=str(file))

    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.count("\n") == 1
    assert complaint in answer.stderr
    assert receiver_name == "pager" or f"ALERT_SECRET_FILE={file}" in answer.stderr


def test_a_receiver_without_a_secret_file_is_refused(tmp_path: Path) -> None:
    """The variable that is missing is named."""
    answer = start(tmp_path, ALERT_RECEIVER="slack", ALERT_SECRET_FILE="")

    assert answer.returncode == 1
    assert answer.stderr == (
        "ALERT_SECRET_FILE is not set: ALERT_RECEIVER=slack needs the file with its secret there\n"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become the container's user")
def test_a_secret_that_the_containers_user_cannot_read_is_refused() -> None:
    """Compose leaves a file's mode as it is, and the container runs as 65534."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        file = directory / "secret"
        file.write_text("https://discord.com/api/webhooks/1/a\n")
        file.chmod(0o600)
        answer = start(directory, user=65534, ALERT_RECEIVER="discord", ALERT_SECRET_FILE=str(file))

    assert answer.returncode == 1
    assert f"ALERT_SECRET_FILE={file} cannot be read by user 65534" in answer.stderr


@pytest.mark.parametrize("kind", ["none", "discord", "slack", "webhook", "email"])
def test_every_receiver_makes_a_valid_configuration(tmp_path: Path, kind: str) -> None:
    """amtool takes what start.sh writes, which only its owner may read."""
    content = {
        "discord": "https://discord.com/api/webhooks/1/a-b?thread_id=7\n",
        "slack": "https://hooks.slack.com/services/T/B/x",
        "webhook": "http://bot:8080\n",
        "email": EMAIL + "username=u\npassword=p w#: 'x' & |$y\n",
    }.get(kind, "")
    answer = start(tmp_path, ALERT_RECEIVER=kind, ALERT_SECRET_FILE=secret(tmp_path, content))
    config = tmp_path / "alertmanager.yml"

    assert (answer.returncode, answer.stderr) == (0, "")
    assert config.stat().st_mode & 0o777 == 0o600
    subprocess.run([executable("amtool"), "check-config", config], check=True, capture_output=True)


@pytest.mark.parametrize("name", ["r&d", "r,d", "a|b {c}: #d [", "two  words"])
def test_a_path_with_signs_in_it_leads_to_the_same_files(tmp_path: Path, name: str) -> None:
    """The templates are found, or the start says why not; a notification without them would be empty."""
    here = tmp_path / name
    shutil.copytree(START.parent, here)
    file = secret(here, "https://hooks.slack.com/services/T/B/x")
    answer = start(tmp_path, script=here / "start.sh", ALERT_RECEIVER="slack", ALERT_SECRET_FILE=file)
    if "[" in name:
        assert (answer.returncode, f"{here}: put these files into" in answer.stderr) == (1, True)
        return
    written = yaml.safe_load((tmp_path / "alertmanager.yml").read_text())

    assert (answer.returncode, answer.stderr) == (0, "")
    assert written["templates"] == [f"{here}/templates/*.tmpl"]
    assert written["receivers"][0]["slack_configs"][0]["api_url_file"] == file


@pytest.mark.parametrize("kind", ["file", "link"])
def test_the_configuration_is_a_new_file(tmp_path: Path, kind: str) -> None:
    """Whatever was there: a file that all may read does not get the password, and no link is followed."""
    config, victim = tmp_path / "alertmanager.yml", tmp_path / "victim"
    victim.write_text("precious")
    if kind == "link":
        config.symlink_to(victim)
    else:
        config.write_text("old")
        config.chmod(0o666)
    answer = start(tmp_path, ALERT_RECEIVER="none")

    assert (answer.returncode, answer.stderr) == (0, "")
    assert config.lstat().st_mode & 0o177777 == 0o100600
    assert victim.read_text() == "precious"


def test_a_step_that_fails_ends_the_start(tmp_path: Path) -> None:
    """Alertmanager never gets half of a configuration."""
    here = tmp_path / "here"
    shutil.copytree(START.parent, here)
    (here / "receivers" / "none.yml").unlink()
    answer = start(tmp_path, script=here / "start.sh", ALERT_RECEIVER="none")

    assert answer.returncode != 0
    assert "none.yml" in answer.stderr


def start(
    directory: Path, user: int | None = None, script: Path = START, **environ: str
) -> "subprocess.CompletedProcess[str]":
    """What start.sh does with a program that ends at once in Alertmanager's place."""
    return subprocess.run(
        ["sh", script, "true", f"--config.file={directory}/alertmanager.yml"],
        env={"PATH": os.environ["PATH"], **environ},
        user=user,
        capture_output=True,
        text=True,
        check=False,
    )
