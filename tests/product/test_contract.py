"""Each stage reads only names that the stage before it gives out, held against a real Prometheus.

What rules, runbooks and dashboards ask for is there, with the labels that they select and group by. That each
alert has a runbook, a dashboard and a firing case is in test_alerts.py; that each query of a dashboard has an
answer, in test_dashboards.py.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from grafana.build import documents
from tests.rig.alerts import ALERTS, Query, queries, rules
from tests.rig.deadline import eventually
from tests.rig.network import get_json
from tests.rig.queries import queries_of
from tests.rig.stack import STARTED, Run, running, settings

# Programs that run in compose only: their names are taken as they are.
COMPOSE_ONLY = ("loki_", "alloy_", "vmalert_")

# Only an https target has the first, only a service that was there yesterday the next three, only requests
# that came through a proxy the next ones, only a service without native histograms the next one, only a
# Prometheus that sends its samples the next, and the sums of days come with a full hour, which is a minute
# here; their labels are those of another series.
REQUESTS_5M = "job:flask_http_request_duration_seconds:rate_5m"
LIKE = {
    "probe_ssl_earliest_cert_expiry": "probe_success",
    "job:flask_http_request_duration_seconds:usual_rate_5m": REQUESTS_5M,
    "job:flask_http_request_duration_seconds:usual_p50_15m": REQUESTS_5M,
    "job:flask_http_request_duration_seconds:usual_p95_15m": REQUESTS_5M,
    "job:flask_http_request_queue_seconds:p95_5m": REQUESTS_5M,
    "flask_http_request_queue_seconds": "flask_http_request_queue_seconds_count",
    "instance_url_rule:flask_http_request_duration_seconds_bucket:rate_5m": (
        "flask_http_request_duration_seconds_bucket"
    ),
    **dict.fromkeys(
        (
            "prometheus_remote_storage_queue_highest_sent_timestamp_seconds",
            *(f"prometheus_remote_storage_samples_{name}_total" for name in ("failed", "retried")),
            "prometheus_remote_storage_samples_total",
            "prometheus_remote_storage_shards_desired",
            "prometheus_remote_storage_shards_max",
        ),
        "prometheus_tsdb_wal_storage_size_bytes",
    ),
    **{
        f"slo:flask_http_requests:{name}_{days}d": f"slo:flask_http_requests:{name}_1h"
        for name in ("total", "good", "covered", "burn_rate")
        for days in (1, 3)
    },
}

# It comes after half an hour.
LATER = {"host:flask_worker_resident_memory_bytes:growth_4h": {"job", "service", "host"}}

RECORDED = {rule["record"] for rule in rules() if "record" in rule}

# What tells services, the parts of one, and receivers of samples apart, and a label of vmalert; a target here
# has none of them.
FURTHER = {"env", "namespace", "cluster", "pod", "remote_name", "url", "alertgroup"}

# They have a url_rule where slo.yml has an objective for one endpoint.
PROMISES = ("slo:", "ALERTS")

CLAUSES = r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)"
WORDS = {
    "and",
    "or",
    "unless",
    "bool",
    "offset",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
}

EVERYTHING = urlencode({"match[]": '{__name__!=""}'})

# One request of each kind that makes series of its own.
REQUESTS = (
    "/",
    "/orders",
    "/orders/999999",
    "/test/error",
    "/test/server-error",
    "/test/slow?seconds=2",
    "/nowhere",
)


def bare(promql: str) -> str:
    """An expression without comments and the contents of its strings."""
    return re.sub(r'"(\\.|[^"\\])*"|`[^`]*`|#[^\n]*', '""', promql)


def series(promql: str) -> set[str]:
    """Names of the metrics that an expression selects."""
    text = re.sub(CLAUSES, " ", bare(promql))
    text = re.sub(r"\{[^}]*\}|\[[^]]*\]", " ", text)
    return set(re.findall(r"(?<![\w.:$])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])", text)) - WORDS


def selected(promql: str) -> Iterator[tuple[str, str]]:
    """(metric, label) of every matcher."""
    for name, matchers in re.findall(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}", bare(promql)):
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
            yield name, label


def grouped(promql: str) -> set[str]:
    """Labels that an expression aggregates or joins by, but for those that it makes itself."""
    made = set(re.findall(r'"(\w+)"', promql)) if re.search(r"\blabel_(replace|join)\b", promql) else set()
    return (
        {label for _, labels in re.findall(CLAUSES, bare(promql)) for label in re.findall(r"\w+", labels)}
        - made
        - {"__name__"}
    )


@cache
def every_query() -> list[Query]:
    """What rules, runbooks and dashboards ask Prometheus."""
    boards = map(json.loads, documents().values())
    asked = (query for board in boards for query in queries_of(board))
    return [*queries(), *(Query(str(query), query.expression) for query in asked)]


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, set[str]]:
    """Names and labels of all series of the stack under traffic, 60 times as fast, with two workers."""
    directory: Path = tmp_path_factory.mktemp("contract")
    secret = directory / "secret"
    secret.write_text("http://127.0.0.1:9/nobody-listens-here\n", encoding="utf-8")
    environ = settings(
        directory / "run",
        TIME_SCALE="60",
        TRAFFIC_USERS="3",
        WEB_CONCURRENCY="2",
        ALERT_RECEIVER="webhook",
        ALERT_SECRET_FILE=str(secret),
    )
    found: dict[str, set[str]] = {}
    with running(environ) as stack:
        stack.wait_until_up(STARTED)

        def complete() -> bool:
            for path in REQUESTS:
                ask(stack, path)
            found.update(labels(stack))
            like = {name: found[like] for name, like in LIKE.items() if like in found} | LATER
            found.update({name: like[name] for name in like if ":" not in name or name in RECORDED})
            for name in found:
                if name.startswith(PROMISES):
                    found[name].add("url_rule")
            if "ALERTS" in found:  # also of alerts that do not fire here
                found["ALERTS"] |= {
                    label for rule in ALERTS for label in (*rule["labels"], *kept(rule["expr"], found))
                }
            return not missing(found)

        with suppress(AssertionError):  # the first test says what is missing
            eventually(complete, "every name is known", 60)
    return found


def ask(stack: Run, path: str) -> None:
    """One request, and one whose client does not wait for the end of a stream."""
    try:
        urlopen(Request(stack.url("APP_PORT", path)), timeout=10).close()
    except HTTPError as error:
        error.close()
    urlopen(stack.url("APP_PORT", "/test/stream"), timeout=10).close()


def labels(stack: Run) -> Mapping[str, set[str]]:
    """Labels of every series that Prometheus has, by name."""
    url = stack.url("PROMETHEUS_PORT", f"/api/v1/series?{EVERYTHING}")
    found: dict[str, set[str]] = {}
    for one in get_json(url)["data"]:
        found.setdefault(one["__name__"], set()).update(one)
    return found


def missing(found: Mapping[str, set[str]]) -> set[tuple[str, str]]:
    """(place, name) of what is asked for and not there."""
    return {
        (query.place, name)
        for query in every_query()
        for name in series(query.promql)
        if name not in found and not name.startswith(COMPOSE_ONLY)
    }


def test_every_series_is_there(known: Mapping[str, set[str]]) -> None:
    """A misspelt name would keep its alert silent and its panel empty for ever."""
    assert missing(known) == set()


def test_every_selected_label_is_there(known: Mapping[str, set[str]]) -> None:
    """A matcher on a label that a series does not have selects nothing, or everything."""
    wrong = {
        (query.place, name, label)
        for query in every_query()
        for name, label in selected(query.promql)
        if not name.startswith(COMPOSE_ONLY) and label not in known.get(name, ())
    }

    assert wrong == set()


def labels_of(promql: str, known: Mapping[str, set[str]]) -> set[str] | None:
    """Labels of all series of an expression together; None if some are compose's."""
    names = series(promql)
    if any(name.startswith(COMPOSE_ONLY) for name in names):
        return None
    return set().union(*(known.get(name, ()) for name in names))


def kept(promql: str, known: Mapping[str, set[str]]) -> set[str]:
    """Labels that an expression leaves as its series have them; none if it aggregates or joins."""
    if re.search(rf"{CLAUSES}|\b(absent|count|max|min|sum)\s*\(", bare(promql)):
        return set()
    return labels_of(promql, known) or set()


def test_every_grouping_label_is_there(known: Mapping[str, set[str]]) -> None:
    """To sum by a label that is not there makes one of many; to drop one leaves a reader looking for it."""
    wrong = set()
    for query in every_query():
        there = labels_of(query.promql, known)
        if there is not None:
            wrong |= {(query.place, label) for label in grouped(query.promql) - there - FURTHER}

    assert wrong == set()


def test_every_label_in_a_message_is_there(known: Mapping[str, set[str]]) -> None:
    """A label that the alert does not have is a hole in its text or a link that leads nowhere."""
    wrong = set()
    for rule in ALERTS:
        there = labels_of(rule["expr"], known)
        if there is not None:
            text = json.dumps(rule["annotations"])
            optional = set(re.findall(r"with \$labels\.(\w+)", text))
            used = set(re.findall(r"\$labels\.(\w+)", text)) - optional
            wrong |= {(rule["alert"], label) for label in used - there - rule["labels"].keys() - FURTHER}

    assert wrong == set()
