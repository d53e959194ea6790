"""The queries of panels: to Prometheus for values, to Loki for log lines."""

from typing import TypeAlias

from grafana_foundation_sdk.builders import loki, prometheus
from grafana_foundation_sdk.models.dashboard import DataSourceRef

METRICS = DataSourceRef(type_val="prometheus", uid="${datasource}")
LOGS = DataSourceRef(type_val="loki", uid="${loki}")

Query: TypeAlias = prometheus.Dataquery
LogQuery: TypeAlias = loki.Dataquery


def query(expression: str, legend: str = "", *, interval: str = "") -> Query:
    """Ask for values over time. The duration `interval` is the shortest step, and so `$__interval`."""
    result = Query().expr(expression).legend_format(legend).range()
    return result.interval(interval) if interval else result


def exemplars(series: str) -> Query:
    """Ask for single requests, shown as points, of a histogram's raw buckets or of a counter.

    Recorded series have no exemplars, and adding up the raw buckets of a day takes half a second. So the
    query asks for a time without samples; the exemplars come from the time range all the same.
    """
    return Query().expr(f"{series} offset 100y").legend_format("request").range().exemplar(True)


def now(expression: str, legend: str = "", *, interval: str = "") -> Query:
    """Ask for the values at the end of the time range."""
    result = Query().expr(expression).legend_format(legend).instant()
    return result.interval(interval) if interval else result


def log_query(expression: str) -> LogQuery:
    """Ask Loki for log lines, or for values over time that it counts from them."""
    return LogQuery().expr(expression).query_type("range")
