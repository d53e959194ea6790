"""The PromQL that panels share. Metric names stay literals in the dashboards: people search for them.

Grafana fills in `$job`, `$service`, `$instance` and `$url_rule` as regular expressions, `$__range` and
`$__interval` as durations, and `$__rate_interval` as the shortest window that a rate can have at this zoom.
"""

WINDOW = "$__rate_interval"
SERVICE = 'job=~"$job",service=~"$service"'
INSTANCE = 'instance=~"$instance"'
URL_RULE = 'url_rule=~"$url_rule"'
ERROR = 'status=~"5.."'
# An alert need not be about a job or a service: MonitoringAlertmanagerGone is not.
FIRING = 'ALERTS{alertstate="firing",severity=~"critical|warning",job=~"$job|",service=~"$service|"}'


def of(metric: str, *matchers: str) -> str:
    """The series of a metric that the dashboard's variables select and that match all of `matchers`."""
    return f"{metric}{{{','.join((SERVICE, INSTANCE, *matchers))}}}"


def rate(metric: str, *matchers: str, by: str = "", window: str = WINDOW, before: str = "") -> str:
    """Increase a second, summed over all but the labels in `by`; of a duration `before`, if given."""
    offset = f" offset {before}" if before else ""
    return total(f"rate({of(metric, *matchers)}[{window}]{offset})", by)


def increase(metric: str, *matchers: str, by: str = "", window: str = "$__range") -> str:
    """Events within the window, of series that are there from the start, as those of durations are."""
    return total(f"increase({of(metric, *matchers)}[{window}])", by)


def count(metric: str, *matchers: str, by: str = "") -> str:
    """Events in the time range, of series that begin with their first event, as those of errors do.

    `increase()` does not see the step from absent to 1. So a series that was not there in the day before
    counts with its value, where that is more.
    """
    series = of(metric, *matchers)
    grown = f"increase({series}[$__range])"
    born = _born(series, "$__range")
    return total(f"(({born} unless {born} < {grown}) or {grown})", by)


def bars(metric: str, *matchers: str, by: str = "") -> str:
    """As `count`, for each interval of a graph."""
    series = of(metric, *matchers)
    return total(f"({_born(series, '$__interval')} or increase({series}[$__interval]))", by)


def _born(series: str, window: str) -> str:
    return f"({series} unless last_over_time({series}[1d] offset {window}))"


def total(expression: str, by: str = "") -> str:
    """The sum of an expression over everything but the labels in `by`."""
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def error_ratio(metric: str, *matchers: str, by: str = "", window: str = WINDOW) -> str:
    """Share of requests answered with 500 or more: 0 where there were none, nothing without traffic."""
    errors = rate(metric, ERROR, *matchers, by=by, window=window)
    requests = rate(metric, *matchers, by=by, window=window)
    return f"({errors} or 0 * {total(of(metric, *matchers), by)}) / ({requests} > 0)"


def mean() -> str:
    """Mean duration of all requests in seconds; nothing without traffic."""
    seconds = total(of("instance:flask_http_request_duration_seconds_sum:rate_5m"))
    requests = total(of("instance:flask_http_request_duration_seconds_bucket:rate_5m", 'le="+Inf"'))
    return f"{seconds} / ({requests} > 0)"


def quantile(fraction: float) -> str:
    """Duration in seconds that this fraction of all requests stays within; nothing without traffic."""
    buckets = of("instance:flask_http_request_duration_seconds_bucket:rate_5m")
    return f"histogram_quantile({fraction}, sum by (le) ({buckets})) >= 0"


def quantile_by_endpoint(fraction: float, *matchers: str, window: str = "") -> str:
    """As `quantile`, for each endpoint; over the window, if one is given."""
    buckets = of("instance_url_rule:flask_http_request_duration_seconds_bucket:rate_5m", *matchers)
    if window:
        buckets = f"sum_over_time({buckets}[{window}])"
    return f"histogram_quantile({fraction}, sum by (url_rule, le) ({buckets})) >= 0"


def apdex(*matchers: str) -> str:
    """Satisfied users plus half of the tolerating ones, by endpoint (apdex.org, T = 0.5 s); errors frustrate.

    They tolerate 4 T; 2.5 s is the bucket next to that. Requests within T are in both buckets, so half of the
    sum of both is the numerator.
    """
    good = rate(
        "flask_http_request_duration_seconds_bucket",
        'le=~"0.5|2.5"',
        'status!~"5.."',
        *matchers,
        by="url_rule",
    )
    return f"{good} / 2 / ({rate('flask_http_request_duration_seconds_count', *matchers, by='url_rule')} > 0)"
