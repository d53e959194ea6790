"""The table of the alerts that fire now."""

from grafana_foundation_sdk.builders import table

from grafana.fields import set_for
from grafana.links import endpoint_of_row
from grafana.promql import FIRING
from grafana.tables import Column, Key, rows

EVERY_ENDPOINT = ".*"
NO_ALERT = (
    'label_replace(label_replace(label_replace(vector(0), "alertname", "No alert fires", "", ""),'
    f' "severity", "-", "", ""), "url_rule", "{EVERY_ENDPOINT}", "", "")'
)


def firing_alerts(width: int = 10, height: int = 8) -> table.Panel:
    """List the alerts that fire now; an alert about a whole service counts for all of its endpoints."""
    alerts = (
        f'label_replace(count by (alertname, severity, url_rule) ({FIRING}), "url_rule", "{EVERY_ENDPOINT}",'
        ' "url_rule", "")'
    )
    panel = rows(
        "Firing alerts",
        "What to do about one stands in its notification, which links to its runbook.",
        keys=[
            Key("alertname", "Alert"),
            Key("severity", "Severity", width=90),
            Key("url_rule", "Endpoint", endpoint_of_row(), width=150),
        ],
        columns=[Column("Firing", f"{alerts} or on () {NO_ALERT}", "none", decimals=0, width=70)],
        sort="Firing",
        width=width,
        height=height,
    )
    mapping = {"type": "value", "options": {EVERY_ENDPOINT: {"text": "all", "index": 0}}}
    return set_for(panel, "Endpoint", mappings=[mapping])
