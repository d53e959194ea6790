"""Links from an answer to the dashboard of the next question."""

from grafana.fields import link

NAVIGATION = {
    "flask-service": ("Service", "Is it healthy?"),
    "flask-endpoints": ("Endpoints", "Which endpoint?"),
    "flask-errors": ("Errors", "Which error, since when?"),
    "flask-requests": ("Requests", "Which requests exactly?"),
    "flask-slo": ("SLO", "How much budget is left, how fast does it burn?"),
    "flask-workers": ("Workers and host", "Is it out of something?"),
    "monitoring-pipeline": ("Pipeline", "Can I trust what I see?"),
}
_RUNBOOKS = "/api/datasources/proxy/uid/${datasource}/user"
"""Prometheus serves them; Grafana passes them on, so that the address is right wherever either runs."""

_VARIABLES = ("datasource", "job", "service", "instance")
SERVICE_OF_ROW = "var-service=${__data.fields.Service:percentencode}"
SERVICE_OF_LINE = "var-service=${__field.labels.service:percentencode}"
INSTANCE_OF_LINE = "var-instance=${__field.labels.instance:percentencode}"
URL_RULE_OF_ROW = "var-url_rule=${__data.fields.Endpoint:percentencode}"
URL_RULE_OF_LINE = "var-url_rule=${__field.labels.url_rule:percentencode}"


def to(uid: str, *parameters: str) -> dict[str, object]:
    """A link to a dashboard, which keeps the time range and whatever `parameters` do not choose anew."""
    chosen = {parameter.partition("=")[0] for parameter in parameters}
    kept = [f"${{{name}:queryparam}}" for name in _VARIABLES if f"var-{name}" not in chosen]
    title, question = NAVIGATION[uid]
    return link(f"{title}: {question}", f"/d/{uid}?{'&'.join((*kept, *parameters, '${__url_time_range}'))}")


def runbook() -> dict[str, object]:
    """The runbook of the alert of a row, in a tab of its own: within one, Grafana takes it for a page."""
    return link("Runbook: what to do", f"{_RUNBOOKS}/${{__data.fields.Alert:percentencode}}.md", new_tab=True)


def alert_page() -> dict[str, object]:
    """The page that shows the alert of a row, with its service and its endpoint."""
    row = {name: f"${{__data.fields.{name}:percentencode}}" for name in ("page", "service_link", "rule_link")}
    kept = "${datasource:queryparam}&${job:queryparam}"
    return link(
        "Dashboard: what it is about",
        f"/d/{row['page']}?{kept}&var-service={row['service_link']}&var-url_rule={row['rule_link']}"
        "&${__url_time_range}",
    )


def service_of_row() -> list[dict[str, object]]:
    """Links from a service in a table to its dashboards."""
    return [to(uid, SERVICE_OF_ROW) for uid in NAVIGATION if uid != "monitoring-pipeline"]


def service_of_line() -> list[dict[str, object]]:
    """Links from a line with the label service to the dashboards of its service."""
    return [to(uid, SERVICE_OF_LINE) for uid in ("flask-service", "flask-endpoints", "flask-errors")]


def endpoint_of_row(*parameters: str) -> list[dict[str, object]]:
    """Links from an endpoint in a table with a column Service; `parameters` narrow its log lines."""
    row = (SERVICE_OF_ROW, URL_RULE_OF_ROW)
    return [
        to("flask-endpoints", *row),
        to("flask-errors", *row),
        to("flask-requests", *row, *parameters),
    ]


def endpoint_of_line() -> list[dict[str, object]]:
    """Links from a line with the labels service and url_rule to the dashboards of its endpoint."""
    line = (SERVICE_OF_LINE, URL_RULE_OF_LINE)
    return [to(uid, *line) for uid in ("flask-endpoints", "flask-errors", "flask-requests")]


def instance_of_line() -> list[dict[str, object]]:
    """Links from a line with the labels service and instance to the dashboards of its instance."""
    line = (SERVICE_OF_LINE, INSTANCE_OF_LINE)
    return [to(uid, *line) for uid in ("flask-service", "flask-endpoints", "flask-errors", "flask-workers")]
