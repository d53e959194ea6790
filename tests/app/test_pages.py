"""The page `/`, in a real browser against a real server."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright
from prometheus_client import CollectorRegistry
from werkzeug.serving import make_server

from app import create_app
from tests.rig.places import ROOT

CHROMIUM = "/usr/bin/chromium"
DASHBOARDS = ROOT / "grafana" / "dashboards"
SERVICE = [
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
    if not Path(CHROMIUM).exists():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{CHROMIUM} is missing: install Chromium")
        pytest.skip(f"{CHROMIUM} is missing: THE PAGE IS NOT TESTED")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--disable-quic",
                "--no-first-run",
            ],
        )
        yield browser
        browser.close()


@pytest.fixture
def address(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A server with the service; a parameter overrides its settings."""
    settings = {"DATABASE": tmp_path / "orders.db", **getattr(request, "param", {})}
    server = make_server("127.0.0.1", 0, create_app(settings, CollectorRegistry()), threaded=True)
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
    complaints: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))

    def hear(message: ConsoleMessage) -> None:
        if not message.text.startswith("Failed to load resource"):  # the faults
            complaints.append(message.text)

    page.on("console", hear)
    page.goto(address)
    yield page
    page.close()
    assert [url for url in urls if not url.startswith(address)] == []
    assert complaints == []


def links(page: Page) -> list[str]:
    return [str(link.get_attribute("href")) for link in page.get_by_role("link").all()]


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
    buttons = page.get_by_role("button")
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


def test_no_answer_is_shown(page: Page) -> None:
    """A service that does not answer is not mistaken for one that does."""
    page.route("**/test/normal", lambda route: route.abort())

    page.get_by_role("button", name="/test/normal").click()

    expect(page.get_by_role("status", name="Answer of /test/normal")).to_have_text(
        re.compile(r"^no answer after \d+ ms$")
    )


CONTRASTS = """() => {
  const light = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" && element.parentElement ? ground(element.parentElement) : colour;
  };
  const ratio = (element) => {
    const [low, high] = [getComputedStyle(element).color, ground(element)].map(light).sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  return [...document.querySelectorAll("h1, h2, p, a, small, button, output")].map(ratio);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(page: Page, scheme: str) -> None:
    """All text has a contrast of 4.5 at least (WCAG 2.2, 1.4.3), in both schemes."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    for path in ("/test/normal", "/test/notfound"):
        page.get_by_role("button", name=path).click()
        expect(page.get_by_role("status", name=f"Answer of {path}")).to_have_text(re.compile("after"))
    page.mouse.move(0, 0)

    ratios = page.evaluate(CONTRASTS)

    assert len(ratios) > 40
    assert min(ratios) >= 4.5


@pytest.mark.parametrize("width", [320, 400, 1280])
def test_nothing_is_cut_off(page: Page, width: int) -> None:
    """The page fits the width of a telephone and of a desk without scrolling sideways."""
    page.set_viewport_size({"width": width, "height": 800})

    assert page.evaluate("document.documentElement.scrollWidth") == width


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
