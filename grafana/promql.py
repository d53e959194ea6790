"""The PromQL that panels share. Metric names stay literals in the dashboards: people search for them.

Grafana fills in `$job`, `$service`, `$instance` and `$url_rule` as regular expressions, `$__range` and
`$__interval` as durations, and `$__rate_interval` as the shortest window that a rate can have at this zoom.
"""

WINDOW = "$__rate_interval"
SERVICE = 'job=~"$job",service=~"$service"'
INSTANCE = 'instance=~"$instance"'
URL_RULE = 'url_rule=~"$url_rule"'
ERROR = 'status=~"5.."'


def of(metric: str, *matchers: str) -> str:
    """The series of a metric that the dashboard's variables select and that match all of `matchers`."""
    return recorded(metric, INSTANCE, *matchers)


def recorded(metric: str, *matchers: str) -> str:
    """As `of`, of a recorded series: these are summed over instances."""
    return f"{metric}{{{','.join((SERVICE, *matchers))}}}"


def rate(metric: str, *matchers: str, by: str = "", before: str = "") -> str:
    """Increase a second, summed over all but the labels in `by`; of a duration `before`, if given."""
    offset = f" offset {before}" if before else ""
    return total(f"rate({of(metric, *matchers)}[{WINDOW}]{offset})", by)


def count(metric: str, *matchers: str, by: str = "", window: str = "$__range") -> str:
    """Events within the window, the first one of a series included.

    `increase()` does not see the step from absent to 1: a single error of a new kind would not count. So a
    series that is younger than the window counts with its value, where that is more.
    """
    series = of(metric, *matchers)
    grown = f"increase({series}[{window}])"
    born = f"({series} unless {series} offset {window})"
    return total(f"(({born} unless {born} < {grown}) or {grown})", by)


def total(expression: str, by: str = "") -> str:
    """The sum of an expression over everything but the labels in `by`."""
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def ratio(part: str, whole: str) -> str:
    """Part of whole: 0 where only the part is missing, nothing where there is no whole."""
    return f"({part} or 0 * {whole}) / ({whole} > 0)"


def mean(by: str = "", *matchers: str) -> str:
    """Mean duration of requests in seconds, by the labels in `by`; nothing without traffic."""
    seconds = rate("flask_http_request_duration_seconds_sum", *matchers, by=by)
    return f"{seconds} / ({rate('flask_http_request_duration_seconds_count', *matchers, by=by)} > 0)"


def quantile(fraction: float, by: str = "", *matchers: str) -> str:
    """Duration in seconds that this fraction of requests stays within; nothing without traffic."""
    buckets = rate("flask_http_request_duration_seconds_bucket", *matchers, by=f"le, {by}" if by else "le")
    return f"histogram_quantile({fraction}, {buckets}) >= 0"
