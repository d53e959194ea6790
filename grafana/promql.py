"""The PromQL that panels share. Metric names stay literals in the dashboards: people search for them.

Grafana fills in `$job`, `$service`, `$instance` and `$url_rule` as regular expressions, `$__range` and
`$__interval` as durations, and `$__rate_interval` as the shortest window that a rate can have at this zoom.
"""

from grafana.thresholds import APDEX_TOLERABLE, LATENCY_HIGH

DURATION = "flask_http_request_duration_seconds"
WINDOW = "$__rate_interval"
SERVICE = 'job=~"$job",service=~"$service"'
INSTANCE = 'instance=~"$instance"'
URL_RULE = 'url_rule=~"$url_rule"'
ERROR = 'status=~"5.."'
# Some alerts have neither a job nor a service, such as MonitoringAlertmanagerGone.
FIRING = 'ALERTS{alertstate="firing",severity=~"critical|warning",job=~"$job|",service=~"$service|"}'


def of(metric: str, *matchers: str) -> str:
    """Select the series of a metric by the dashboard's variables and by all of `matchers`."""
    return f"{metric}{{{','.join((SERVICE, INSTANCE, *matchers))}}}"


def rate(metric: str, *matchers: str, by: str = "", window: str = WINDOW, before: str = "") -> str:
    """Sum the increase a second over all labels but those in `by`; `before` asks for a duration earlier."""
    offset = f" offset {before}" if before else ""
    return total(f"rate({of(metric, *matchers)}[{window}]{offset})", by)


def increase(metric: str, *matchers: str, by: str = "", window: str = "$__range") -> str:
    """Count events within the window, in series that exist from the start, as those of durations do."""
    return total(f"increase({of(metric, *matchers)}[{window}])", by)


def count(metric: str, *matchers: str, by: str = "") -> str:
    """Count events in the time range, in series that begin with their first event, as those of errors do.

    `increase()` does not see the step from absent to 1. So a series that did not exist in the day before
    counts with its value, where that is more.
    """
    series = of(metric, *matchers)
    growth = f"increase({series}[$__range])"
    value = _new(series, "$__range")
    return total(f"(({value} unless {value} < {growth}) or {growth})", by)


def count_per_bar(metric: str, *matchers: str, by: str = "") -> str:
    """Count events as `count` does, in each interval of a graph."""
    series = of(metric, *matchers)
    return total(f"({_new(series, '$__interval')} or increase({series}[$__interval]))", by)


def _new(series: str, window: str) -> str:
    """The values of series that did not exist in the day before the window."""
    return f"({series} unless last_over_time({series}[1d] offset {window}))"


def total(expression: str, by: str = "") -> str:
    """Sum an expression over all labels but those in `by`."""
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def error_ratio(metric: str, *matchers: str, by: str = "", window: str = WINDOW) -> str:
    """The share of requests with a status of 500 or more: 0 without errors, nothing without traffic."""
    errors = rate(metric, ERROR, *matchers, by=by, window=window)
    requests = rate(metric, *matchers, by=by, window=window)
    return f"({errors} or 0 * {total(of(metric, *matchers), by)}) / ({requests} > 0)"


def mean() -> str:
    """The mean duration of all requests in seconds; nothing without traffic."""
    seconds = total(of("instance:flask_http_request_duration_seconds_sum:rate_5m"))
    requests = total(of("instance:flask_http_request_duration_seconds_bucket:rate_5m", 'le="+Inf"'))
    return f"{seconds} / ({requests} > 0)"


def quantile(fraction: float) -> str:
    """The duration in seconds that this fraction of all requests does not exceed; nothing without traffic."""
    return _quantile(fraction, "instance")


def quantile_by_endpoint(fraction: float, *matchers: str, window: str = "") -> str:
    """The `quantile` of each endpoint, at each moment or over the whole `window`."""
    return _quantile(fraction, "instance_url_rule", *matchers, by="url_rule", window=window)


def queue_quantile(fraction: float) -> str:
    """The `quantile` of the time in the queue."""
    name = "flask_http_request_queue_seconds"
    buckets = rate(f"{name}_bucket", by="le")
    requests, native = (f"rate({of(series)}[{WINDOW}])" for series in (f"{name}_count", name))
    return f"({_either(fraction, _complete(native, requests, native), buckets)}) >= 0"


def spread(level: str, *matchers: str) -> str:
    """Requests a second by duration: the native histogram, or else the classic buckets."""
    native, buckets = _histograms(level, *matchers)
    return f"{native} or {buckets} unless on () ({native})"


def _quantile(fraction: float, level: str, *matchers: str, by: str = "", window: str = "") -> str:
    """From one of both histograms as the rules choose it, and no more than the longest request took."""
    native, buckets = _histograms(level, *matchers, by=by, window=window)
    slowest = f"max_over_time({of('flask_http_request_duration_max_seconds', *matchers)}[{window or '5m'}])"
    requests = total(_over(of(f"{level}:{DURATION}_bucket:rate_5m", 'le="+Inf"', *matchers), window), by)
    longest = f"max by ({by}) ({slowest}) and {requests} > 0"
    value = _either(fraction, native, buckets)
    return f'min by ({by}) ({value} or label_replace({longest}, "bound", "max", "", "")) >= 0'


def _histograms(level: str, *matchers: str, by: str = "", window: str = "") -> tuple[str, str]:
    """Requests a second as a native histogram, if that has all of them, and as classic buckets."""
    native = of(f"{level}:{DURATION}:histogram_rate_5m", *matchers)
    requests = of(f"{level}:{DURATION}_bucket:rate_5m", 'le="+Inf"', *matchers)
    buckets = _over(of(f"{level}:{DURATION}_bucket:rate_5m", *matchers), window)
    throughout = native
    if window:
        times = f"count_over_time({requests}[{window}])"
        throughout = f"(count_over_time({native}[{window}]) >= ignoring (le) 0.95 * {times})"
    complete = _complete(_over(native, window), _over(requests, window), throughout, by)
    return complete, total(buckets, f"{by}, le" if by else "le")


def _over(series: str, window: str) -> str:
    return f"sum_over_time({series}[{window}])" if window else series


def _complete(native: str, requests: str, present: str, by: str = "") -> str:
    """A native histogram, unless more than a twentieth of the requests are of series that are not `present`.

    Without histogram_count(), which VictoriaMetrics does not know.
    """
    others = total(f"{requests} unless ignoring (le) {present}", by)
    return f"{total(native, by)} unless {others} > 0.05 * {total(requests, by)}"


def _either(fraction: float, native: str, buckets: str) -> str:
    return f"histogram_quantile({fraction}, {native}) or histogram_quantile({fraction}, {buckets})"


def apdex(*matchers: str) -> str:
    """Satisfied users plus half of the tolerating users, by endpoint (apdex.org); errors frustrate.

    Users are satisfied within T = LATENCY_HIGH and tolerate 4 T, to the next bucket. Requests within T are in
    both buckets, so half of the sum of both is the numerator.
    """
    good = rate(
        "flask_http_request_duration_seconds_bucket",
        f'le=~"{LATENCY_HIGH}|{APDEX_TOLERABLE}"',
        'status!~"5.."',
        *matchers,
        by="url_rule",
    )
    return f"{good} / 2 / ({rate('flask_http_request_duration_seconds_count', *matchers, by='url_rule')} > 0)"
