"""What the pages show of an incident, as a real Prometheus answers their queries."""

from __future__ import annotations

import math
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grafana.alerts import STATES
from tests.bench.dashboards import running
from tests.grafana.history import DEPLOY, ENDPOINTS, INSTANCES, RUNNING_ALERTS, SECONDS, write
from tests.rig.pages import BOARDS, Pages, Row, panels
from tests.rig.places import ROOT
from tests.rig.queries import queries_of

EVERY_ENDPOINT = "Endpoints in this time range, the most errors first; Δ to ${compare:text}"

# Filters that some panel of their page does not have, and why.
UNFILTERED = {
    ("flask-workers", "service"): "hosts have no service",
    ("flask-workers", "instance"): "hosts have instances of their own",
    ("flask-workers", "host"): "workers do not say which host they run on",
    ("flask-errors", "url_rule"): "a bug is one over all endpoints that meet it",
    ("flask-errors", "instance"): "lines of the log do not tell instances apart",
    ("flask-service", "instance"): "an objective is a whole service's",
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pages]:
    directory: Path = tmp_path_factory.mktemp("pages")
    end = int(time.time()) // 60 * 60
    write(directory, end)
    with running(directory / "data") as address:
        yield Pages(address, end, SECONDS)


every_page = pytest.mark.parametrize("uid", BOARDS)


@every_page
def test_a_page_of_one_service_shows_no_other(pages: Pages, uid: str) -> None:
    """Every query has an answer, though it may be empty, that has no row of the other one."""
    whole = uid == "monitoring-pipeline"  # it has no filter, and is about everything that is scraped
    allowed = {"orders", "", *(INSTANCES if whole else ())}
    others = {
        str(query)
        for query in queries_of(BOARDS[uid])
        if "variable" not in query.title
        for row in pages.ask(query, service="orders")
        if row.labels.get("service", "") not in allowed
    }

    assert others == set()


@every_page
def test_no_row_mixes_services(pages: Pages, uid: str) -> None:
    """What tells endpoints, instances or versions apart tells their services apart too."""
    mixed = {
        str(query)
        for query in queries_of(BOARDS[uid])
        if "variable" not in query.title
        for row in pages.ask(query)
        if {"url_rule", "version"} & row.labels.keys() and "service" not in row.labels
    }

    assert mixed == set()


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        (".*", {name for name, *_ in RUNNING_ALERTS}),
        ("orders", {"FlaskErrorRatioCritical", "FlaskTargetDown", "HostMemoryLow"}),
        ("shop", {"FlaskLatencyHigh", "ProbeFailed", "HostMemoryLow"}),
    ],
)
@pytest.mark.parametrize("uid", ["home", "flask-service"])
def test_every_firing_alert_is_listed(pages: Pages, uid: str, service: str, expected: set[str]) -> None:
    """Those of probes and hosts too, with their service, and since when."""
    rows = pages.table(uid, "Firing alerts", "alertname", "service", service=service)
    planted: dict[tuple[str, ...], int] = {
        (name, labels.get("service", "")): since for name, _, labels, since in RUNNING_ALERTS
    }

    assert {name for name, _ in rows} == expected
    assert {key: row["Since"] for key, row in rows.items()} == {
        key: (pages.end - SECONDS + planted[key]) * 1000 for key in rows
    }


@pytest.mark.parametrize(
    ("service", "instance", "expected"),
    [
        ("orders", "o1:80", {"FlaskErrorRatioCritical", "HostMemoryLow"}),
        ("orders", "o2:80", {"FlaskErrorRatioCritical", "FlaskTargetDown", "HostMemoryLow"}),
        ("shop", "s1:80", {"FlaskLatencyHigh", "ProbeFailed", "HostMemoryLow"}),
    ],
)
def test_a_chosen_instance_hides_the_alerts_of_the_others(
    pages: Pages, service: str, instance: str, expected: set[str]
) -> None:
    """Probes and hosts have instances of other kinds, which nobody can choose: their alerts stay."""
    rows = pages.table("flask-service", "Firing alerts", "alertname", service=service, instance=instance)

    assert {name for (name,) in rows} == expected


def test_the_newest_critical_alert_stands_first(pages: Pages) -> None:
    """Ten that fire longer do not hide it below the table's edge."""
    rows = [(cells["Severity"], -cells["Since"]) for cells in pages.cells("home", "Firing alerts")]

    assert len(rows) == len(RUNNING_ALERTS)
    assert rows == sorted(rows)


def test_an_alert_leads_to_its_runbook() -> None:
    """Through Grafana, from the Prometheus that serves it under /user."""
    (panel,) = (panel for panel in panels("home") if panel["title"] == "Firing alerts")
    properties = [entry for override in panel["fieldConfig"]["overrides"] for entry in override["properties"]]
    url = next(entry["value"][0]["url"] for entry in properties if entry["id"] == "links")
    directory, _, name = url.rpartition("/")

    assert directory == "/api/datasources/proxy/uid/${datasource}/user"
    for alert, *_ in RUNNING_ALERTS:
        file = name.replace("${__data.fields.Alert:percentencode}", alert)
        assert (ROOT / "prometheus/runbooks" / file).is_file()


def test_the_state_is_the_worst_that_is_known(pages: Pages) -> None:
    """In a word, with the instances that are up and the worst alert."""
    rows = pages.table("home", "Services, last 5 minutes", "service", "instances", "alert")
    states = {key: STATES[int(row["State"])][0] for key, row in rows.items() if "State" in row}

    assert states == {
        ("orders", "1 of 2", "FlaskErrorRatioCritical"): "Critical",
        ("shop", "2 of 2", "ProbeFailed"): "Critical",
    }


def test_the_state_of_one_instance_is_its_own(pages: Pages) -> None:
    """An alert about a whole service is also that of its instances."""

    def state(instance: str) -> tuple[str, str]:
        ((row,),) = pages.lines("flask-service", "State", service="orders", instance=instance)
        return STATES[int(row.values[0])][0], row.labels["instances"]

    assert state("o1:80") == ("Critical", "1 of 1")
    assert state("o2:80") == ("Down", "0 of 1")


def test_no_percentile_is_above_the_slowest_request(pages: Pages) -> None:
    """In the table of endpoints, and on the graph of a service."""
    rows = pages.table("flask-endpoints", EVERY_ENDPOINT, "service", "url_rule")
    slowest, *percentiles, _ = pages.lines("flask-service", "Duration of requests, 5m", service="shop")

    assert [key for key, row in rows.items() if max(row["p50"], row["p95"], row["p99"]) > row["Max"]] == []
    assert len(percentiles) == 3
    for ((_, values),) in percentiles:
        assert max(values) <= max(slowest[0].values)


def test_shares_add_up(pages: Pages) -> None:
    """Each endpoint's share of the time, and of what an objective lost."""
    endpoints = pages.table("flask-endpoints", EVERY_ENDPOINT, "service", "url_rule")
    spent = pages.table("flask-slo", "Who spent it in this time range", "service", "slo", "url_rule")
    sums: dict[tuple[str, ...], float] = defaultdict(float)
    for (*objective, _), row in spent.items():
        sums[tuple(objective)] += row["Share"]

    assert sum(row.get("Time", 0) for row in endpoints.values()) == pytest.approx(1)
    assert sums == {
        key: pytest.approx(1)
        for key in {(service, slo) for service in INSTANCES for slo in ("errors", "latency")}
    }


@pytest.mark.parametrize("service", INSTANCES)
def test_pages_agree_about_a_ratio(pages: Pages, service: str) -> None:
    """Home, the service's own page, in its tile and at the end of its graph, and what the budget burns."""
    home = pages.table("home", "Services, last 5 minutes", "service")[service,]
    (tile,), (graph,), _ = pages.lines("flask-service", "Error ratio, ${window:raw}", service=service)
    ((allowed,),) = pages.lines("flask-service", "Of allowed, ${window:raw}", service=service)
    burn = pages.table("flask-slo", "Objectives, over 30 days", "service", "slo")[service, "errors"]

    assert home["Error ratio"] > 0
    assert tile.values[-1] == graph.values[-1] == pytest.approx(home["Error ratio"], rel=0.02)
    assert allowed.values[-1] == pytest.approx(home["Of allowed"], rel=0.02)
    assert burn["Burn 5m"] == pytest.approx(home["Of allowed"])


@pytest.mark.parametrize(
    ("uid", "title"),
    [("flask-service", "Endpoints that matter, ${window:raw}"), ("flask-endpoints", EVERY_ENDPOINT)],
)
def test_the_endpoint_with_the_most_errors_stands_first(pages: Pages, uid: str, title: str) -> None:
    """Then those that take the most time; a 404 is no error."""
    rows = pages.cells(uid, title, service="orders")

    assert [row["Endpoint"] for row in rows[:2]] == ["/checkout", "/slow"]
    assert not {"Errors", "Errors/s"} & set().union(*rows[1:])


def test_the_chosen_objective_has_its_spenders(pages: Pages) -> None:
    rows = pages.table("flask-slo", "Who spent it in this time range", "slo", slo="latency")

    assert rows.keys() == {("latency",)}


@every_page
def test_a_filter_that_a_page_offers_changes_each_of_its_panels(uid: str) -> None:
    """Or UNFILTERED says why it does not."""
    offered = {
        variable["name"]
        for variable in BOARDS[uid]["templating"]["list"]
        if variable["type"] == "query" and variable.get("hide") != 2
    }
    without = {
        (uid, name)
        for name in offered
        for panel in panels(uid)
        for target in panel["targets"]
        if not re.search(rf"\$\{{?{name}\b", target["expr"])
    }

    assert without - UNFILTERED.keys() == set()
    assert {key for key in UNFILTERED if key[0] == uid} <= without


def test_failures_stand_before_refusals(pages: Pages) -> None:
    """404s, of which there are ten times as many, do not hide what a deploy broke."""
    titles = "Failures in this time range, by type and endpoint", "New error types in this time range"
    rows, new = (pages.table("flask-errors", title, "error_type", "service") for title in titles)

    assert rows.keys() == new.keys() == {("ValueError", "orders"), ("InventoryTimeout", "shop")}
    first = pages.end - SECONDS + DEPLOY
    assert 0 <= rows["InventoryTimeout", "shop"]["First"] / 1000 - first <= 60
    assert {row["Times"] for row in new.values()} == {row["Times"] for row in rows.values()}


def test_endpoints_of_the_same_name_are_told_apart(pages: Pages) -> None:
    rows = pages.table("flask-endpoints", EVERY_ENDPOINT, "service", "url_rule")

    assert rows["orders", "/checkout"]["Error ratio"] == pytest.approx(0.19, abs=0.01)
    assert rows["shop", "/checkout"]["Error ratio"] == pytest.approx(0.036, abs=0.001)
    assert rows["shop", "/checkout"]["Δ errors"] > 0.01
    assert rows["shop", "/checkout"]["Δ p95"] > 0.001
    assert (rows["orders", "/"]["Δ errors"], rows["orders", "/"]["Δ p95"]) == (0, 0)


def test_without_a_past_there_is_no_change(pages: Pages) -> None:
    """Not one from nothing: the cells say so."""
    rows = pages.table("flask-endpoints", EVERY_ENDPOINT, "service", "url_rule", compare="1d")
    (table,) = (panel for panel in panels("flask-endpoints") if panel["title"] == EVERY_ENDPOINT)
    texts = {
        override["matcher"]["options"]: entry["value"][0]["options"]["result"]["text"]
        for override in table["fieldConfig"]["overrides"]
        for entry in override["properties"]
        if entry["id"] == "mappings" and entry["value"][0]["type"] == "special"
    }

    assert texts == {"Δ errors": "-", "Δ p95": "-"}
    assert all(math.isnan(row[column]) for row in rows.values() for column in texts)


def test_the_fullest_instance_counts(pages: Pages) -> None:
    """7 of 8 threads of one instance, though the other one is idle."""
    ((row,),) = pages.lines("flask-service", "Busy threads, 5m", service="shop")

    assert row.values[-1] == 7 / 8


def test_a_deploy_has_one_mark_with_its_service(pages: Pages) -> None:
    """The versions at the beginning of the data are no deploys, and a restart replaces no worker."""

    def marks(name: str) -> list[Row]:
        (answer,) = pages.lines("home", f"annotation {name}")
        return answer

    ((labels, values),) = marks("Deploys")
    restarts = {row.labels["instance"] for row in marks("Restarts")}
    ((replaced, _),) = marks("Replaced workers")

    alerts = {tuple(row.labels.values()) for row in marks("Critical alerts")}

    assert alerts == {("FlaskErrorRatioCritical", "orders"), ("ProbeFailed", "shop")}
    assert labels == {"service": "shop", "version": "2.0"}
    assert len(values) == 1
    assert restarts == {"s1:80", "s2:80"}
    assert replaced == {"service": "orders"}


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Deaths of workers by cause", {"cause": "SIGKILL"}),
        ("Lost requests by endpoint and cause", {"url_rule": "/", "cause": "SIGKILL"}),
        ("Workers replaced by instance", {"instance": "o1:80"}),
    ],
)
def test_a_dead_worker_is_seen_once(pages: Pages, title: str, expected: dict[str, str]) -> None:
    """Its cause, what it was answering, and that another one took its place."""
    ((labels, values),) = pages.lines("flask-workers", title)[0]

    assert labels == {"service": "orders"} | expected
    assert sum(values) == (2 if "Lost" in title else 1)


def test_a_host_that_runs_out_of_memory_is_named(pages: Pages) -> None:
    """Beside the workers that died at that time."""
    _, ((labels, values),) = pages.lines("flask-workers", "Deaths of workers by cause")

    assert labels == {"instance": "node:9100"}
    assert sum(values) == 1


@pytest.mark.parametrize(
    "title",
    [
        "Request rate by instance and version, ${window:raw}",
        "Error ratio by instance and version, ${window:raw}",
        "p95 by instance and version, 5m",
    ],
)
def test_instances_and_versions_are_told_apart(pages: Pages, title: str) -> None:
    """Before the deploy and after it."""
    (rows,) = pages.lines("flask-service", title, service="shop")

    assert sorted((row.labels["instance"], row.labels["version"]) for row in rows) == [
        (instance, version) for instance in INSTANCES["shop"] for version in ("1.0", "2.0")
    ]


def test_a_bug_has_its_place_and_its_beginning(pages: Pages) -> None:
    rows = pages.table(
        "flask-errors", "Bugs in this time range, by error group", "error_group", "where", "service"
    )

    assert rows.keys() == {("orders0", "app:pay", "orders"), ("shop0", "app:pay", "shop")}
    assert all(row["First"] < row["Last"] for row in rows.values())


def test_the_time_of_slow_requests_adds_up(pages: Pages) -> None:
    rows = pages.table(
        "flask-endpoints", "Where slow requests wait, in this time range", "service", "url_rule", "where"
    )

    assert rows.keys() == {("orders", "/slow", "app.views:wait"), ("shop", "/checkout", "app.views:wait")}
    assert sum(row["Share"] for row in rows.values()) == pytest.approx(1)


def test_forty_minutes_tell_nothing_about_thirty_days(pages: Pages) -> None:
    """No budget and no time until it is gone; burn rates from half of their window on."""
    rows = pages.table("flask-slo", "Objectives, over 30 days", "service", "slo")
    columns = set().union(*rows.values())

    assert {"Budget left", "Exhausted in", "Burn 6h"} & columns == set()
    assert {"Attained", "Seen", "Burn 5m", "Burn 1h"} <= columns
    assert rows["orders", "errors"]["Seen"] == pytest.approx(36 / 43_200)


TABLES = [
    (uid, panel["title"])
    for uid in BOARDS
    for panel in panels(uid)
    if panel["type"] == "table" and panel["datasource"]["type"] == "prometheus"
]
FAILING = {endpoint.rule for endpoint in ENDPOINTS if endpoint.error_type}


@pytest.mark.parametrize("instance", ["$__all", "o1:80"])
@pytest.mark.parametrize(("uid", "title"), TABLES)
def test_a_link_from_a_row_opens_what_the_row_is_about(
    pages: Pages, uid: str, title: str, instance: str
) -> None:
    """The page has data, all of it of the row's service, and shows the row's endpoint.

    Also where an instance of orders was chosen, here or on the page before.
    """
    (panel,) = (panel for panel in panels(uid) if panel["title"] == title)
    (variable,) = (each for each in BOARDS[uid]["templating"]["list"] if each["name"] == "instance")
    kept = variable["query"] if variable["type"] == "constant" else instance
    targets = {
        (target, tuple(sorted(values.items())))
        for url in links_of(panel)
        for answer in pages.lines(uid, title, instance=pattern(kept))
        for row in answer
        for target, values in [follow(url, panel, row.labels | {"kept": kept})]
        if target != "flask-requests"  # it shows lines of a log
    }

    assert targets
    for target, values in targets:
        chosen = dict(values)
        answers = pages.page(target, **{name: pattern(value) for name, value in chosen.items()})
        services = {row.labels["service"] for row in answers if "service" in row.labels}
        rules = {row.labels.get("url_rule") for row in answers}
        rule = chosen.get("url_rule", "$__all")

        assert answers, (target, chosen)
        everything = chosen["service"] == "$__all" or target == "monitoring-pipeline"
        assert services <= {chosen["service"], "", *(INSTANCES if everything else ())}
        assert rule in {"$__all", *rules} or (target == "flask-errors" and rule not in FAILING)


def links_of(panel: dict[str, Any]) -> list[str]:
    """The addresses of the links from a table to dashboards."""
    return [
        link["url"]
        for override in panel["fieldConfig"]["overrides"]
        for entry in override["properties"]
        if entry["id"] == "links"
        for link in entry["value"]
        if link["url"].startswith("/d/")
    ]


def follow(url: str, panel: dict[str, Any], labels: dict[str, str]) -> tuple[str, dict[str, str]]:
    """The dashboard that a link opens, and what it chooses there: the texts of the row's cells."""
    names = panel["transformations"][-1]["options"]["renameByName"]
    cells = {title: labels.get(label, "") for label, title in names.items()}
    filled = re.sub(r"\$\{__data\.fields\.(\w+):percentencode\}", lambda field: cells[field[1]], url)
    filled = filled.replace("${instance:queryparam}", f"var-instance={labels['kept']}")
    target, _, parameters = filled.removeprefix("/d/").partition("?")
    return target, dict(re.findall(r"var-(\w+)=([^&]+)", parameters))


def pattern(value: str) -> str:
    """A value of a variable as Grafana writes it into a query."""
    return ".*" if value == "$__all" else re.escape(value).replace("\\", "\\\\")
