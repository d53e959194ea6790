"""The page at `/monitoring`: it says what the JSON says, to insiders alone, and nothing of it is markup."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urljoin

import pytest
from flask import Flask, abort
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry, Metric
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from exporter import FlaskExporter
from exporter.observation import Fingerprint
from exporter.pages import drain
from exporter.pages.checks import CheckResult
from exporter.pages.health import Condition, Vitals
from exporter.pages.overview import wording
from exporter.pages.overview.overview import Overview
from exporter.pages.reports import Reports
from exporter.routes.table import Routes
from exporter.settings import Settings, SettingsError
from exporter.worker.deaths import Death
from exporter.worker.errorslots import Group
from exporter.worker.inflight import WorkerRequest
from exporter.worker.requests import InFlight
from exporter.worker.slowest import SlowRequest

_VOID = {"meta", "link"}
_TAGS = re.split(
    r"\s+",
    """html head meta title link script body header h1 h2 div p strong dl dt dd time a button output nav ul
    li main section small table caption thead tbody tr th td code details summary pre form label select
    option span""",
)
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' autofocus onfocus='alert(1)",
    "</code></pre></table><h1>owned",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "&lt;b&gt;&#x3c;",
    "\x1b[31mred\x07\x00",
    "\u202eevil\u2066",
    "é漢字🦊",
    "\udcff",
]


class _Document(HTMLParser):
    """A page: its tables by caption, its links, its texts and the start tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.texts: dict[str, str] = {}
        self._open: list[tuple[str, str]] = []
        self._table: list[list[str]] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in _VOID:
            self._open.append((tag, dict(attributes).get("id") or ""))
        if tag == "table":
            self._table = []
        elif tag == "tr":
            self._table.append([])
        elif tag in ("th", "td"):
            self._table[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, text: str) -> None:
        names = [tag for tag, _ in self._open]
        for key in [name for tag, name in self._open if name] + names[-1:]:
            self.texts[key] = self.texts.get(key, "") + text
        if "caption" in names:
            self.tables[text] = self._table
        elif "tr" in names and names[-1] not in ("tr", "tbody", "thead"):
            self._table[-1][-1] += text

    def rows(self, caption: str) -> list[dict[str, str]]:
        """The rows of the table whose caption begins so, by their column."""
        ((head, *rows),) = (table for name, table in self.tables.items() if name.startswith(caption))
        return [dict(zip(head, (cell.strip() for cell in row), strict=True)) for row in rows]

    def links(self) -> list[str]:
        return [attributes["href"] or "" for tag, attributes in self.tags if tag == "a"]


def _orders(**settings: Any) -> Flask:
    app = Flask("orders")
    FlaskExporter(app, registry=CollectorRegistry(), **{"slow": 1e-9, **settings})

    @app.get("/orders/<int:number>")
    def show(number: int) -> str:
        if number > 99:
            abort(404)
        return "x" * number

    @app.get("/boom")
    def boom() -> str:
        raise ValueError("bad")

    return app


def _busy(**settings: Any) -> FlaskClient:
    client = _orders(**settings).test_client()
    for number in (1, 2, 100):
        client.get(f"/orders/{number}")
    client.get("/boom", headers={"X-Request-ID": "known-1"})
    return client


def _page(client: FlaskClient, query: str = "", status: int = 200, **arguments: Any) -> _Document:
    answer = client.get(f"/monitoring{query}", **arguments)
    assert (answer.status_code, answer.content_type) == (status, "text/html; charset=utf-8")
    return _Document(answer.text)


class TestContent:
    def test_tables_say_what_the_json_says(self) -> None:
        client = _busy()
        page = _page(client)
        requests = client.get("/monitoring/requests").get_json()
        endpoints = client.get("/monitoring/endpoints").get_json()
        (group,) = client.get("/monitoring/errors").get_json()
        slow = [one for rule in client.get("/monitoring/slow").get_json().values() for one in rule]

        rows = page.rows("Answered requests")
        assert [row["Request id"] for row in rows] == [one["request_id"] for one in requests]
        assert rows[0] == {
            "Time": requests[0]["datetime"][11:19],
            "Status": "500",
            "Duration": wording.milliseconds(requests[0]["duration_ms"]),
            "Request": "GET /boom",
            "Rule": "/boom",
            "Error": "ValueError",
            "Request id": "known-1",
        }
        assert [(row["Endpoint"], row["Requests"], row["Errors"]) for row in page.rows("Counts since")] == [
            (name, str(one["request_count"]), wording.percent(one["error_rate"]))
            for name, one in endpoints.items()
        ]
        (row,) = page.rows("Exceptions by bug")
        assert (row["Count"], row["Where"], row["Latest request"]) == ("1", group["where"], "known-1")
        assert row["Last"] == row["First"] == group["last_seen"][:19].replace("T", " ")
        assert row["Error"].startswith("ValueError\ntraceback")
        assert "Traceback (most recent call last):" in page.texts[f"stack-{group['error_group']}"]
        assert {row["Where it waited"] for row in page.rows("The slowest")} == {one["where"] for one in slow}
        assert [one["request_id"] for one in sorted(slow, key=lambda one: -one["duration_ms"])] == [
            row["Request id"] for row in page.rows("The slowest")
        ]

    def test_a_request_in_progress_has_its_age_and_its_stack(self) -> None:
        app = _orders()
        pages = []

        @app.get("/inside")
        def inside() -> str:
            pages.append(_page(app.test_client()))
            return ""

        app.test_client().get("/inside", headers={"X-Request-ID": "outer"})
        (row,) = pages[0].rows("Requests that are being answered")

        assert (row["Request"], row["Rule"], row["State"]) == ("GET /inside", "/inside", "running")
        assert re.fullmatch(r"\d\.\d s", row["Age"])
        assert row["Request id"] == "outer"

    def test_without_traffic_it_says_so(self) -> None:
        page = _page(_orders().test_client())

        assert page.tables == {}
        assert "No request in the last minute." in page.texts["state"]
        assert "Nothing is being answered right now." in page.texts["inflight"]
        assert "No exception is known." in page.texts["errors"]
        assert "No request of the last hour took longer than 1e-09 s." in page.texts["slow"]
        assert "No death of a worker is known." in page.texts["deaths"]

    @pytest.mark.parametrize(
        ("settings", "sentences"),
        [
            ({"recent": 0, "slow": 0}, {"requests": "EXPORTER_RECENT is 0", "slow": "EXPORTER_SLOW is 0"}),
            ({"extended": False}, dict.fromkeys(("requests", "errors", "slow"), "EXPORTER_EXTENDED is off")),
        ],
    )
    def test_it_names_the_setting_that_leaves_a_table_empty(
        self, settings: dict[str, Any], sentences: dict[str, str]
    ) -> None:
        page = _page(_busy(**settings))

        for part, sentence in sentences.items():
            assert sentence in page.texts[part]

    def test_looking_at_it_is_no_traffic(self) -> None:
        client = _orders().test_client()
        for page in ("", "/page.css", "/page.js", "?status=nonsense"):
            client.get(f"/monitoring{page}")

        assert client.get("/monitoring/stats").get_json()["total_requests"] == 0

    def test_long_tables_are_cut_and_say_so(self) -> None:
        client = _orders().test_client()
        for number in range(30):
            client.get(f"/orders/{number}")
        slow = client.get("/monitoring/slow").get_json()
        page = _page(client)

        assert len(page.rows("Answered requests")) == 25
        assert len(page.rows("The slowest")) == sum(map(len, slow.values())) == 10
        assert len(_page(client, "?limit=100").rows("Answered requests")) == 30

    @pytest.mark.parametrize(
        ("caption", "most"),
        [
            ("Requests that are being answered", 100),
            ("Exceptions by bug", 25),
            ("The slowest", 25),
            ("Counts since", 100),
            ("The latest deaths", 25),
        ],
    )
    def test_each_table_has_a_limit(self, caption: str, most: int) -> None:
        for number, end in ((most, ""), (most + 1, f"; {most} of {most + 1}")):
            page = _page_of(number)
            (name,) = (name for name in page.tables if name.startswith(caption))

            assert len(page.rows(caption)) == most
            assert re.findall("; [0-9]+ of [0-9]+", name) == [end] * bool(end)


def _page_of(number: int) -> _Document:
    """The page of a service with so many of everything, which is well for those who make its checks run."""
    durations = Metric("flask_http_request_duration_seconds", "Seconds", "histogram")
    for rule in range(number):
        labels = {"method": "GET", "url_rule": f"/{rule}", "status": "200"}
        durations.add_sample(f"{durations.name}_count", labels, 1)
    request = InFlight(0, 0.0, 0.0, "id-1", "GET", "", "/", 0, False, False)
    slow = SlowRequest(0.0, 1.0, "GET", "/", "", "/", 200, "id-1", "", "shop:view", 0, "", "", {})
    group = Group(Fingerprint("0" * 12, "E", "shop:view"), 1, 0.0, (), "/", "1", "1", "trace")
    recorder: Any = SimpleNamespace(read=list, in_flight=lambda: [WorkerRequest(0, 1, request)] * number)
    source: Any = SimpleNamespace(metrics=lambda _: [durations])
    vitals = Vitals(window=lambda: (0, 0), uptime=lambda: 0.0, draining=lambda: False)
    health: Any = SimpleNamespace(
        vitals=vitals,
        condition=lambda *, insider: Condition("healthy" if insider else "unhealthy", 0, 0.0, {}),
    )
    reports = Reports(
        recorder,
        Routes(),
        lambda: [Death(0.0, 1, "SIGKILL")] * number,
        lambda: [group] * number,
        lambda: {"/": [slow] * number},
        source,
        vitals,
        stacks=dict,
    )
    page = _Document(Overview(reports, health, Settings()).page({}).body.decode())
    assert page.texts["title"].startswith("Healthy")
    return page


class TestFilter:
    @pytest.mark.parametrize(
        ("query", "paths"),
        [
            ("?status=5xx", ["/boom"]),
            ("?status=404&endpoint=&limit=", ["/orders/100"]),
            ("?endpoint=/orders/<int:number>&limit=2", ["/orders/100", "/orders/2"]),
            ("?request_id=known-1", ["/boom"]),
        ],
    )
    def test_by_status_endpoint_and_id(self, query: str, paths: list[str]) -> None:
        page = _page(_busy(), query)

        assert [row["Request"].split()[1] for row in page.rows("Answered requests")] == paths
        assert "?#requests" in page.links()

    def test_the_form_shows_what_is_asked(self) -> None:
        answer = _busy().get("/monitoring?status=418&limit=7&endpoint=/gone").text

        assert re.findall("<option selected>(.*)</option>", answer) == ["418", "/gone", "7"]

    def test_nothing_fits(self) -> None:
        assert "None of the kept requests is like that." in _page(_busy(), "?status=3xx").texts["requests"]

    def test_a_value_without_a_meaning_is_named(self) -> None:
        page = _page(_busy(), "?status=teapot", 400)

        assert "status='teapot': give a status such as 404, or a class such as 5xx" in page.texts["requests"]
        assert len(page.rows("Answered requests")) == 4

    def test_links_lead_to_the_requests_of_an_endpoint(self) -> None:
        client = _busy()
        (link,) = (
            link for link in _page(client).links() if link.startswith("?endpoint=") and "orders" in link
        )

        rows = _page(client, link.partition("#")[0]).rows("Answered requests")
        assert {row["Rule"] for row in rows} == {"/orders/<int:number>"}


class TestSafety:
    @pytest.mark.parametrize("text", HOSTILE)
    def test_no_text_of_a_client_is_markup(self, text: str) -> None:
        app = _orders()

        @app.get("/fail")
        def fail() -> str:
            raise type(text.replace("\0", "") or "E", (Exception,), {})(text)

        client = app.test_client()
        raw = text.encode("utf-8", "surrogateescape").decode("latin-1")
        for environ in ({"PATH_INFO": f"/{raw}"}, {"PATH_INFO": "/fail", "HTTP_X_REQUEST_ID": raw}):
            client.get("/", environ_overrides={**environ, "REQUEST_METHOD": "GET"})
        # Werkzeug before 3.1 takes no request for such a host.
        host = {} if version("werkzeug") < "3.1" else {"HTTP_HOST": raw}
        page = _page(client, environ_overrides={**host, "QUERY_STRING": "endpoint=" + raw}, query_string="")

        assert {tag for tag, _ in page.tags} <= set(_TAGS)
        assert [attributes["src"] for tag, attributes in page.tags if tag == "script"] == [
            "./monitoring/page.js"
        ]
        names = {name for _, attributes in page.tags for name in attributes}
        assert not [name for name in names if name.startswith("on") or name == "style"]
        assert all(link.startswith(("?", "#", "./", "http://")) or not link for link in page.links())
        assert not [one for one in "".join(page.texts.values()) if not one.isprintable() and one != "\n"]

    def test_a_policy_of_its_own_allows_its_own_files_alone(self) -> None:
        answer = _busy(grafana_url="https://g.example/sub/", prometheus_url="http://[::1]:9090").get(
            "/monitoring"
        )

        assert answer.headers["Content-Security-Policy"].split("; ") == [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self' https://g.example http://[::1]:9090",
            "base-uri 'none'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        ]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"

    @pytest.mark.parametrize("path", ["/monitoring", "/monitoring/page.css", "/monitoring/page.js"])
    def test_insiders_only_and_no_cache(self, path: str, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("s3cret")
        secret = _orders(token_file=str(tmp_path / "token")).test_client()
        client = _orders().test_client()
        outsider = client.get(path, environ_base={"REMOTE_ADDR": "203.0.113.9"})

        assert (outsider.status_code, outsider.get_json()) == (
            403,
            {"error": "Your address may not read this page."},
        )
        assert secret.get(path).status_code == 401
        assert secret.get(path, headers={"Authorization": "Bearer s3cret"}).status_code == 200
        assert client.get(path).headers["Cache-Control"] == "no-store"


class TestPlace:
    @pytest.mark.parametrize(
        ("mount", "path"), [("", "/monitoring"), ("", "/ops/figures"), ("/shop", "/monitoring")]
    )
    def test_its_files_and_pages_are_found_from_wherever_it_is(self, mount: str, path: str) -> None:
        app = _orders(monitoring_path=path)
        client = Client(DispatcherMiddleware(lambda *_: [], {mount: app}) if mount else app)
        page = _Document(client.get(mount + path).text)
        files = [
            attributes.get("src") or attributes.get("href") or ""
            for tag, attributes in page.tags
            if tag in ("script", "link")
        ]

        for link in files + [link for link in page.links() if link.startswith("./")]:
            assert client.get(urljoin(f"http://localhost{mount}{path}", link)).status_code == 200, link

    def test_a_route_of_the_application_comes_first(self) -> None:
        app = _orders()
        app.add_url_rule("/monitoring", "mine", lambda: "mine")
        client = app.test_client()

        assert client.get("/monitoring").text == "mine"
        assert client.get("/monitoring/stats").status_code == 200

    def test_it_can_be_turned_off(self) -> None:
        assert _orders(monitoring_path="off").test_client().get("/monitoring").status_code == 404


class TestStructure:
    def test_landmarks_captions_and_scopes(self) -> None:
        page = _page(_busy())
        tags = [tag for tag, _ in page.tags]
        ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
        labels = [
            attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes
        ]

        assert [tags.count(tag) for tag in ("header", "nav", "main", "h1")] == [1, 1, 1, 1]
        assert tags.count("caption") == tags.count("table") == len(page.tables) >= 4
        assert all(attributes["scope"] in ("col", "row") for tag, attributes in page.tags if tag == "th")
        assert len(ids) == len(set(ids))
        assert set(labels) <= set(ids)
        assert [attributes["lang"] for tag, attributes in page.tags if tag == "html"] == ["en"]
        assert {"role": "status", "aria-live": "polite", "id": "news"} in [one for _, one in page.tags]
        assert {link.removeprefix("#") for link in page.links() if link.startswith("#")} <= set(ids)


class TestNeighbours:
    def test_those_with_an_address_are_linked_and_the_others_name_their_setting(self) -> None:
        page = _page(_busy(grafana_url="https://g.example/sub/"))
        probes = [attributes for _, attributes in page.tags if "data-probe" in attributes]

        assert probes == [
            {"data-probe": "https://g.example/sub", "data-command": "docker compose up -d grafana"}
        ]
        assert "https://g.example/sub" in page.links()
        settings = re.findall(r"EXPORTER_\S*", page.texts["neighbours"])
        assert settings == [
            "EXPORTER_PROMETHEUS_URL=http://127.0.0.1:9090",
            "EXPORTER_ALERTMANAGER_URL=http://127.0.0.1:9093",
        ]
        assert "EXPORTER_GRAFANA_URL=http://127.0.0.1:3000" in _page(_busy()).texts["neighbours"]

    @pytest.mark.parametrize(
        "url",
        [
            "grafana:3000",
            "javascript:alert(1)",
            "http://",
            "http://a b",
            "http://x;script-src *",
            "http://a@b",
        ],
    )
    def test_what_is_no_address_is_refused(self, url: str) -> None:
        with pytest.raises(SettingsError, match=r"^EXPORTER_GRAFANA_URL='.*': give an address such as http"):
            Settings.load({"EXPORTER_GRAFANA_URL": url})


class TestWords:
    @pytest.mark.parametrize(
        ("condition", "sentence"),
        [
            (Condition("healthy", 0, 0.0, {}), "No request in the last minute."),
            (Condition("healthy", 400, 0.0, {}), "0.0 % of 400 requests in the last minute failed."),
            (
                Condition("healthy", 3, 1.0, {}),
                "100.0 % of 3 requests in the last minute failed; fewer than 20 are too few to judge.",
            ),
            (Condition("healthy", 20, 0.05, {}), "5.0 % of 20 requests in the last minute failed."),
            (
                Condition("warning", 1000, 0.07, {}),
                "7.0 % of 1,000 requests in the last minute failed; it is warning above 5.0 %.",
            ),
            (
                Condition("degraded", 1000, 0.7, {}),
                "70.0 % of 1,000 requests in the last minute failed; it is degraded above 10.0 %.",
            ),
            (
                Condition(
                    "unhealthy",
                    5,
                    0.0,
                    {"db": CheckResult(False, 0.1, "gone"), "cache": CheckResult(True, 0.1, None)},
                ),
                "The check “db” is down: gone.",
            ),
        ],
    )
    def test_a_condition(self, condition: Condition, sentence: str) -> None:
        assert wording.condition_in_words(condition, Settings()) == sentence

    def test_limits_are_those_of_the_settings(self) -> None:
        settings = replace(Settings(), health_warning=0.01)

        assert wording.condition_in_words(Condition("warning", 100, 0.03, {}), settings).endswith(
            "above 1.0 %."
        )

    @pytest.mark.parametrize(
        ("milliseconds", "text"),
        [
            (None, "-"),
            (0.123, "0.12 ms"),
            (10.0, "10.0 ms"),
            (100.0, "100 ms"),
            (1000.0, "1.00 s"),
            (1234567.0, "1,234.57 s"),
        ],
    )
    def test_a_duration(self, milliseconds: float | None, text: str) -> None:
        assert wording.milliseconds(milliseconds) == text

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0.04, "0.0 s"),
            (9.94, "9.9 s"),
            (10.0, "10 s"),
            (42.9, "42 s"),
            (125, "2 min 5 s"),
            (3600, "1 h"),
            (277200, "3 d 5 h"),
            (90061, "1 d 1 h"),
        ],
    )
    def test_an_age(self, seconds: float, text: str) -> None:
        assert wording.span(seconds) == text

    def test_a_service_that_ends_says_so(self) -> None:
        client = _busy()
        drain.begin()
        try:
            page = _page(client)
        finally:
            drain._flag[0] = 0

        assert page.texts["title"].startswith("Draining")
        assert "It answers what is in progress and takes no new requests." in page.texts["state"]

    def test_a_check_that_is_down_is_named(self) -> None:
        app = _orders()

        def database() -> None:
            raise OSError("gone <away>")

        app.extensions["flask_exporter"].exporter.health_check("database")(database)

        page = _page(app.test_client())

        assert page.texts["title"].startswith("Unhealthy")
        assert "The check “database” is down: OSError: gone <away>." in page.texts["state"]
