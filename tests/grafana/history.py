"""Forty minutes of two services with two instances each, with incidents, as a Prometheus has them.

An endpoint of orders begins to fail, and its instance o2 goes down. shop has a deploy that breaks one of its
endpoints, and its probe fails. Both have endpoints of the same names.
"""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from prometheus.tools.toolbox import executable

SECONDS, SCRAPE, RATE = 2400, 15, 300
BOUNDS = ("0.005", "0.05", "0.1", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf")
BREAK, DEPLOY, DOWN = 1200, 1500, 2100
"""Seconds after the beginning: orders' /checkout breaks, shop 2.0 comes, an instance of orders goes down."""
INSTANCES = {"orders": ("o1:80", "o2:80"), "shop": ("s1:80", "s2:80")}
RUNNING_ALERTS = (
    ("FlaskErrorRatioCritical", "critical", {"job": "app", "service": "orders"}, BREAK + 120),
    ("FlaskTargetDown", "warning", {"job": "app", "service": "orders", "instance": "o2:80"}, DOWN + 60),
    ("FlaskLatencyHigh", "warning", {"job": "app", "service": "shop", "url_rule": "/checkout"}, DEPLOY + 300),
    ("ProbeFailed", "critical", {"job": "probe", "service": "shop", "instance": "http://shop/"}, DOWN),
    ("HostMemoryLow", "warning", {"job": "node", "instance": "node:9100"}, DOWN + 30),
)


@dataclass(frozen=True)
class Endpoint:
    """An endpoint's requests a second to one instance, and the seconds that each takes."""

    service: str
    rule: str
    status: str
    pace: float
    seconds: float
    error_type: str = ""
    since: int = 0

    def requests(self, elapsed: float) -> float:
        """The number of requests since the beginning."""
        return int(max(0.0, elapsed - self.since) * self.pace)


ENDPOINTS = (
    *(
        Endpoint(service, rule, "200", pace, seconds)
        for service, paces in {
            "orders": (
                ("/", 4.0, 0.002),
                ("/checkout", 1.0, 0.03),
                ("/slow", 0.2, 0.7),
                ("/c/<int:id>", 1.0, 0.004),
            ),
            "shop": (
                ("/", 1.0, 0.02),
                ("/checkout", 1.0, 0.08),
                ("/items", 2.0, 0.004),
                ("/search", 0.5, 0.2),
            ),
        }.items()
        for rule, pace, seconds in paces
    ),
    *(
        Endpoint(service, rule, "404", 0.8, 0.002, "NotFound")
        for service in INSTANCES
        for rule in ("_unmatched", "/c/<int:id>")
    ),
    Endpoint("orders", "/checkout", "500", 0.5, 0.01, "ValueError", BREAK),
    Endpoint("shop", "/checkout", "500", 0.1, 2.0, "InventoryTimeout", DEPLOY),
)
Samples = Iterator[tuple[str, dict[str, str], float]]


def _raw(elapsed: float) -> Samples:
    """What the instances expose after so many seconds, and what Prometheus adds."""
    for service, instances in INSTANCES.items():
        for number, instance in enumerate(instances):
            down = instance == "o2:80" and elapsed >= DOWN
            target = {"job": "app", "service": service, "instance": instance}
            yield "up", target, 0.0 if down else 1.0
            if down:
                continue
            yield from _instance(service, target, number, elapsed)
    yield "up", {"job": "node", "instance": "node:9100"}, 1.0
    for cpu in "01":
        for mode, pace in {"idle": 0.8, "user": 0.15, "iowait": 0.05}.items():
            yield "node_cpu_seconds_total", _node(cpu=cpu, mode=mode), elapsed * pace
    yield "node_memory_MemTotal_bytes", _node(), 8e9
    yield "node_memory_MemAvailable_bytes", _node(), 2e9 - 3e5 * elapsed
    yield "node_load1", _node(), 1.2
    yield "node_vmstat_oom_kill", _node(), 3.0 + (elapsed >= BREAK)
    for name, value in {"size": 1e11, "avail": 2e10}.items():
        yield f"node_filesystem_{name}_bytes", _node(mountpoint="/", fstype="ext4"), value
    for url, service in {"http://orders/": "orders", "http://shop/": "shop"}.items():
        probe = {"job": "probe", "instance": url, "service": service}
        yield "probe_success", probe, float(not (service == "shop" and elapsed >= DOWN))
        yield "probe_duration_seconds", probe, 0.02
        yield "probe_ssl_earliest_cert_expiry", probe, 4e9
        yield "probe_http_duration_seconds", probe | {"phase": "processing"}, 0.01


def _node(**labels: str) -> dict[str, str]:
    return {"job": "node", "instance": "node:9100"} | labels


def _requests(endpoint: Endpoint, target: dict[str, str], elapsed: float) -> Samples:
    """The families of an endpoint's answers of one status."""
    requests = endpoint.requests(elapsed)
    labels = target | {"method": "GET", "url_rule": endpoint.rule, "status": endpoint.status}
    family = "flask_http_request_duration_seconds"
    yield f"{family}_count", labels, requests
    yield f"{family}_sum", labels, requests * endpoint.seconds
    for bound in BOUNDS:
        yield f"{family}_bucket", labels | {"le": bound}, requests * (endpoint.seconds <= float(bound))
    if endpoint.seconds > 0.5:
        slow = {"url_rule": endpoint.rule, "where": "app.views:wait"}
        yield "flask_http_request_slow_seconds_total", target | slow, requests * endpoint.seconds
    if endpoint.error_type:
        error = {"error_type": endpoint.error_type}
        yield "flask_http_request_errors_total", labels | error, requests
        if endpoint.status == "500":
            bug = target | error | {"error_group": f"{endpoint.service}0", "where": "app:pay"}
            yield "flask_http_request_error_group_total", bug, requests


def _instance(service: str, target: dict[str, str], number: int, elapsed: float) -> Samples:
    totals: dict[str, float] = defaultdict(float)
    rules: dict[str, float] = {}
    for endpoint in ENDPOINTS:
        if endpoint.service == service and elapsed >= endpoint.since:
            totals[endpoint.status] += endpoint.requests(elapsed)
            rules[endpoint.rule] = max(endpoint.seconds * 1.1, rules.get(endpoint.rule, 0))
            yield from _requests(endpoint, target, elapsed)
    for rule, slowest in rules.items():
        yield "flask_http_request_duration_max_seconds", target | {"url_rule": rule}, slowest
        yield "flask_http_client_disconnects_total", target | {"url_rule": rule}, int(elapsed / 400)
        for part in ("request", "response"):
            for suffix, pace in {"count": 1, "sum": 500}.items():
                name = f"flask_http_{part}_size_bytes_{suffix}"
                yield name, target | {"method": "GET", "url_rule": rule}, elapsed * pace
    for status, requests in totals.items():
        yield "flask_http_request_total", target | {"method": "GET", "status": status}, requests
    young = elapsed - DEPLOY if service == "shop" and elapsed >= DEPLOY else elapsed
    version = "2.0" if service == "shop" and elapsed >= DEPLOY else "1.0"
    yield "flask_app_info", target | {"version": version}, 1
    yield "flask_exporter_info", target | {"version": "1.0"}, 1
    yield "flask_exporter_scrape_seconds_count", target, int(young / SCRAPE)
    yield "flask_exporter_scrape_seconds_sum", target, young / 1000
    yield "flask_worker_starts_total", target, 2 + (number == 0 and elapsed >= BREAK and service == "orders")
    if number == 0 and elapsed >= BREAK and service == "orders":
        yield "flask_worker_deaths_total", target | {"cause": "SIGKILL"}, 1
        yield "flask_http_requests_lost_total", target | {"cause": "SIGKILL", "url_rule": "/"}, 2
    yield "flask_http_request_oldest_seconds", target, 0.2
    yield "flask_worker_threads", target, 8
    yield "flask_worker_threads_busy", target, 7 if target["instance"] == "s1:80" else 1
    yield "flask_worker_resident_memory_bytes", target, 1e8
    yield "flask_worker_cpu_seconds_total", target, elapsed * 0.1
    yield "flask_worker_gc_seconds_total", target, elapsed * 0.01
    yield "flask_health_check_up", target | {"check": "database"}, 1
    yield "flask_log_messages_total", target | {"level": "ERROR"}, int(elapsed / 10)
    yield "flask_exporter_failures_total", target | {"stage": "scrape"}, 0
    yield "flask_exporter_series_dropped_total", target, 0
    yield "flask_exporter_worker_files", target | {"state": "live"}, 2
    yield "scrape_duration_seconds", target, 0.01
    yield "scrape_samples_post_metric_relabeling", target, 400


def _recorded(elapsed: float) -> Samples:
    """What the recording rules make of it, as far as the dashboards read it."""
    now, past = (
        {(name, tuple(labels.items())): value for name, labels, value in _raw(moment)}
        for moment in (elapsed, elapsed - RATE)
    )
    sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
    duration = "flask_http_request_duration_seconds"
    for (name, labels), value in now.items():
        if not name.startswith(duration) or not name.endswith(("_bucket", "_count")):
            continue
        rate = (value - past.get((name, labels), 0)) / RATE
        kept = {key: text for key, text in labels if key not in {"method", "status"}}
        for level, missing in (("instance", {"url_rule"}), ("instance_url_rule", set())):
            of = tuple((key, text) for key, text in kept.items() if key not in missing)
            sums[f"{level}:{name.removesuffix('_count')}:rate_5m", of] += rate
        if name.endswith("_bucket"):
            if dict(labels)["le"] in {"0.5", "5.0", "+Inf"}:
                sums[f"instance_url_rule:{name}:promised_rate_5m", tuple(kept.items())] += rate
            if dict(labels)["le"] in {"0.5", "2.5"} and dict(labels)["status"] != "500":
                sums[f"instance_url_rule:{name}:good_rate_5m", tuple(kept.items())] += rate
            continue
        service = tuple((key, kept[key]) for key in ("job", "service"))
        sums[f"job:{duration}:rate_5m", service] += rate
        sums[f"job:{duration}:errors_rate_5m", service] += rate * (dict(labels)["status"] == "500")
    for (name, labels), total in list(sums.items()):
        yield name, dict(labels), total
        if name == f"job:{duration}:rate_5m":
            yield from _judged(dict(labels), total, sums[f"job:{duration}:errors_rate_5m", labels], elapsed)


def _judged(service: dict[str, str], total: float, bad: float, elapsed: float) -> Samples:
    """Ratio, percentiles and objectives of a service with `total` requests a second, of which `bad` fail."""
    duration, slo = "job:flask_http_request_duration_seconds", "slo:flask_http_requests"
    yield f"{duration}:error_ratio_5m", service, bad / total
    for quantile, seconds in {"p95": 0.4, "p99": 0.9}.items():
        yield f"{duration}:{quantile}_5m", service, seconds
    for objective, allowed, spoilt in (("errors", 0.001, bad), ("latency", 0.05, total / 50)):
        pace = spoilt / total / allowed
        values = {"objective": 1 - allowed, "total_rate_5m": total, "total_30d": total * elapsed}
        values |= {"good_30d": (total - spoilt) * elapsed, "budget_left_30d": 1 - pace}
        values |= {f"burn_rate_{window}": pace for window in ("5m", "30m", "1h", "6h")}
        values |= {"covered_1h": elapsed / 3600, "covered_6h": elapsed / 21600}
        for each, value in values.items():
            yield f"{slo}:{each}", service | {"slo": objective}, value


def _alerts(elapsed: float, begin: float) -> Samples:
    for name, severity, labels, since in RUNNING_ALERTS:
        of = {"alertname": name, "severity": severity, **labels}
        if elapsed >= since:
            yield "ALERTS", of | {"alertstate": "firing"}, 1
            yield "ALERTS_FOR_STATE", of, begin + since


def write(directory: Path, end: int, *, recorded: bool = True) -> None:
    """Write blocks whose last samples are of the moment `end`, with or without those of recording rules."""
    begin = end - SECONDS

    def samples(elapsed: float) -> Samples:
        yield from _raw(elapsed)
        yield from _alerts(elapsed, begin)
        if recorded and elapsed >= RATE and elapsed % 60 == 0:
            yield from _recorded(elapsed)

    write_samples(directory, begin, samples)


def write_samples(directory: Path, begin: int, samples: Callable[[float], Samples]) -> None:
    """Write blocks with the samples of each scrape, by the seconds since `begin`."""
    with (directory / "history.om").open("w") as file:
        for elapsed in range(0, SECONDS + 1, SCRAPE):
            for name, labels, value in samples(elapsed):
                text = ",".join(f'{key}="{label}"' for key, label in labels.items())
                file.write(f"{name}{{{text}}} {value} {begin + elapsed}\n")
        file.write("# EOF\n")
    subprocess.run(
        [
            *(executable("promtool"), "tsdb", "create-blocks-from", "openmetrics", "--quiet"),
            *(file.name, directory / "data"),
        ],
        check=True,
        capture_output=True,
    )
