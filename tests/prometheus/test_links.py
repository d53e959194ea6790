"""Links of a real message in `make run` lead somewhere, with Debian's builds and without Grafana too."""

import re
import urllib.request
from collections.abc import Iterator
from contextlib import suppress

import pytest
from playwright.sync_api import Browser, expect

from prometheus.drill.receiver import Receiver
from prometheus.run.parts import api_only
from tests.rig.alertmanager import secret
from tests.rig.browser import chromium, complaints_of
from tests.rig.deadline import eventually
from tests.rig.network import get_json
from tests.rig.stack import STARTED, Run, running, settings

TITLE = re.compile(r"CRITICAL orders: \S+ of requests fail")


def fail(run: Run) -> None:
    """Send a request that fails."""
    with suppress(urllib.error.HTTPError):
        urllib.request.urlopen(run.url("APP_PORT", "/test/error"), timeout=10)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, dict[str, str]]]:
    """A run whose service fails, and the links of the message about that, by their names."""
    directory = tmp_path_factory.mktemp("links")
    with Receiver() as receiver:
        environ = settings(
            directory / "run",
            TIME_SCALE="60",
            TRAFFIC_USERS="2",
            ALERT_RECEIVER="slack",
            ALERT_SECRET_FILE=secret(directory, f"{receiver.url}/services/T0/B0/abc"),
        )
        with running(environ) as run:
            run.wait_until_up(STARTED)

            def message() -> str | None:
                for _ in range(5):
                    fail(run)
                attachments = [post.document["attachments"][0] for post in receiver.posts]
                return next((each["text"] for each in attachments if TITLE.match(each["title"])), None)

            text = eventually(message, "a message about the errors", 60)
            run.wait_until_up()
            yield run, {name: url for url, name in re.findall(r"<(\S+)\|([\w ]+)>", text)}


def test_every_link_leads_somewhere(stack: tuple[Run, dict[str, str]]) -> None:
    """Dashboard, log lines, runbook and silence are pages."""
    _, links = stack
    answers = {}
    for name, url in links.items():
        with urllib.request.urlopen(url, timeout=10) as answer:
            answers[name] = answer.status

    assert answers == dict.fromkeys(("Dashboard", "Log lines", "What to do", "Silence"), 200)


def test_an_alert_is_silenced_from_the_message(browser: Browser, stack: tuple[Run, dict[str, str]]) -> None:
    """The form is filled in but for name and reason; the silence holds the alerts back until it is ended."""
    run, links = stack
    if not api_only("alertmanager"):
        pytest.skip("Alertmanager has a form of its own: OURS IS NOT TESTED")

    def states() -> set[str]:
        path = "/api/v2/alerts?filter=service=orders&filter=alertname=FlaskErrorRatioCritical"
        return {alert["status"]["state"] for alert in get_json(run.url("ALERTMANAGER_PORT", path))}

    page = browser.new_page()
    complaints = complaints_of(page)
    page.goto(links["Silence"])
    expect(page.get_by_label("labels")).to_have_value(re.compile(r'\bservice="orders"$'))
    page.get_by_label("name").fill("Ada")
    page.get_by_label("Reason").fill("known")
    page.get_by_role("button", name="Silence").click()

    expect(page.get_by_role("status")).to_contain_text("Silent until")
    expect(page.get_by_role("listitem")).to_contain_text("by Ada: known")
    eventually(lambda: states() == {"suppressed"}, "the alerts are held back")
    page.get_by_role("button", name="End it").click()
    expect(page.get_by_role("list")).to_have_text("None.")
    assert complaints == []


def test_without_grafana_the_service_is_shown(browser: Browser, stack: tuple[Run, dict[str, str]]) -> None:
    """Alerts that fire, the instances' own pages, and the endpoints with their errors."""
    run, links = stack
    if "no Grafana" not in run.output:
        pytest.skip("Grafana is there: THE PAGE IN ITS PLACE IS NOT TESTED")
    page = browser.new_page()
    complaints = complaints_of(page)
    # Requests and their errors are recorded one after the other, so the share is not 100 % at once.
    row = page.get_by_role("row").filter(has_text="/test/error").filter(has_text="100.0%")

    def shown() -> int:
        fail(run)
        page.goto(links["Dashboard"], wait_until="networkidle")
        return row.count()

    eventually(shown, "the endpoint that fails is shown")
    expect(row.get_by_role("cell")).to_have_text(
        [re.compile(text) for text in ("r$", r"\.\d\d$", "100.0%", " ms$")]
    )
    expect(page.get_by_role("heading", level=1)).to_have_text("orders")
    expect(page.get_by_role("link", name="critical FlaskErrorRatioCritical")).to_have_count(1)
    instance = page.get_by_role("link", name=run.url("APP_PORT").removeprefix("http://"))
    expect(instance).to_have_attribute("href", run.url("APP_PORT", "/monitoring"))
    assert complaints == []
