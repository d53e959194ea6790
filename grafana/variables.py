"""The variables at the top of a dashboard, which select what it shows.

Those that no person needs to see are hidden: they carry the selection from page to page.
"""

from typing import cast

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models.dashboard import (
    VariableHide,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from grafana.promql import SERVICE
from grafana.queries import METRICS

HIDDEN = VariableHide(2)
MENU = cast("VariableHide", 3)
"""In the menu of controls, which Grafana 13 has and the SDK does not: a title has to say what is chosen."""
_SERVICES = 'label_values(up{job=~"$job"}, service)'  # also of one that Prometheus never reached


def label(name: str, title: str, query: str, *, all_value: str = ".*") -> build.QueryVariable:
    """A variable with the values of a label. With an empty `all_value`, All means the values that exist."""
    variable = (
        _values(name, title, query)
        .multi(True)
        .include_all(True)
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )
    return variable.all_value(all_value) if all_value else variable


def _values(name: str, title: str, query: str) -> build.QueryVariable:
    return (
        build.QueryVariable(name)
        .label(title)
        .datasource(METRICS)
        .query({"qryType": 1, "query": query, "refId": name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
    )


def datasource() -> build.DatasourceVariable:
    """Servers that speak Prometheus' API; the provisioned one, unless `var-datasource` in the address."""
    return (
        build.DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .current(VariableOption(selected=True, text="Prometheus", value="prometheus"))
        .hide(HIDDEN)
    )


def window() -> build.IntervalVariable:
    """The one window of all rates on a page: 5 minutes, as the alerts', and longer over more than a day."""
    return (
        build.IntervalVariable("window")
        .label("Window")
        .values("5m,30m,1h,6h")
        .auto(True)
        .min_interval("5m")
        .step_count(288)
        .current(VariableOption(selected=True, text=["auto"], value=["$__auto_interval_window"]))
        .hide(HIDDEN)
    )


def jobs() -> build.QueryVariable:
    """Jobs that the exporter runs in. All means these jobs, not every job that Prometheus scrapes."""
    return label("job", "Job", "label_values(flask_exporter_info, job)", all_value="").hide(HIDDEN)


def services() -> build.QueryVariable:
    """Services, by the label from their target files."""
    return label("service", "Service", _SERVICES)


def service() -> build.QueryVariable:
    """One service at a time: a percentile over several is nobody's."""
    return _values("service", "Service", _SERVICES).multi(False).include_all(False)


def instances() -> build.QueryVariable:
    """Instances of the selected services."""
    return label(
        "instance",
        "Instance",
        f"label_values(up{{{SERVICE}}}, instance)",
        all_value=".+",
    )


def every_instance() -> build.ConstantVariable:
    """For a page without a filter by instance: its links do not carry one of another service along."""
    return build.ConstantVariable("instance").label("Instance").value("$__all")


def url_rules() -> build.QueryVariable:
    """Endpoints of the selected services."""
    query = f"label_values(flask_http_request_duration_seconds_count{{{SERVICE}}}, url_rule)"
    return label("url_rule", "Endpoint", query)


def error_types() -> build.QueryVariable:
    """Error types of the selected services."""
    query = f"label_values(flask_http_request_errors_total{{{SERVICE}}}, error_type)"
    return label("error_type", "Error type", query)


def compared_with() -> build.CustomVariable:
    """The past that a page compares the present with."""
    return (
        build.CustomVariable("compare")
        .label("Compared with")
        .values("a week ago : 1w, a day ago : 1d, an hour ago : 1h")
        .current(VariableOption(selected=True, text="a week ago", value="1w"))
        .hide(MENU)
    )


def log_source() -> build.DatasourceVariable:
    """Servers that speak Loki's API; the provisioned one, unless `var-loki` in the address."""
    return (
        build.DatasourceVariable("loki")
        .label("Loki")
        .type("loki")
        .current(VariableOption(selected=True, text="Loki", value="loki"))
        .hide(HIDDEN)
    )
