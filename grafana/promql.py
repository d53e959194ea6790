"""The PromQL that panels share. Metric names stay literals in the dashboards: people search for them.

Grafana fills in `$job`, `$service`, `$instance` and `$url_rule` as regular expressions, `$__range`,
`$__interval` and `$window` as durations.
"""

DURATION = "flask_http_request_duration_seconds"
WINDOW = "$window"
INTERVAL = "$__interval"
SERVICE = 'job=~"$job",service=~`${service:regex}`'
"""Between backquotes, so that a single service's name is escaped too: Grafana does it only for lists."""
INSTANCE = 'instance=~"$instance"'
URL_RULE = 'url_rule=~"$url_rule"'
ENDPOINT = "service, url_rule"
"""What tells endpoints apart: services have endpoints of the same name."""
ERROR = 'status=~"5.."'


def firing(*matchers: str, severity: str = "critical|warning", of_instance: bool = False) -> str:
    """Select the alerts that fire for the chosen services, and those that have no service, as a host's.

    Not by job: an alert of a probe or of a host has that one's. `of_instance` leaves out those of instances
    of the services that are not chosen; an alert about a whole service has none.
    """
    labels = ('alertstate="firing"', f'severity=~"{severity}"', "service=~`${service:regex}|`", *matchers)
    alerts = f"ALERTS{{{','.join(labels)}}}"
    return f'({alerts} unless ALERTS{{job=~"$job",instance!~"$instance|"}})' if of_instance else alerts


def of(metric: str, *matchers: str) -> str:
    """Select the series of a metric by the dashboard's variables and by all of `matchers`."""
    return f"{metric}{{{','.join((SERVICE, INSTANCE, *matchers))}}}"


def rate(metric: str, *matchers: str, by: str = "", window: str = WINDOW, before: str = "") -> str:
    """Sum the increase a second over all labels but those in `by`; `before` asks for a duration earlier."""
    return total(f"rate({of(metric, *matchers)}[{window}]{_offset(before)})", by)


def increase(metric: str, *matchers: str, by: str = "", window: str = "$__range", before: str = "") -> str:
    """Count events within the window, in series that exist from the start, as those of durations do."""
    return total(f"increase({of(metric, *matchers)}[{window}]{_offset(before)})", by)


def count(metric: str, *matchers: str, by: str = "") -> str:
    """Count events in the time range as `growth` does, in whole ones: increase() extrapolates."""
    return f"round({growth(metric, *matchers, by=by)})"


def count_per_bar(metric: str, *matchers: str, by: str = "") -> str:
    """Count events as `count` does, in each interval of a graph."""
    return f"round({growth_per_bar(metric, *matchers, by=by)})"


def growth(metric: str, *matchers: str, by: str = "") -> str:
    """How much counters grew in the time range that begin with their first event, as those of errors do.

    `increase()` does not see the step from absent to 1. So a series that did not exist in the day before
    counts with its value, where that is more.
    """
    series = of(metric, *matchers)
    increase = f"increase({series}[$__range])"
    value = _new(series, "$__range")
    return total(f"(({value} unless {value} < {increase}) or {increase})", by)


def growth_per_bar(metric: str, *matchers: str, by: str = "") -> str:
    """How much counters grew, as `growth` has it, in each interval of a graph."""
    series = of(metric, *matchers)
    return total(f"({_new(series, INTERVAL)} or increase({series}[{INTERVAL}]))", by)


def _new(series: str, window: str) -> str:
    """The values of series that did not exist in the day before the window."""
    return f"({series} unless last_over_time({series}[1d] offset {window}))"


def _offset(before: str) -> str:
    return f" offset {before}" if before else ""


def total(expression: str, by: str = "") -> str:
    """Sum an expression over all labels but those in `by`."""
    return f"sum by ({by}) ({expression})" if by else f"sum({expression})"


def error_ratio(metric: str, *matchers: str, by: str = "", window: str = WINDOW, before: str = "") -> str:
    """The share of requests with a status of 500 or more: 0 without errors, nothing without traffic.

    Of increases: VictoriaMetrics takes the rate of a counter younger than the window over its life only.
    """
    errors = increase(metric, ERROR, *matchers, by=by, window=window, before=before)
    requests = increase(metric, *matchers, by=by, window=window, before=before)
    none = f"0 * {total(of(metric, *matchers) + _offset(before), by)}"
    return f"({errors} or {none}) / ({requests} > 0)"


def times_allowed(ratio: str) -> str:
    """A ratio of errors with the label service, in multiples of what that service's objective allows."""
    objective = f'slo:flask_http_requests:objective{{{SERVICE},slo="errors",url_rule=""}}'
    return f"{ratio} / on (service) group_left () (1 - max by (service) ({objective}))"


def quantile(fraction: float, *, by: str = "", before: str = "") -> str:
    """The duration in seconds that this fraction of the requests of 5 minutes does not exceed.

    Nothing without traffic.
    """
    return _quantile(fraction, "instance", by=by, before=before)


def quantile_by_endpoint(fraction: float, *matchers: str, window: str = "", before: str = "") -> str:
    """The `quantile` of each endpoint, at each moment or over the whole `window`."""
    return _quantile(fraction, "instance_url_rule", *matchers, by=ENDPOINT, window=window, before=before)


def queue_quantile(fraction: float, by: str = "") -> str:
    """The `quantile` of the time in the queue."""
    name = "flask_http_request_queue_seconds"
    buckets = rate(f"{name}_bucket", by=f"{by}, le" if by else "le")
    requests, native = (f"rate({of(series)}[{WINDOW}])" for series in (f"{name}_count", name))
    return f"({_either(fraction, _complete(native, requests, native, by), buckets)}) >= 0"


def spread(level: str, *matchers: str) -> str:
    """Requests a second by duration: the native histogram, or else the classic buckets."""
    native, buckets = _histograms(level, *matchers)
    return f"{native} or {buckets} unless on () ({native})"


def slowest(*matchers: str, by: str = "", window: str = "5m", before: str = "") -> str:
    """The duration of the slowest request of the window in seconds, exact."""
    series = of("flask_http_request_duration_max_seconds", *matchers)
    return f"max by ({by}) (max_over_time({series}[{window}]{_offset(before)}))"


def _quantile(
    fraction: float, level: str, *matchers: str, by: str = "", window: str = "", before: str = ""
) -> str:
    """From one of both histograms as the rules choose it, and no more than the longest request took."""
    native, buckets = _histograms(level, *matchers, by=by, window=window, before=before)
    requests = total(_over(of(f"{level}:{DURATION}:rate_5m", *matchers), window, before), by)
    longest = slowest(*matchers, by=by, window=window or "5m", before=before)
    bound = f'label_replace({longest} and {requests} > 0, "bound", "max", "", "")'
    return f"min by ({by}) ({_either(fraction, native, buckets)} or {bound}) >= 0"


def _histograms(
    level: str, *matchers: str, by: str = "", window: str = "", before: str = ""
) -> tuple[str, str]:
    """Requests a second as a native histogram, if that has all of them, and as classic buckets."""
    native = of(f"{level}:{DURATION}:histogram_rate_5m", *matchers)
    requests = of(f"{level}:{DURATION}:rate_5m", *matchers)
    buckets = _over(of(f"{level}:{DURATION}_bucket:rate_5m", *matchers), window, before)
    past = _offset(before)
    throughout = f"{native}{past}"
    if window:
        times = f"count_over_time({requests}[{window}]{past})"
        throughout = f"(count_over_time({native}[{window}]{past}) >= 0.95 * {times})"
    complete = _complete(_over(native, window, before), _over(requests, window, before), throughout, by)
    return complete, total(buckets, f"{by}, le" if by else "le")


def _over(series: str, window: str, before: str) -> str:
    past = _offset(before)
    return f"sum_over_time({series}[{window}]{past})" if window else f"{series}{past}"


def _complete(native: str, requests: str, present: str, by: str = "") -> str:
    """A native histogram, unless more than a twentieth of the requests are of series that are not `present`.

    Without histogram_count(), which VictoriaMetrics does not know.
    """
    others = total(f"{requests} unless {present}", by)
    return f"{total(native, by)} unless {others} > 0.05 * {total(requests, by)}"


def _either(fraction: float, native: str, buckets: str) -> str:
    return f"histogram_quantile({fraction}, {native}) or histogram_quantile({fraction}, {buckets})"


def apdex(*matchers: str) -> str:
    """Satisfied users plus half of the tolerating users, by endpoint (apdex.org); errors frustrate.

    Users are satisfied within T = LATENCY_HIGH and tolerate 4 T, to the next bucket. Requests within T are in
    both buckets, so half of the sum of both is the numerator. Nothing below 20 requests in 5 minutes: chance
    would speak.
    """
    good = total(of(f"instance_url_rule:{DURATION}_bucket:good_rate_5m", *matchers), ENDPOINT)
    requests = total(of(f"instance_url_rule:{DURATION}:rate_5m", *matchers), ENDPOINT)
    return f"{good} / 2 / ({requests} >= 20 / 300)"


def replaced_workers(by: str, window: str) -> str:
    """Workers started in the window while the service went on; its restart begins the counter anew."""
    starts = of("flask_worker_starts_total")
    return f"sum by ({by}) (clamp_min({starts} - {starts} offset {window}, 0))"
