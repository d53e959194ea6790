"""The page `/`, in a real browser against a real server."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect
from prometheus_client import CollectorRegistry
from werkzeug.serving import make_server

from app import create_app
from app.languages import KOREAN, KOREAN_SCRIPT
from app.pages import ONCE, SEQUELS
from tests.rig.browser import chromium, complaints_of, contrasts
from tests.rig.places import ROOT

DASHBOARDS = ROOT / "grafana" / "dashboards"
SERVICE = [
    "/monitoring",
    "/metrics",
    "/health",
    "/health/live",
    "/health/ready",
    "/monitoring/stats",
    "/monitoring/requests",
    "/monitoring/endpoints",
    "/orders",
]
PROMETHEUS = ["/query", "/targets", "/rules", "/alerts"]
PROMETHEUS_API = ["/api/v1/query?query=up", "/api/v1/targets", "/api/v1/rules", "/api/v1/alerts"]
ALERTMANAGER = ["/#/alerts", "/#/silences"]
ALERTMANAGER_API = ["/api/v2/alerts", "/api/v2/silences"]
GRAFANA = [
    "/d/flask-service",
    "/d/flask-endpoints",
    "/d/flask-errors",
    "/d/flask-requests",
    "/d/flask-slo",
    "/d/flask-workers",
    "/d/monitoring-pipeline",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def in_one_piece(app: Any) -> Any:
    """The application with its bodies closed: Werkzeug's server closes none where the client has left."""

    def wrapper(environ: Any, start_response: Any) -> list[bytes]:
        with closing(app(environ, start_response)) as body:
            return list(body)

    return wrapper


@pytest.fixture
def address(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A server with the service; a parameter overrides its settings."""
    settings = {"DATABASE": tmp_path / "orders.db", **getattr(request, "param", {})}
    app = in_one_piece(create_app(settings, CollectorRegistry()))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The open page, which must send no request to another server."""
    page = browser.new_page()
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    complaints = complaints_of(page)
    page.goto(address)
    yield page
    page.close()
    assert [url for url in urls if not url.startswith(address)] == []
    assert complaints == []


def links(page: Page) -> list[str]:
    """The links into the stack, without those in the text."""
    return [str(link.get_attribute("href")) for link in page.locator(".parts a").all()]


def test_links_lead_to_every_part(page: Page) -> None:
    """Out of the box the links lead to the ports of `docker compose up` and `make run`."""
    assert links(page) == [
        *SERVICE,
        *(f"http://127.0.0.1:9090{path}" for path in PROMETHEUS),
        *(f"http://127.0.0.1:9093{path}" for path in ALERTMANAGER),
        *(f"http://127.0.0.1:3000{path}" for path in GRAFANA),
    ]


@pytest.mark.parametrize(
    "address",
    [
        {
            "PROMETHEUS_URL": "https://ops.example/prometheus/",
            "ALERTMANAGER_URL": "https://alerts.example",
            "GRAFANA_URL": "",
            "API_ONLY": "1",
        }
    ],
    indirect=True,
)
def test_links_follow_the_settings(page: Page) -> None:
    """The settings move the links, to the APIs as well; a part without an address is said not to run."""
    assert links(page) == [
        *SERVICE,
        *(f"https://ops.example/prometheus{path}" for path in PROMETHEUS_API),
        *(f"https://alerts.example{path}" for path in ALERTMANAGER_API),
    ]
    expect(page.get_by_role("region", name="Grafana")).to_have_text(re.compile("Not running here"))


def test_links_within_the_service_work(page: Page, address: str) -> None:
    """Each link into the service itself is answered with 200."""
    answers = {path: page.request.get(address + path).status for path in SERVICE}

    assert answers == dict.fromkeys(SERVICE, 200)


def test_every_dashboard_is_linked() -> None:
    """Each provisioned dashboard has its link, but for Grafana's own start page; none leads nowhere."""
    provisioned = {json.loads(file.read_text())["uid"] for file in DASHBOARDS.rglob("*.json")}

    assert {path.removeprefix("/d/") for path in GRAFANA} == provisioned - {"home"}


def test_buttons_show_status_and_time(page: Page) -> None:
    """Each fault has a button, and its answer's status and time appear beside it, all at once."""
    expected = {
        "/test/normal": (200, 0, 1000),
        "/test/slow": (200, 1000, 4000),
        "/test/error": (500, 0, 1000),
        "/test/notfound": (404, 0, 1000),
        "/test/server-error": (500, 0, 1000),
        "/test/stream": (200, 1000, 2000),
    }
    buttons = page.locator("button:not([data-times])")
    assert buttons.all_inner_texts() == [*expected, "/test/stuck", "/test/crash"]  # those give no answer

    for path in expected:
        page.get_by_role("button", name=path, exact=True).click()
    for path, (status, soonest, latest) in expected.items():
        output = page.get_by_role("status", name=f"Answer of {path}", exact=True)
        expect(output).to_have_text(re.compile(rf"^{status} after \d+ ms$"), timeout=10_000)
        milliseconds = int(output.inner_text().split()[2])
        assert soonest <= milliseconds <= latest, path
        assert output.get_attribute("class") == ("good" if status == 200 else "bad")
        expect(page.get_by_role("button", name=path, exact=True)).to_be_enabled()


def test_a_hundred_requests_at_a_press(page: Page, address: str) -> None:
    """A hundred requests are sent and their answers counted; what takes a worker has no such button."""
    page.get_by_role("button", name="/test/error, 100 times").click()

    output = page.get_by_role("status", name="Answer of /test/error", exact=True)
    expect(output).to_have_text("100 \N{MULTIPLICATION SIGN} 500", timeout=20_000)
    stats = page.request.get(f"{address}/monitoring/stats").json()
    assert stats["status_codes"]["500"] == 100
    assert page.locator("button[data-times]").count() == len(SEQUELS) - len(ONCE)


def test_each_button_says_what_happens_next(page: Page) -> None:
    """Beside each button stands what to expect; the alerts that it names exist."""
    rules = "".join(file.read_text() for file in (ROOT / "prometheus" / "rules").glob("*.yml"))
    for path, sequel in SEQUELS.items():
        row = page.locator(".faults li", has=page.get_by_role("button", name=path, exact=True))
        expect(row).to_contain_text(sequel)
        for alert in re.findall(r"Flask[A-Z]\w+", sequel):
            assert f"alert: {alert}\n" in rules


def test_the_figures_of_the_service_are_there(page: Page) -> None:
    """State and figures are those of /health and /monitoring/stats, and follow what happens."""
    state = page.locator("[data-figure=state]")
    expect(state).to_have_text("healthy")

    page.get_by_role("button", name="/test/error, 100 times").click()

    expect(state).to_have_text("degraded", timeout=20_000)
    expect(page.locator("[data-figure=requests]")).to_have_text(re.compile(r"^10\d$"))
    expect(page.locator("[data-figure=errors]")).to_have_text(re.compile(r"^9\d\.\d %$|^100\.0 %$"))


def test_no_answer_is_shown(page: Page) -> None:
    """A service that does not answer is not mistaken for one that does."""
    page.route("**/test/normal", lambda route: route.abort())

    page.get_by_role("button", name="/test/normal", exact=True).click()

    expect(page.get_by_role("status", name="Answer of /test/normal")).to_have_text(
        re.compile(r"^no answer after \d+ ms$")
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(page: Page, scheme: str) -> None:
    """All text has a contrast of 4.5 at least (WCAG 2.2, 1.4.3), in both schemes."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for path in ("/test/normal", "/test/notfound"):
        page.get_by_role("button", name=path, exact=True).click()
        expect(page.get_by_role("status", name=f"Answer of {path}")).to_have_text(re.compile("after"))
    page.mouse.move(0, 0)

    ratios = contrasts(page, "h1, h2, p, a, small, button, output, dt, dd")

    assert len(ratios) > 40
    assert min(ratios) >= 4.5


@pytest.mark.parametrize("width", [320, 400, 1280])
def test_nothing_is_cut_off(page: Page, width: int) -> None:
    """The page fits the width of a telephone and of a desk without scrolling sideways."""
    page.set_viewport_size({"width": width, "height": 800})

    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_page_is_in_korean_for_who_asks_for_it(browser: Browser, address: str) -> None:
    """The language is that of the browser, or of a link on the page; buttons and figures follow."""
    page = browser.new_page(locale="ko-KR")
    page.set_viewport_size({"width": 320, "height": 800})
    page.goto(address)
    expect(page.get_by_role("heading", level=2).first).to_contain_text("지금")
    expect(page.locator("[data-figure=state]")).to_have_text("정상")
    page.get_by_role("button", name="/test/normal", exact=True).click()
    expect(page.get_by_role("status", name="/test/normal의 응답")).to_have_text(
        re.compile(r"^200, \d+ ms 뒤$")
    )
    assert page.evaluate("document.documentElement.scrollWidth") == 320

    page.get_by_role("link", name="English").click()
    expect(page.get_by_role("heading", level=2).first).to_contain_text("Now")
    page.get_by_role("link", name="한국어").click()
    expect(page.locator("html")).to_have_attribute("lang", "ko")
    page.close()


def test_each_text_has_a_translation(page: Page) -> None:
    """No text of the page is missing in the tables of translations, and none is left over."""
    template = (ROOT / "app/templates/start.html").read_text(encoding="utf-8")
    script = (ROOT / "app/static/page.js").read_text(encoding="utf-8")
    spoken = set(re.findall(r'_\("([^"]+)"', template))
    lines = page.locator(".faults li > span:not(.buttons), .parts li small").all()
    for line in lines:
        sequel = line.locator("small")
        text = line.inner_text()
        if sequel.count():
            spoken.add(sequel.inner_text())
            text = text.removesuffix(sequel.inner_text()).strip()
        spoken.add(text)

    assert spoken == set(KOREAN)
    states = {"healthy", "warning", "degraded", "unhealthy"}  # of /health
    assert set(re.findall(r'translate\("([^"]+)"', script)) | states == set(KOREAN_SCRIPT)


def test_error_page_is_shown_to_a_browser(page: Page, address: str) -> None:
    """A browser that goes astray gets the page, with a way back."""
    page.goto(f"{address}/nowhere")

    expect(page.get_by_role("heading", level=1)).to_have_text("404 Not Found")
    page.get_by_role("link", name="Back to the start page").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Flask observability stack")


def test_security_headers(page: Page, address: str) -> None:
    """Scripts run from the service's own files only, and no other site may frame the page."""
    for path in ("/", "/nowhere", "/test/error", "/orders"):
        headers = page.request.get(address + path).headers
        policy = headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy), path
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer", path
