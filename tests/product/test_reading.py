"""What a stranger reads first is easy to read: short sentences."""

import re
from statistics import median

import pytest

from tests.rig.readme import PAGES

GUIDES = re.compile(r"README|docs/(index|tutorial|how-to/|explanation/)")


def sentences(prose: str) -> list[int]:
    """The number of words of each sentence, without tables, pictures and headings; code is one word."""
    lines = [line for line in prose.splitlines() if not re.match(r"[|#!]|<!--|---", line)]
    paragraphs = re.split(r"\n\s*\n|\n *(?:[-*]|\d+\.) ", "\n".join(lines))
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]+`", "code", "\n\n".join(paragraphs)))
    parts = re.split(r"[.!?][*)]*\s+|\n\n", text)
    return [count for part in parts if (count := len(re.findall(r"[^\W_][\w'-]*", part)))]


@pytest.mark.parametrize("name", [name for name in PAGES if GUIDES.match(name)])
def test_sentences_are_short(name: str) -> None:
    """Half of them have 18 words at most, and none has more than 40."""
    lengths = sentences(PAGES[name].prose)

    assert median(lengths) <= 18
    assert max(lengths) <= 40


def test_a_long_sentence_is_seen() -> None:
    """Marks, links and lines do not hide its words; a list and a stop end it."""
    text = "One **two** [three\nfour](five.md) `six seven`.\n\n- eight nine. ten:\n- eleven\n\n| a table |\n"

    assert sentences(text) == [5, 2, 1, 1]
