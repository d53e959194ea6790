"""The dashboards: committed as generated, complete, and answered by a live Prometheus."""

import ast
import contextlib
import http.client
import json
import math
import os
import re
import signal
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from grafana.alerts import PAGES
from grafana.build import DASHBOARDS, documents
from grafana.links import NAVIGATION
from tests.rig.deadline import eventually
from tests.rig.network import get_json
from tests.rig.queries import Query, fill, label_query, queries_of, step
from tests.rig.stack import Run, running, settings

BOARDS = {path: json.loads(text) for path, text in documents().items()}
PROVISIONING = DASHBOARDS.parent / "provisioning"

# Queries that have no answer in a healthy stack that has just started, and why.
EMPTY = {
    "flask-service: Duration of requests, 5m (E)": "exemplars, which are no series",
    "flask-endpoints: p95 of the worst five, 5m (B)": "exemplars, which are no series",
    **{
        f"flask-errors: {title} (B)": "exemplars, which are no series"
        for title in (f"Failures by {label}" for label in ("error type", "version", "instance"))
    },
    "flask-endpoints: Mean bodies of the worst five, ${window:raw} (A)": "clients send these no bodies",
    "monitoring-pipeline: Notifications, ${window:raw} (B)": "no notification failed",
    "monitoring-pipeline: Notifications, ${window:raw} (D)": "no notification failed",
    "monitoring-pipeline: Log lines to Loki (A)": "there is no Loki without containers",
    "monitoring-pipeline: Log lines to Loki (B)": "there is no Loki without containers",
    "monitoring-pipeline: Certificates (A)": "the probed URL has none",
    "monitoring-pipeline: Exporter failures by stage (A)": "nothing failed",
    "monitoring-pipeline: Exporter failures by stage (B)": "no series was folded",
    "flask-workers: Lost requests by endpoint and cause (A)": "the killed worker had answered every request",
    "flask-workers: Memory full in (A)": "the data is younger than half an hour",
    "flask-workers: Disk full in (A)": "the data is younger than half an hour",
    **{
        f"flask-slo: Objectives, over 30 days ({ref})": "no budget is told before the third day"
        for ref in "AE"
    },
    **{f"flask-slo: Objectives, over 30 days ({ref})": "no half of its window has been seen" for ref in "CD"},
    "flask-slo: Budget left, the last 30 days (A)": "no budget is told before the third day",
    **{f"flask-slo: Burn rate of $slo ({ref})": "no half of its window has been seen" for ref in "AC"},
    "flask-workers: Deaths of workers by cause (A)": "the worker was killed before the time range",
    "flask-workers: Deaths of workers by cause (B)": "the host has memory",
    **{
        f"flask-workers: Load and pressure, ${{window:raw}} ({ref})": "some kernels have no PSI"
        for ref in "BCD"
    },
    "flask-service: Request rate, ${window:raw}, compared (C)": "nothing is usual before the second day",
    "flask-service: p95, 5m, compared (C)": "nothing is usual before the second day",
    "flask-workers: Workers replaced by instance (A)": "the worker was killed before the time range",
    "monitoring-pipeline: Targets that were down in this time range (A)": "all targets are up",
    "monitoring-pipeline: Targets that were down in this time range (B)": "no samples are sent elsewhere",
    **{f"home: Services, last 5 minutes ({ref})": "no budget is told before the third day" for ref in "GH"},
    **{
        f"{uid}: annotation {event} (A)": reason
        for uid in [*NAVIGATION, "home"]
        for event, reason in {
            "Restarts": "the service as a whole was not restarted",
            "Deploys": "there was no deploy",
            "Critical alerts": "none needs to fire",
            "Replaced workers": "the worker was killed before the time range",
        }.items()
    },
}

# The floors of the code in grafana/: a module imports from lower floors only.
FLOORS = (
    {"thresholds"},
    {"fields", "promql", "queries"},
    {"links", "panels", "variables"},
    {"board", "graphs", "tables", "tracebacks"},
    {"alerts"},
    {"boards"},
    {"build"},
)

SCRAPE = 1.0
RANGE = 60.0


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels of a dashboard that show data."""
    every = (inner for panel in board["panels"] for inner in [panel, *panel.get("panels", ())])
    return (panel for panel in every if panel["type"] != "row")


every_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)


def test_committed_dashboards_are_what_the_code_makes() -> None:
    """`make dashboards` changes nothing and deletes nothing."""
    committed = {
        path.relative_to(DASHBOARDS).as_posix(): path.read_text(encoding="utf-8")
        for path in DASHBOARDS.rglob("*.json")
    }

    assert documents() == committed


def rooms(path: Path) -> set[str]:
    """The modules and folders of grafana/ that a file imports from."""
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return {
        name
        for node in imports
        if node.module and node.module.split(".")[0] == "grafana"
        for name in (node.module.split(".")[1:2] or [alias.name for alias in node.names])
    }


def test_imports_run_one_way() -> None:
    """Each module imports from lower floors only, so no dashboard imports from another one."""
    code = DASHBOARDS.parent
    files = {path.stem: [path] for path in code.glob("*.py") if path.stem != "__init__"}
    files["boards"] = list((code / "boards").glob("*.py"))
    floors = {name: number for number, names in enumerate(FLOORS) for name in names}

    assert floors.keys() == files.keys()
    assert [
        f"{path.relative_to(code)} imports {other}"
        for name, paths in files.items()
        for path in paths
        for other in sorted(rooms(path))
        if floors[other] >= floors[name]
    ] == []


def test_the_six_and_home_are_there() -> None:
    """Each question has its dashboard, under the uid that alerts and links use."""
    assert {board["uid"] for board in BOARDS.values()} == {*NAVIGATION, "home"}


@every_board
def test_variables_begin_with_the_provisioned_datasource(board: dict[str, Any]) -> None:
    """Every query goes to the datasource variable, which is the provisioned one at first."""
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    provisioned = yaml.safe_load((PROVISIONING / "datasources/prometheus.yml").read_text())["datasources"]
    default = next(source for source in provisioned if source.get("isDefault"))
    sources = [panel["datasource"]["uid"] for panel in panels(board) if panel["datasource"]["type"] != "loki"]
    sources += [
        variable["datasource"]["uid"] for variable in variables.values() if variable["type"] == "query"
    ]
    sources += [event["datasource"]["uid"] for event in board["annotations"]["list"]]

    assert variables["datasource"]["current"]["value"] == default["uid"] == "prometheus"
    assert set(sources) == {"${datasource}"}
    assert "__inputs" not in board
    assert "${DS_" not in json.dumps(board)
    assert {"job", "service", "instance", "window"} <= set(variables)
    assert all(v["refresh"] in {1, 2} for v in variables.values() if v["type"] == "query")


@every_board
def test_panels_say_what_they_show(board: dict[str, Any]) -> None:
    """Each has a description, a unit and a text for no data; colours by threshold have thresholds."""
    for panel in panels(board):
        assert panel["description"], panel["title"]
        if panel["type"] == "heatmap":  # it has options of its own for these
            assert panel["options"]["yAxis"]["unit"] == "s"
            continue
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"], panel["title"]
        assert defaults["noValue"], panel["title"]
        if defaults.get("color", {}).get("mode") == "thresholds":
            steps = [entry["value"] for entry in defaults["thresholds"]["steps"]]
            assert steps[0] is None, panel["title"]
            assert steps[1:] == sorted(steps[1:]), panel["title"]
    titles = [panel["title"] for panel in panels(board) if panel["type"] == "stat"]
    assert len(titles) == len(set(titles))
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def cells(panels: list[dict[str, Any]]) -> dict[tuple[int, int], str]:
    """The panel at each place of the grid; AssertionError where there are two."""
    owners: dict[tuple[int, int], str] = {}
    for panel in panels:
        place = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not {owners[cell] for cell in covered & owners.keys()}, panel["title"]
        owners |= dict.fromkeys(covered, panel["title"])
    return owners


@every_board
def test_panels_fill_the_grid(board: dict[str, Any]) -> None:
    """No panel covers another, none sticks out, and no hole is left; nor in a row, once it is open."""
    for panels in (board["panels"], *(row["panels"] for row in board["panels"] if row["type"] == "row")):
        owners = cells(panels)
        rows = {y for _, y in owners}

        assert {x for x, _ in owners} == set(range(24))
        assert len(owners) == 24 * len(rows) == 24 * (max(rows) - min(rows) + 1)


@every_board
def test_the_first_view_is_open_and_short(board: dict[str, Any]) -> None:
    """It ends within 800 pixels; the rows below it are closed, and ask nothing."""
    rows = [panel for panel in board["panels"] if panel["type"] == "row"]
    ends = [
        panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"] if panel["type"] != "row"
    ]

    assert all(row["collapsed"] and row["panels"] for row in rows)
    assert all(row["gridPos"]["y"] >= max(ends) for row in rows)
    assert max(ends) * 38 <= 800


@every_board
def test_windows_leave_no_time_out(board: dict[str, Any]) -> None:
    """A graph of lines has a point at least as often as its window is long."""
    (window,) = (v for v in board["templating"]["list"] if v["name"] == "window")
    graphs = [panel for panel in panels(board) if panel["type"] == "timeseries"]
    lines = [panel for panel in graphs if panel["fieldConfig"]["defaults"]["custom"]["drawStyle"] == "line"]

    assert window["auto_min"] == "5m"
    assert all(panel["maxDataPoints"] == window["auto_count"] == 24 * 60 / 5 for panel in lines)


def test_there_are_no_more_panels_than_people_look_at() -> None:
    assert sum(1 for board in BOARDS.values() for _ in panels(board)) <= 85


@every_board
def test_queries_take_several_values(board: dict[str, Any]) -> None:
    """A variable that can have several values is matched as a regular expression."""
    for query in queries_of(board):
        assert '="$' not in query.expression, query


@every_board
def test_the_name_of_a_single_service_is_no_pattern(board: dict[str, Any]) -> None:
    """Grafana escapes the values of a variable that can have several; another one's it leaves as they are."""
    single = {
        variable["name"]
        for variable in board["templating"]["list"]
        if variable["type"] == "query" and not variable["multi"] and not variable["includeAll"]
    }

    assert single == ({"service"} if board["uid"] == "flask-service" else set())
    for query in queries_of(board):
        uses = re.findall(r"(.)(\$\{?service\b(?::\w+)?)", query.expression)
        assert {use for use in uses if use != ("`", "${service:regex")} == set(), query


@every_board
def test_endpoints_lead_to_their_dashboard(board: dict[str, Any]) -> None:
    """A column or a legend that names an endpoint links to it, with the selection and the time range."""
    for panel in panels(board):
        legends = {target.get("legendFormat", "") for target in panel["targets"]}
        links_of = {
            override["matcher"]["options"]: field["value"]
            for override in panel.get("fieldConfig", {}).get("overrides", ())
            for field in override["properties"]
            if field["id"] == "links"
        }
        if panel["title"] in {"Firing alerts", "Objectives, over 30 days"}:  # there the endpoint may be none
            continue
        columns = {
            title
            for transformation in panel.get("transformations", ())
            for title in transformation["options"].get("renameByName", {}).values()
        }
        if "Endpoint" in columns:
            links = links_of["Endpoint"]
        elif "{{service}} {{url_rule}}" in legends:
            links = links_of["number"]
        else:
            continue
        endpoint = next(link["url"] for link in links if link["url"].startswith("/d/flask-endpoints?"))
        assert "var-url_rule=${__" in endpoint, panel["title"]
        # The log's lines have no field of their service; the selection has.
        service = "${service:queryparam}" if panel["title"].startswith("Requests:") else "var-service=${__"
        for part in ("${datasource:queryparam}", "${job:queryparam}", service, "${__url_time_range}"):
            assert part in endpoint, panel["title"]


@every_board
def test_navigation_reaches_the_others(board: dict[str, Any]) -> None:
    """A list of all of them, as one button, which keeps variables and time range."""
    (link,) = board["links"]

    assert (link["type"], link["tags"], link["asDropdown"]) == ("dashboards", ["flask"], True)
    assert link["keepTime"]
    assert link["includeVars"]
    assert "flask" in board["tags"]


@every_board
def test_links_lead_to_dashboards_that_exist(board: dict[str, Any]) -> None:
    """No link names a dashboard that nothing makes."""
    uids = set(re.findall(r"/d/([\w-]+)", json.dumps(board)))

    assert uids <= {other["uid"] for other in BOARDS.values()}


PROXY = "127.0.0.2"  # not Prometheus' own address: what a proxy does not name is an outsider's


class Traffic:
    """Requests of every kind against the app, until it is stopped."""

    PATHS = (
        ("GET", "/", None),
        ("GET", "/orders", None),
        ("POST", "/orders", b'{"item": "tea", "quantity": 1, "unit_price": 2.5}'),
        ("POST", "/orders", b'{"item": "tea", "quantity": "many"}'),
        ("GET", "/orders/999999999", None),
        ("GET", "/test/normal", None),
        ("GET", "/test/slow?seconds=0.6", None),
        ("GET", "/test/error", None),
        ("GET", "/test/notfound", None),
        ("GET", "/test/server-error", None),
        ("GET", "/nowhere", None),
    )

    def __init__(self, port: str) -> None:
        self._port = int(port)
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._loop, args=(loop,)) for loop in (self._round, self._leave)
        ]

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _loop(self, once: Any) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):  # a killed worker's connections
                once()

    def _round(self) -> None:
        for method, path, body in self.PATHS:
            headers = {"X-Request-Start": f"t={time.time() - 0.02:.3f}", "Content-Type": "application/json"}
            with contextlib.closing(
                http.client.HTTPConnection("127.0.0.1", self._port, timeout=10, source_address=(PROXY, 0))
            ) as client:
                client.request(method, path, body, headers)
                client.getresponse().read()

    def _leave(self) -> None:
        """A client that closes before the streamed answer is complete."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)) as client:
            client.request("GET", "/test/stream")
            client.getresponse().read(1)


def workers(stack: Run) -> set[int]:
    """Process ids of gunicorn's workers: gunicorns that another gunicorn started."""
    parents = stack.gunicorns()
    return {pid for pid, parent in parents.items() if parent in parents}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The stack with 4 workers under all kinds of traffic, one of them killed; durations divided by 15."""
    environ = settings(
        tmp_path_factory.mktemp("dashboards") / "run",
        TIME_SCALE="15",
        TRAFFIC_USERS="0",
        WEB_CONCURRENCY="4",
        EXPORTER_TRUSTED_PROXIES=f"{PROXY}/32",
    )
    with running(environ) as run:
        run.wait_until_up()
        with Traffic(environ["APP_PORT"]):
            before = workers(run)
            assert len(before) == 4
            os.kill(before.pop(), signal.SIGKILL)
            eventually(lambda: len(workers(run)) == 4, "gunicorn replaces the killed worker", 20)
            yield run


def answer(stack: Run, query: Query, values: dict[str, str]) -> int:
    """How many numbers and native histograms a query returns now."""
    end = time.time()
    parameters: dict[str, object] = {"query": fill(query, values, RANGE, SCRAPE)}
    if query.instant:
        path, parameters["time"] = "query", end
    else:
        path = "query_range"
        parameters |= {"start": end - RANGE, "end": end, "step": step(query, RANGE, scrape=SCRAPE)}
    url = stack.url("PROMETHEUS_PORT", f"/api/v1/{path}")
    with urlopen(url, urllib.parse.urlencode(parameters).encode(), timeout=10) as response:
        result = json.load(response)["data"]["result"]
    numbers = [number for series in result for _, number in _samples(series, "value")]
    histograms = [histogram for series in result for histogram in _samples(series, "histogram")]
    return sum(math.isfinite(float(number)) for number in numbers) + len(histograms)


def _samples(series: dict[str, Any], kind: str) -> list[Any]:
    return series.get(f"{kind}s") or [series[kind] for _ in range(kind in series)]


def chosen(stack: Run, board: dict[str, Any]) -> dict[str, str]:
    """The values that Grafana fills in for a dashboard's variables when everything is selected."""
    values = {"compare": "5s", "status_class": ".*"}
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            selector, label = label_query(variable["query"]["query"])
            match = urllib.parse.urlencode({"match[]": fill_in(selector, values)})
            names = get_json(stack.url("PROMETHEUS_PORT", f"/api/v1/label/{label}/values?{match}"))["data"]
            assert names, f"{board['uid']}: variable {variable['name']} has no values"
            values[variable["name"]] = variable.get("allValue") or "|".join(map(re.escape, names))
    return values


def fill_in(selector: str, values: dict[str, str]) -> str:
    return re.sub(r"\$(\w+)", lambda match: values[match[1]].replace("\\", "\\\\"), selector)


@every_board
def test_every_query_has_an_answer(stack: Run, board: dict[str, Any]) -> None:
    """Each panel, variable and annotation returns data, except for those in EMPTY."""
    expected = [query for query in queries_of(board) if str(query) not in EMPTY]

    def unanswered() -> list[str]:
        values = {name: value.replace("\\", "\\\\") for name, value in chosen(stack, board).items()}
        return [str(query) for query in expected if not answer(stack, query, values)]

    missing: list[str] = []

    def complete() -> bool:
        missing[:] = unanswered()
        return not missing

    with contextlib.suppress(AssertionError):
        eventually(complete, "every query has an answer", 60)
    assert missing == []


RULES = [
    rule
    for path in sorted((DASHBOARDS.parents[1] / "prometheus/rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if rule.get("labels", {}).get("severity") in {"critical", "warning"}
]


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_in_the_list_leads_to_its_page(rule: dict[str, Any]) -> None:
    """That which its message leads to, and which has the measurements that it looks at."""
    *_, other = PAGES
    page = next((uid for uid, names in PAGES.items() if re.fullmatch(names, rule["alert"])), other)
    (board,) = (board for board in BOARDS.values() if board["uid"] == page)
    queries = " ".join(query.expression for query in queries_of(board) if "annotation" not in query.title)
    sources = "flask|node|probe|prometheus|alertmanager|vmalert|loki|scrape"
    measurements = re.findall(rf"\b(?:up\b|(?:{sources})_\w+|slo:\w+)", rule["expr"])

    assert f"/d/{page}" in rule["annotations"]["dashboard_url"]
    assert [name for name in measurements if name in queries]


def test_what_is_rightly_empty_exists() -> None:
    """The list of exceptions names existing queries only."""
    queries = {str(query) for board in BOARDS.values() for query in queries_of(board)}

    assert queries >= EMPTY.keys()
