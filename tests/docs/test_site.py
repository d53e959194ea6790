"""The documentation site: whole, found by its search, asking nobody, and readable on a telephone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from docs.writers import commands, log, metrics, rules, settings, words
from tests.rig.browser import chromium, complaints_of
from tests.rig.places import ROOT

PATIENCE = 60_000  # ms

# What a browser fetches for a page, from another host.
FOREIGN = re.compile(
    r"""<(?:script|img|iframe|source|link|object)\b[^>]*\s(?:src|href|data)=["']?(?:\w+:)?//[^\s>]*"""
    r"""|(?:url\(|@import )["']?(?:\w+:)?//[^\s)]*"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(directory)]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # the theme's advertisement for its successor
    build = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300)
    assert build.returncode == 0, build.stderr
    assert "WARNING" not in build.stderr
    return directory


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site on a server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing: pytest shows what a test prints."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    with chromium() as browser:
        yield browser


def test_no_page_fetches_from_elsewhere(site: Path) -> None:
    """Scripts, styles, pictures and fonts are the site's own."""
    outside = {
        (file.name, match[0])
        for file in [*site.rglob("*.html"), *site.rglob("*.css")]
        for match in FOREIGN.finditer(file.read_text(encoding="utf-8"))
    }

    assert outside == set()


def words_of_the_product() -> dict[str, str]:
    """Each word that the product prints, and the page that explains it."""
    stages = [*words.WORDS["stage"], *words.WORDS["cause"]]
    return {
        **dict.fromkeys(metrics.families(), "reference/metrics/"),
        **dict.fromkeys((name for name, *_ in settings.exporter_rows()), "reference/settings/"),
        **dict.fromkeys(rules.by_name("alert"), "reference/alerts/"),
        **dict.fromkeys(rules.by_name("record"), "reference/recorded-series/"),
        **dict.fromkeys((parser.prog for parser in commands.parsers()), "reference/commands/"),
        **dict.fromkeys((name for name, *_ in commands.targets()), "reference/commands/"),
        **dict.fromkeys(log.REQUEST, "reference/log/"),
        **dict.fromkeys(stages, "reference/words/"),
    }


# Asks the worker of the theme's search, as its input does, and returns the pages of each word in their order.
SEARCH = """async (words) => {
  const config = JSON.parse(document.getElementById("__config").textContent);
  const worker = new Worker(new URL(config.search, location));
  const index = await (await fetch("search/search_index.json")).json();
  const ask = (type, data, answer) => new Promise((resolve) => {
    worker.onmessage = (message) => message.data.type === answer && resolve(message.data.data);
    worker.postMessage({type, data});
  });
  await ask(0, {...index, options: {}}, 1);
  const pages = {};
  for (const word of words) {
    const {items} = await ask(2, word, 3);
    pages[word] = items.map((page) => page[0].location.split("#")[0]);
  }
  return pages;
}"""


def test_each_word_is_found_by_one_search(address: str, browser: Browser) -> None:
    """Its page is among the results; of a name, which is no English word, it or the runbook is the first."""
    expected = words_of_the_product()
    page = browser.new_page()
    page.goto(f"{address}/", timeout=PATIENCE)
    found = page.evaluate(SEARCH, list(expected))
    names = [word for word in expected if re.search(r"[:.]|^(flask|EXPORTER)_|[a-z][A-Z]", word)]

    assert [word for word, location in expected.items() if location not in found[word]] == []
    assert [
        name for name in names if found[name][0] not in (expected[name], f"prometheus/runbooks/{name}/")
    ] == []


def pages(site: Path) -> list[str]:
    """The address of each page in English, and of those that are translated; not of the texts of files."""
    entries = [path.relative_to(site).parent.as_posix() for path in site.rglob("index.html")]
    translated = {path.name.removesuffix(".ko.md") for path in ROOT.glob("**/*.ko.md")}
    return sorted(
        entry
        for entry in entries
        if not (ROOT / entry).is_file() and (not entry.startswith("ko/") or Path(entry).name in translated)
    )


@pytest.mark.parametrize(
    ("width", "share"),
    [
        (390, 4),
        pytest.param(390, 1, marks=pytest.mark.soak),
        (1280, 16),
        pytest.param(1280, 1, marks=pytest.mark.soak),
    ],
)
def test_no_page_is_wider_than_the_window(
    site: Path, address: str, browser: Browser, width: int, share: int
) -> None:
    """On a telephone, and on a desk. Scripts move nothing there, and would take most of the time."""
    page = browser.new_page(viewport={"width": width, "height": 800}, java_script_enabled=False)
    breadths = {}
    for entry in pages(site)[::share]:
        page.goto(f"{address}/{entry}/", timeout=PATIENCE)
        breadths[entry] = page.evaluate("document.documentElement.scrollWidth")

    assert {entry: breadth for entry, breadth in breadths.items() if breadth > width} == {}


@pytest.mark.parametrize("entry", ["", "reference/metrics/", "prometheus/runbooks/FlaskTargetDown/", "ko/"])
def test_no_page_complains(address: str, browser: Browser, entry: str) -> None:
    """Its scripts raise nothing, and ask for nothing that is missing or elsewhere."""
    page = browser.new_page()
    complaints = complaints_of(page)
    bad: list[str] = []
    page.on("request", lambda request: None if request.url.startswith(address) else bad.append(request.url))
    page.on("requestfailed", lambda request: bad.append(request.url))
    page.on("response", lambda answer: None if answer.ok else bad.append(answer.url))
    page.goto(f"{address}/{entry}", timeout=PATIENCE)

    assert (bad, complaints) == ([], [])
