"""The documentation site: whole, found by its search, and asking nobody."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.writers import commands, log, metrics, rules, settings, words
from tests.rig.places import ROOT

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


def test_each_word_is_in_the_index(site: Path) -> None:
    """The page that explains it has it."""
    index = json.loads((site / "search/search_index.json").read_text(encoding="utf-8"))
    texts: dict[str, str] = {}
    for entry in index["docs"]:
        location = entry["location"].partition("#")[0]
        texts[location] = f"{texts.get(location, '')} {entry['title']} {entry['text']}"
    missing = [word for word, location in words_of_the_product().items() if word not in texts[location]]

    assert missing == []
