"""The page at `/monitoring` in a browser: without JavaScript, by keyboard, on a telephone, and over time."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from flask import Flask
from playwright.sync_api import Browser, Locator, Page, expect
from prometheus_client import CollectorRegistry
from werkzeug.serving import BaseWSGIServer, make_server

from exporter import FlaskExporter
from tests.rig.browser import chromium, complaints_of, contrasts

_FOCUS = """(() => {
  const place = document.activeElement;
  return place.id || place.getAttribute("aria-labelledby") || place.textContent.trim();
})()"""


@contextmanager
def _serving(app: Callable[..., object], port: int = 0) -> Iterator[BaseWSGIServer]:
    server = make_server("127.0.0.1", port, app, threaded=True)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _orders(**settings: str) -> Flask:
    app = Flask("orders")
    FlaskExporter(app, registry=CollectorRegistry(), slow=1e-9, **settings)  # type: ignore[arg-type]

    @app.get("/orders/<name>")
    def show(name: str) -> str:
        return name

    @app.get("/boom")
    def boom() -> str:
        raise ValueError("bad")

    return app


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def address() -> Iterator[str]:
    """A service after an order, an error and two requests that nobody wants on a page."""
    app = _orders()
    with _serving(app) as server:
        client = app.test_client()
        for path in ("/orders/1", "/boom", "/<script>alert(1)</script>", "/long" * 60):
            client.get(path)
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """The open page, whose clock stands still until a test moves it."""
    page = browser.new_page()
    complaints = complaints_of(page)
    page.clock.install()
    page.goto(f"{address}/monitoring")
    expect(_news(page)).to_have_text("Refreshes every 5 s.")
    yield page
    page.close()
    assert complaints == []


def _news(page: Page) -> Locator:
    return page.get_by_role("status")


def _refresh(page: Page) -> None:
    """Let the time pass until the next refresh, and wait for it."""
    with page.expect_response("**/monitoring*"):
        page.clock.run_for(5000)


def _requests(page: Page) -> Locator:
    return page.get_by_role("table", name=re.compile("^Answered requests")).get_by_role("row")


class TestWithoutJavaScript:
    def test_everything_can_be_read_and_filtered(self, browser: Browser, address: str) -> None:
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(f"{address}/monitoring")

        assert page.get_by_role("table").count() >= 4
        expect(page.get_by_role("button", name="Pause")).to_be_hidden()
        page.locator("#errors summary").click()
        expect(page.locator("#errors pre")).to_contain_text("Traceback (most recent call last):")
        page.get_by_label("Status", exact=True).select_option("5xx")
        page.get_by_role("button", name="Filter").click()
        expect(_requests(page)).to_have_count(2)  # with the head
        expect(_requests(page).last).to_contain_text("/boom")
        page.get_by_role("link", name="Show all").click()
        expect(_requests(page)).to_have_count(5)
        context.close()


class TestRefresh:
    def test_what_happens_appears_by_itself(self, page: Page, address: str) -> None:
        page.request.get(f"{address}/orders/new")
        _refresh(page)

        expect(_requests(page).nth(1)).to_contain_text("/orders/new")
        expect(_news(page)).to_have_text("Refreshes every 5 s.")

    def test_it_can_be_paused_also_over_a_filter(self, page: Page, address: str) -> None:
        page.get_by_role("button", name="Pause").click()
        page.get_by_label("Endpoint", exact=True).select_option("/orders/<name>")
        page.get_by_role("button", name="Filter").click()
        expect(_news(page)).to_have_text("Paused.")
        page.request.get(f"{address}/orders/new")
        urls: list[str] = []
        page.on("request", lambda request: urls.append(request.url))
        page.clock.run_for(20_000)
        expect(_requests(page)).to_have_count(2)
        assert urls == []

        page.get_by_role("button", name="Go on").click()
        expect(_requests(page)).to_have_count(3)

    def test_an_open_traceback_stays_open(self, page: Page) -> None:
        page.locator("#errors summary").click()
        page.get_by_role("button", name="Pause").focus()
        _refresh(page)
        _refresh(page)

        expect(page.locator("#errors pre")).to_be_visible()

    def test_a_part_with_the_focus_is_held(self, page: Page, address: str) -> None:
        page.locator("#requests-list a").first.focus()
        page.request.get(f"{address}/orders/new")
        _refresh(page)
        expect(page.locator("#requests-list")).to_have_class("held")
        expect(_requests(page)).to_have_count(5)
        expect(page.locator("#requests-list a").first).to_be_focused()

        page.get_by_role("button", name="Pause").focus()
        _refresh(page)
        expect(_requests(page)).to_have_count(6)
        expect(page.locator(".held")).to_have_count(0)

    def test_a_new_state_is_announced(self, page: Page, address: str) -> None:
        for _ in range(30):
            page.request.get(f"{address}/boom")
        _refresh(page)

        expect(_news(page)).to_have_text("Now degraded.")
        expect(page.locator("#state")).to_contain_text("it is degraded above 10.0 %.")
        assert page.title().startswith("Degraded")

    def test_figures_of_a_service_that_is_gone_are_called_old(self, browser: Browser) -> None:
        page = browser.new_page()
        page.clock.install()
        with _serving(_orders()) as server:
            page.goto(f"http://127.0.0.1:{server.port}/monitoring")
            expect(_news(page)).to_have_text("Refreshes every 5 s.")
        page.clock.run_for(5000)
        expect(_news(page)).to_have_text("These figures are old: the service does not answer.")
        expect(page.locator("body")).to_have_class("stale")

        with _serving(_orders(), server.port):
            _refresh(page)
            expect(_news(page)).to_have_text("Refreshes every 5 s.")
            expect(page.locator("body")).not_to_have_class("stale")
        page.close()


class TestNeighbours:
    def test_each_says_whether_it_answers_this_browser(self, browser: Browser) -> None:
        with _serving(lambda *_: []) as gone:
            pass
        with _serving(Flask("grafana")) as grafana:
            urls = {
                "grafana_url": f"http://127.0.0.1:{grafana.port}/sub",
                "prometheus_url": f"http://127.0.0.1:{gone.port}",
            }
            with _serving(_orders(**urls)) as server:
                page = browser.new_page()
                page.goto(f"http://127.0.0.1:{server.port}/monitoring")
                items = page.locator("#neighbours li")
                expect(items.nth(0)).to_have_text(re.compile(r"Grafana history and dashboards\s+answers"))
                expect(items.nth(1)).to_contain_text(
                    "gives this browser no answer; start it: docker compose up -d prometheus"
                )
                expect(items.nth(2)).to_contain_text("not linked: set EXPORTER_ALERTMANAGER_URL=")
                page.close()


class TestReading:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_text_has_contrast(self, page: Page, scheme: str) -> None:
        """4.5 at least (WCAG 2.2, 1.4.3), in both schemes."""
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.locator("#errors summary").click()

        ratios = contrasts(
            page, "h1, h2, p, a, small, button, output, dt, dd, th, td, caption, pre, summary, label"
        )
        assert len(ratios) > 80
        assert min(ratios) >= 4.5

    @pytest.mark.parametrize("width", [320, 390, 1280])
    def test_nothing_is_cut_off(self, page: Page, width: int) -> None:
        """Wide tables scroll within themselves, the page never does sideways."""
        page.set_viewport_size({"width": width, "height": 800})
        page.locator("#errors summary").click()

        assert page.evaluate("document.documentElement.scrollWidth") == width

    def test_by_keyboard_alone(self, page: Page) -> None:
        """Tab reaches the pause, each table and each traceback, and Enter or the space bar uses them."""
        page.set_viewport_size({"width": 390, "height": 800})
        stops: list[str] = []
        for _ in range(60):
            page.keyboard.press("Tab")
            stop = page.evaluate(_FOCUS)
            stops.append(stop)
            if stop == "pause":
                page.keyboard.press("Space")
                expect(_news(page)).to_have_text("Paused.")
            if stop == "traceback":
                page.keyboard.press("Enter")
                break

        assert stops[:3] == ["Refresh", "pause", "In progress"]
        assert {"filter-status", "filter-endpoint", "filter-limit", "requests-title", "errors-title"} <= set(
            stops
        )
        expect(page.locator("#errors pre")).to_be_visible()
        page.locator("#requests-list .wide").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("document.querySelector('#requests-list .wide').scrollLeft > 0")
