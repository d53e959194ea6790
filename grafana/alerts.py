"""What fires now: as a table of alerts, and as one word and its reasons for each service."""

from grafana_foundation_sdk.builders import table

from grafana.fields import States
from grafana.links import runbook, to
from grafana.promql import SERVICE, firing
from grafana.tables import Column, Key, rows
from grafana.thresholds import BAD, FINE, WARNING

STATES: States = {
    0: ("Down", BAD),
    1: ("Critical", BAD),
    2: ("Partly down", WARNING),
    3: ("Check fails", WARNING),
    4: ("Warning", WARNING),
    5: ("OK", FINE),
}
"""The state of a service, the worst first."""
SEVERITIES = {"critical": BAD, "warning": WARNING}
_ROW = (
    "var-service=${__data.fields.service_link:percentencode}",
    "var-url_rule=${__data.fields.rule_link:percentencode}",
)
_PAGES = ("flask-service", "flask-endpoints", "flask-errors", "flask-slo")


def firing_alerts(instances: str = "", width: int = 12, height: int = 7) -> table.Panel:
    """List the alerts that fire now, critical ones first and then the newest, one row for each service,
    instance and endpoint.

    Links choose the service and the endpoint of the alert, or all where it is about no single one: hidden
    columns have the values, because a link sees a cell's text and not its value. The matcher `instances`
    leaves out those of other instances.
    """
    selection = firing(*_of_instances(instances))
    alerts = (
        "min by (severity, alertname, service, instance, url_rule)"
        f" (ALERTS_FOR_STATE and ignoring (alertstate) {selection}) * 1000"
    )
    for label, hidden in {"service": "service_link", "url_rule": "rule_link"}.items():
        alerts = (
            f'label_replace(label_replace({alerts}, "{hidden}", "$$__all", "", ""),'
            f' "{hidden}", "$1", "{label}", "(.+)")'
        )
    return rows(
        "Firing alerts",
        "Every alert of severity critical or warning that fires for the chosen services, and those of hosts "
        "and of the monitoring. Click one for its runbook.",
        keys=[
            Key("severity", "Severity", width=90, colors=SEVERITIES),
            Key(
                "alertname",
                "Alert",
                [
                    runbook(),
                    *(to(uid, *_ROW) for uid in _PAGES),
                ],
            ),
            Key("service", "Service", width=90, hidden=bool(instances)),
            Key("instance", "Instance", width=120),
            Key("url_rule", "Endpoint", width=110),
            *(Key(name, name, hidden=True) for name in ("service_link", "rule_link")),
        ],
        columns=[Column("Since", alerts, "dateTimeFromNow", width=120)],
        sort=("Severity", "Since"),
        ascending=["Severity"],
        width=width,
        height=height,
        no_data="No alert fires",
    )


def state(instances: str = "") -> str:
    """A number of STATES for each service, and why: labels `instances` ("1 of 2") and `alert`."""
    matchers = ",".join((SERVICE, instances)) if instances else SERVICE
    up, checks = f"up{{{matchers}}}", f"flask_health_check_up{{{matchers}}}"
    scope = ('service!=""', *_of_instances(instances))
    alerts = {severity: firing(*scope, severity=severity) for severity in SEVERITIES}
    troubles = (
        f"(max by (service) ({up}) == 0)",
        f"count by (service) ({alerts['critical']})",
        f"(min by (service) ({up}) == 0)",
        f"(min by (service) ({checks}) == 0)",
        f"count by (service) ({alerts['warning']})",
        f"count by (service) ({up})",
    )
    worst = " or ".join(f"0 * {trouble} + {number}" for number, trouble in enumerate(troubles))
    names = [f"group by (service, severity, alertname) ({selected})" for selected in alerts.values()]
    reasons = f"0 * topk by (service) (1, 2 * {names[0]} or {names[1]} or 0 * count by (service) ({up}))"
    reasons = f'label_replace({reasons}, "alert", "$1", "alertname", "(.+)")'
    numbers = (
        f'count_values by (service) ("number", sum by (service) ({up})) * on (service) group_left (all)'
        f' count_values by (service) ("all", count by (service) ({up}))'
    )
    instances = f'label_join({numbers}, "instances", " of ", "number", "all")'
    return (
        f"({worst}) + on (service) group_left (instances) (0 * {instances} or on (service) {reasons})"
        f" + on (service) group_left (alert) {reasons}"
    )


def _of_instances(matcher: str) -> list[str]:
    """The matcher, for alerts: one about a whole service has no instance."""
    return [f'{matcher[:-1]}|"'] if matcher else []
