"""Follows each alert of a fault: it fires in Prometheus, reaches the receiver with its links, and ends."""

import json
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import Any

from prometheus.drill.faults import Alert, Fault
from prometheus.drill.stack import SCALE, Stack
from prometheus.run import scale
from prometheus.run.plan import TOP

ARRIVES_WITHIN = 150.0  # seconds after the cause
RESOLVES_WITHIN = 500.0  # seconds after the repair: the short window of the slowest burn is 6 minutes here

SWITCH = "MonitoringDeadMansSwitch"  # never ends


@dataclass(slots=True)
class Course:
    """The course of one alert, in times of time.time()."""

    alert: Alert
    cause: float = 0.0
    firing: float | None = None
    arrival: float | None = None
    repair: float | None = None
    resolution: float | None = None
    complaints: list[str] = field(default_factory=list)

    @property
    def has_passed(self) -> bool:
        """Whether the alert went all the way."""
        return not self.complaints and self.arrival is not None and self.has_ended

    @property
    def has_ended(self) -> bool:
        """Whether the alert was resolved, or never is."""
        return self.resolution is not None or self.alert.name == SWITCH

    def matches(self, labels: dict[str, str]) -> bool:
        """Tell whether these are the labels of the alert."""
        return labels.get("alertname") == self.alert.name and self.alert.labels.items() <= labels.items()


class Watch:
    """Looks at Prometheus and at the receiver, and enters its observations into the courses."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._count = 0
        self.strays: set[str] = set()
        self._dashboards = {
            board["uid"]: {variable["name"] for variable in board["templating"]["list"]}
            for file in (TOP / "grafana/dashboards").glob("*/*.json")
            for board in [json.loads(file.read_text(encoding="utf-8"))]
        }

    def look(self, courses: list[Course]) -> None:
        """Enter everything since the last look."""
        for alert in self._stack.api("alerts")["alerts"]:
            if alert["state"] == "firing":
                for course in courses:
                    if course.firing is None and course.matches(alert["labels"]):
                        course.firing = time.time()
        posts = self._stack.receiver.posts[self._count :]
        self._count += len(posts)
        for post in posts:
            for alert in post.document["alerts"]:
                self._enter(alert, post.path, post.time, courses)

    def _enter(self, alert: dict[str, Any], path: str, moment: float, courses: list[Course]) -> None:
        matches = [course for course in courses if course.matches(alert["labels"])]
        if not matches and alert["labels"]["alertname"] != SWITCH:
            self.strays.add(f"{alert['labels']['alertname']} ({alert['labels'].get('service', '')})")
        for course in matches:
            if alert["status"] == "resolved":
                if course.arrival is not None:
                    course.resolution = moment
            elif course.arrival is None:
                course.arrival = moment
                course.complaints += self._complaints(alert, path)
                if course.alert.text not in " ".join(alert["annotations"].values()):
                    course.complaints.append(f"does not say {course.alert.text!r}")
            if alert["status"] == "firing":
                course.resolution = None

    def _complaints(self, alert: dict[str, Any], path: str) -> list[str]:
        """Return the faults of an alert that arrived."""
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


def is_old(stack: Stack, series: str) -> bool:
    """Tell whether one of these series was there an hour ago, a minute here."""
    promql = scale.expression(f"{series} offset 1h", SCALE)
    return bool(stack.api(f"query?{urllib.parse.urlencode({'query': promql})}")["result"])


@dataclass(slots=True)
class Drill:
    """One fault and the courses of its alerts."""

    fault: Fault
    courses: list[Course]
    begin: float = field(default_factory=time.time)
    cause: float | None = None
    repair: float | None = None

    @classmethod
    def of(cls, fault: Fault) -> "Drill":
        """Return a drill that has not begun."""
        return cls(fault, [Course(alert) for alert in fault.alerts])

    @property
    def over(self) -> bool:
        """Whether the drill has nothing more to wait for."""
        if self.repair is None:
            return False
        return time.time() - self.repair > RESOLVES_WITHIN or all(
            course.has_ended or course.arrival is None for course in self.courses
        )

    def step(self, stack: Stack) -> None:
        """Cause the fault once it may begin; mend it once all alerts have arrived or their time is up."""
        now = time.time()
        if self.cause is None:
            if self.fault.old and not is_old(stack, self.fault.old) and now - self.begin < ARRIVES_WITHIN:
                return
            self.fault.cause(stack)
            self.cause = now
            for course in self.courses:
                course.cause = now
        elif self.repair is None and (
            all(course.arrival for course in self.courses) or now - self.cause > ARRIVES_WITHIN
        ):
            self.fault.mend(stack)
            self.repair = now
            for course in self.courses:
                course.repair = now
