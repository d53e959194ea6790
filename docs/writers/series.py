"""reference/recorded-series.md: every series that the rules record."""

from __future__ import annotations

import itertools
import re
from typing import Any

from docs.writers import rules
from docs.writers.markdown import code, fence, page, section, table

DURATION = "flask_http_request_duration_seconds"

# Names with alternatives in braces, as a shell has them → labels, and meaning.
MEANINGS = {
    f"job:{DURATION}:{{rate,errors_rate,error_ratio,mean,p50,p95,p99}}_5m": (
        "job, service",
        "the whole service; errors are statuses of 500 or more",
    ),
    f"url_rule:{DURATION}:{{rate,errors_rate,error_ratio,mean,p50,p95,p99}}_5m": (
        "job, service, url_rule",
        "the same for each endpoint",
    ),
    f"job:{DURATION}:{{p50_15m,p95_15m,usual_rate_5m,usual_p50_15m,usual_p95_15m}}": (
        "job, service",
        "percentiles over a quarter of an hour; the least requests and the highest percentiles that are usual at this hour",
    ),
    f"{{job,url_rule,instance,instance_url_rule}}:{DURATION}:histogram_rate_5m": (
        "those in its name",
        "the native histogram, where there is one; the first two only where it has all of the requests",
    ),
    f"url_rule:{DURATION}:max_5m": ("job, service, url_rule", "the longest request, exact"),
    "job:flask_http_request_queue_seconds:p95_5m": (
        "job, service",
        "95th percentile of the time in the queue",
    ),
    f"url_rule_status:{DURATION}:rate_5m": (
        "job, service, url_rule, status",
        "requests per second, those included with which a series begins",
    ),
    f"{{instance,instance_url_rule}}:{DURATION}:rate_5m": ("those in its name", "requests per second"),
    f"{{job,url_rule,instance,instance_url_rule}}:{DURATION}_bucket:rate_5m": (
        "those in its name, le",
        "for percentiles over other groups; the last one only where native histograms lack some of the requests",
    ),
    f"instance_url_rule:{DURATION}_bucket:good_rate_5m": (
        "those in its name, le",
        "requests within Apdex' bounds (0.5 s, 2.5 s) that did not fail, per second",
    ),
    f"instance_url_rule:{DURATION}_bucket:promised_rate_5m": (
        "those in its name, le",
        "requests within the bounds of the objectives (0.5 s, 5 s), and all, per second",
    ),
    f"url_rule:{DURATION}_sum:rate_5m": ("job, service, url_rule", "seconds spent on requests, per second"),
    f"instance:{DURATION}_sum:rate_5m": ("job, service, instance", "seconds spent on requests, per second"),
    "url_rule_error_type:flask_http_request_errors:rate_5m": (
        "job, service, url_rule, error_type",
        "errors that are not the client's, per second",
    ),
    "error_group:flask_http_request_error_group:seen_5m": (
        "job, service, error_group, error_type, where, version",
        "bugs met in the last 5 minutes, and in which version",
    ),
    "slo:flask_http_requests:objective": (
        "job, service, slo",
        "what is promised, 0 to 1; the promise for one endpoint has a url_rule too",
    ),
    "slo:flask_http_requests:{good,total}_rate_5m": ("job, service, slo", "good and all requests per second"),
    "host:flask_worker_resident_memory_bytes:growth_4h": (
        "job, service, host",
        "bytes by which the workers on a host will have grown in 4 hours",
    ),
    "slo:flask_http_requests:{good,total}_{15m,30m,1h,2h,6h,1d,3d,30d}": (
        "job, service, slo",
        "good and all requests of the window",
    ),
    "slo:flask_http_requests:covered_{1h,6h,1d,3d}": (
        "job, service, slo",
        "how much of the window has been seen, 0 to 1",
    ),
    "slo:flask_http_requests:burn_rate_{5m,30m,1h,2h,6h,1d,3d,30d}": (
        "job, service, slo",
        "1 uses the whole budget up in 30 days",
    ),
    "slo:flask_http_requests:budget_left_30d": (
        "job, service, slo",
        "1 untouched, 0 used up, less than 0 missed",
    ),
}

INTRODUCTION = """\
What the rules record of the metrics, for dashboards, alerts and your own queries. A name is level, metric and operation. Labels of a
target beside `job` and `service`, such as `env`, `namespace` and `cluster`, are carried along."""


def expanded(pattern: str) -> list[str]:
    """`a_{b,c}` as `a_b` and `a_c`, as in a shell."""
    parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
    return ["".join(choice) for choice in itertools.product(*parts)]


def text() -> str:
    """The page; KeyError for a series without a meaning, or a meaning without a series."""
    records = rules.by_name("record")
    meanings = {name: facts for pattern, facts in MEANINGS.items() for name in expanded(pattern)}
    return page(
        "Recorded series",
        "docs/writers/series.py and prometheus/rules",
        INTRODUCTION,
        table(
            ["series", "labels", "meaning"],
            [[code(pattern), labels, meaning] for pattern, (labels, meaning) in MEANINGS.items()],
        ),
        *(_section(name, *meanings[name], records[name]) for name in {**meanings, **records}),
    )


def _section(name: str, labels: str, meaning: str, records: list[dict[str, Any]]) -> str:
    facts = f"Labels: {labels}."
    if records[0]["interval"]:
        facts += f" Recorded every {records[0]['interval']}."
    texts = [_expression(rule) for rule in records]
    return section(code(name), f"{meaning[0].upper()}{meaning[1:]}. {facts}", *texts)


def _expression(rule: dict[str, Any]) -> str:
    labels = ", ".join(f"{label} {code(value)}" for label, value in rule.get("labels", {}).items())
    block = fence("promql", rule["expr"])
    return f"With {labels}:\n\n{block}" if labels else block
