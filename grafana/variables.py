"""The variables at the top of a dashboard, which select what it shows."""

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.models.dashboard import VariableOption, VariableRefresh, VariableSort

from grafana.promql import SERVICE
from grafana.queries import METRICS


def label(name: str, title: str, query: str, *, all_value: str = ".*") -> build.QueryVariable:
    """A variable with the values of a label. With an empty `all_value`, All means the values that exist."""
    variable = (
        build.QueryVariable(name)
        .label(title)
        .datasource(METRICS)
        .query({"qryType": 1, "query": query, "refId": name})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )
    return variable.all_value(all_value) if all_value else variable


def datasource() -> build.DatasourceVariable:
    """Servers that speak Prometheus' API; the provisioned one is the default."""
    return (
        build.DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .current(VariableOption(selected=True, text="Prometheus", value="prometheus"))
    )


def jobs() -> build.QueryVariable:
    """Jobs that the exporter runs in. All means these jobs, not every job that Prometheus scrapes."""
    return label("job", "Job", "label_values(flask_exporter_info, job)", all_value="")


def services() -> build.QueryVariable:
    """Services, by the label from their target files."""
    return label("service", "Service", 'label_values(flask_exporter_info{job=~"$job"}, service)')


def instances() -> build.QueryVariable:
    """Instances of the selected services."""
    return label("instance", "Instance", f"label_values(flask_exporter_info{{{SERVICE}}}, instance)")


def url_rules() -> build.QueryVariable:
    """Endpoints of the selected services."""
    query = f"label_values(flask_http_request_duration_seconds_count{{{SERVICE}}}, url_rule)"
    return label("url_rule", "Endpoint", query)


def error_types() -> build.QueryVariable:
    """Error types of the selected services."""
    query = f"label_values(flask_http_request_errors_total{{{SERVICE}}}, error_type)"
    return label("error_type", "Error type", query)
