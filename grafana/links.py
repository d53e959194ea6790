"""Links from an answer to the dashboard of the next question."""

from grafana.fields import link

NAVIGATION = {
    "flask-service": ("Service", "heart", "Is it healthy?"),
    "flask-endpoints": ("Endpoints", "sitemap", "Which endpoint?"),
    "flask-errors": ("Errors", "bug", "Which error, since when?"),
    "flask-requests": ("Requests", "list-ul", "Which requests exactly?"),
    "flask-slo": ("SLO", "bullseye", "How much budget is left, how fast does it burn?"),
    "flask-workers": ("Workers and host", "cpu", "Is it out of something?"),
    "monitoring-pipeline": ("Pipeline", "info", "Can I trust what I see?"),
}

_VARIABLES = "${datasource:queryparam}&${job:queryparam}&${service:queryparam}&${instance:queryparam}"
SCOPE = f"{_VARIABLES}&${{__url_time_range}}"
URL_RULE_OF_ROW = "var-url_rule=${__data.fields.Endpoint:percentencode}"
URL_RULE_OF_LINE = "var-url_rule=${__field.labels.url_rule:percentencode}"


def to(uid: str, *parameters: str) -> dict[str, object]:
    """A link to a dashboard, which keeps the selection and the time range."""
    return link(f"{NAVIGATION[uid][0]}: {NAVIGATION[uid][2]}", f"/d/{uid}?{'&'.join((SCOPE, *parameters))}")


def endpoint_of_row(*parameters: str) -> list[dict[str, object]]:
    """Links from an endpoint in a table to its dashboards; `parameters` narrow its log lines."""
    return [
        to("flask-endpoints", URL_RULE_OF_ROW),
        to("flask-errors", URL_RULE_OF_ROW),
        to("flask-requests", URL_RULE_OF_ROW, *parameters),
    ]


def endpoint_of_line() -> list[dict[str, object]]:
    """Links from a line with the label url_rule to the dashboards of its endpoint."""
    return [to(uid, URL_RULE_OF_LINE) for uid in ("flask-endpoints", "flask-errors", "flask-requests")]
