"""Follows each expected alert: firing in Prometheus, arrived at the receiver with its links, resolved."""

import json
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from prometheus.drill.faults import Expected, Fault
from prometheus.drill.stack import Stack
from prometheus.run.plan import TOP

ARRIVES_WITHIN = 150.0  # seconds after its cause
RESOLVES_WITHIN = 500.0  # seconds after the repair: the short window of the slowest burn is 6 minutes here

SWITCH = "MonitoringDeadMansSwitch"  # never ends


@dataclass(slots=True)
class Course:
    """What has become of one expected alert; times are time.time(), in seconds."""

    expected: Expected
    caused: float = 0.0
    fired: float | None = None
    arrived: float | None = None
    mended: float | None = None
    resolved: float | None = None
    complaints: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether it went all the way."""
        return not self.complaints and self.arrived is not None and self.ended

    @property
    def ended(self) -> bool:
        """Whether it was resolved, if it ever is."""
        return self.resolved is not None or self.expected.alert == SWITCH

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether these are the labels of the expected alert."""
        wanted = {"alertname": self.expected.alert, **self.expected.labels}
        return all(labels.get(label) == value for label, value in wanted.items())


class Watch:
    """Looks at Prometheus and at the receiver, and enters what it sees into the courses."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._seen = 0
        self.others: set[str] = set()
        self._dashboards = {
            board["uid"]: {variable["name"] for variable in board["templating"]["list"]}
            for file in (TOP / "grafana/dashboards").glob("*/*.json")
            for board in [json.loads(file.read_text(encoding="utf-8"))]
        }

    def look(self, courses: list[Course]) -> None:
        """Enter what is new."""
        for alert in self._stack.api("alerts")["alerts"]:
            if alert["state"] == "firing":
                for course in courses:
                    if course.fired is None and course.matches(alert["labels"]):
                        course.fired = time.time()
        posts = self._stack.receiver.posts[self._seen :]
        self._seen += len(posts)
        for post in posts:
            for alert in post.document["alerts"]:
                self._enter(alert, post.path, post.time, courses)

    def _enter(self, alert: dict[str, Any], path: str, when: float, courses: list[Course]) -> None:
        mine = [course for course in courses if course.matches(alert["labels"])]
        if not mine and alert["labels"]["alertname"] != SWITCH:
            self.others.add(f"{alert['labels']['alertname']} ({alert['labels'].get('service', '')})")
        for course in mine:
            if alert["status"] == "resolved":
                if course.arrived is not None:
                    course.resolved = when
            elif course.arrived is None:
                course.arrived = when
                course.complaints += self._wrong(alert, path)
            if alert["status"] == "firing":
                course.resolved = None

    def _wrong(self, alert: dict[str, Any], path: str) -> list[str]:
        """What is wrong with what was delivered."""
        name, annotations = alert["labels"]["alertname"], alert["annotations"]
        complaints = []
        if path != ("/heartbeat" if name == SWITCH else "/people"):
            complaints.append(f"came to {path}")
        if not annotations.get("summary") or not annotations.get("description"):
            complaints.append("has no texts")
        runbook = annotations.get("runbook_url", "")
        if not runbook.endswith(f"/{name}.md") or self._stack.get(runbook) != 200:
            complaints.append(f"runbook {runbook} cannot be read")
        link = urllib.parse.urlsplit(annotations.get("dashboard_url", ""))
        uid = link.path.removeprefix("/d/")
        variables = {key.removeprefix("var-"): value for key, value in urllib.parse.parse_qsl(link.query)}
        if not annotations.get("dashboard_url", "").startswith(f"{self._stack.plan.url('grafana')}/d/"):
            complaints.append("has no link to a dashboard")
        elif uid not in self._dashboards or not variables.keys() <= self._dashboards[uid]:
            complaints.append(f"dashboard {uid} has no variables {', '.join(variables)}")
        elif not set(variables.values()) <= set(alert["labels"].values()):
            complaints.append(f"dashboard link {link.query} is not about it")
        if not alert["generatorURL"].startswith(self._stack.plan.url("prometheus")):
            complaints.append(f"query link {alert['generatorURL']} leads elsewhere")
        return complaints


@dataclass(slots=True)
class Drill:
    """One fault and the courses of its alerts."""

    fault: Fault
    courses: list[Course]
    caused: float | None = None
    mended: float | None = None

    @classmethod
    def of(cls, fault: Fault) -> "Drill":
        """A drill that has not begun."""
        return cls(fault, [Course(expected) for expected in fault.expected])

    @property
    def over(self) -> bool:
        """Whether there is nothing more to wait for."""
        if self.mended is None:
            return False
        return time.time() - self.mended > RESOLVES_WITHIN or all(
            course.ended or course.arrived is None for course in self.courses
        )

    def step(self, stack: Stack) -> None:
        """Begin, or mend once all alerts have arrived, or too much time has passed."""
        now = time.time()
        if self.caused is None:
            self.fault.cause(stack)
            self.caused = now
            for course in self.courses:
                course.caused = now
        elif self.mended is None and (
            all(course.arrived for course in self.courses) or now - self.caused > ARRIVES_WITHIN
        ):
            self.fault.mend(stack)
            self.mended = now
            for course in self.courses:
                course.mended = now
