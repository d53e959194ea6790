"""What fires now: as a table of alerts, and as one word and its reasons for each service."""

from grafana_foundation_sdk.builders import table

from grafana.fields import States
from grafana.links import alert_page, runbook
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
    6: ("Not scraped", WARNING),
}
"""The state of a service, the worst first."""
SEVERITIES = {"critical": BAD, "warning": WARNING}
PAGES = {
    "flask-workers": "Host.+|Flask(MemoryGrowth|QueueSlow|RequestStuck|ThreadsSaturated|WorkerRestartLoop)",
    "monitoring-pipeline": "(Monitoring|Probe).+|Flask(ExporterFailures|SeriesCapReached)",
    "flask-errors": "Flask(ErrorRatio|LogError).+",
    "flask-endpoints": "FlaskLatency(High|Unusual)",
    "flask-slo": "Flask(Error|Latency)(BudgetBurn|Burst)",
    "flask-service": "",
}
"""The page that shows what an alert is about, by the alert's name; the last one shows all others."""


def firing_alerts(*, of_instance: bool = False, width: int = 12, height: int = 7) -> table.Panel:
    """List the alerts that fire now, critical ones first and then the newest, one row for each service,
    instance and endpoint.

    A link leads to the page that shows the alert, and chooses its service and endpoint there, or all where it
    is about no single one: hidden columns have the values, because a link sees a cell's text and not its
    value.
    """
    alerts = (
        "min by (severity, alertname, service, instance, url_rule)"
        f" (ALERTS_FOR_STATE and ignoring (alertstate) {firing(of_instance=of_instance)}) * 1000"
    )
    *pages, other = PAGES
    hidden = {"service_link": ("$$__all", "service"), "rule_link": ("$$__all", "url_rule")}
    for name, (default, label) in hidden.items():
        alerts = _labelled(_labelled(alerts, name, default, "", ""), name, "$1", label, "(.+)")
    alerts = _labelled(alerts, "page", other, "", "")
    for page in pages:
        alerts = _labelled(alerts, "page", page, "alertname", PAGES[page])
    return rows(
        "Firing alerts",
        "Every alert of severity critical or warning that fires for the chosen services, and those of hosts "
        "and of the monitoring. Click one for its runbook, or for the page that shows it.",
        keys=[
            Key("severity", "Severity", width=90, colors=SEVERITIES),
            Key("alertname", "Alert", [runbook(), alert_page()]),
            Key("service", "Service", width=90, hidden=of_instance),
            Key("instance", "Instance", width=150 if of_instance else 260),
            Key("url_rule", "Endpoint", width=110 if of_instance else 260),
            *(Key(name, name, hidden=True) for name in ("page", "service_link", "rule_link")),
        ],
        columns=[Column("Since", alerts, "dateTimeFromNow", width=120)],
        sort=("Severity", "Since"),
        ascending=["Severity"],
        width=width,
        height=height,
        no_data="No alert fires",
    )


def _labelled(expression: str, label: str, value: str, source: str, pattern: str) -> str:
    return f'label_replace({expression}, "{label}", "{value}", "{source}", "{pattern}")'


def alert_count() -> str:
    """How many alerts fire for each service."""
    alerts = firing('service!=""')
    return f"count by (service) (group by (service, severity, alertname) ({alerts}))"


def state(instances: str = "") -> str:
    """A number of STATES for each service, and why: labels `instances` ("1 of 2") and `alert`.

    The matcher `instances` chooses some of each. A service is known for six hours after its last target, as
    FlaskTargetVanished has it.
    """
    matchers = ",".join((SERVICE, instances)) if instances else SERVICE
    up, checks = f"up{{{matchers}}}", f"flask_health_check_up{{{matchers}}}"
    alerts = {
        severity: firing('service!=""', severity=severity, of_instance=bool(instances))
        for severity in SEVERITIES
    }
    known = f"count by (service) (last_over_time({up}[6h]))"
    troubles = (
        f"(max by (service) ({up}) == 0)",
        f"count by (service) ({alerts['critical']})",
        f"(min by (service) ({up}) == 0)",
        f"(min by (service) ({checks}) == 0)",
        f"count by (service) ({alerts['warning']}) and on (service) count by (service) ({up})",
        f"count by (service) ({up})",
        known,
    )
    worst = " or ".join(f"0 * ({trouble}) + {number}" for number, trouble in enumerate(troubles))
    names = [f"group by (service, severity, alertname) ({selected})" for selected in alerts.values()]
    reasons = f"0 * topk by (service) (1, 2 * {names[0]} or {names[1]} or 0 * {known})"
    reasons = _labelled(reasons, "alert", "$1", "alertname", "(.+)")
    numbers = (
        f'count_values by (service) ("number", sum by (service) ({up})) * on (service) group_left (all)'
        f' count_values by (service) ("all", count by (service) ({up}))'
    )
    instances = f'label_join({numbers}, "instances", " of ", "number", "all")'
    return (
        f"({worst}) + on (service) group_left (instances) (0 * {instances} or on (service) {reasons})"
        f" + on (service) group_left (alert) {reasons}"
    )
