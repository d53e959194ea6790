"""Messages on the pages that help in trouble are those that the product prints."""

import ast
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from difflib import SequenceMatcher

import pytest

from tests.rig.places import ROOT
from tests.rig.readme import PAGES

# What other programs say, and words that stand before a message of ours or are a value in it.
FOREIGN = (
    *("docker:", "Bind for", "Duplicated timeseries", "field scrape_native", "sample limit", "No module"),
    *("CurrentThreadExecutor", "Control server error"),
)
VALUES = re.compile(
    r"^(make run|warning|top|UNSEEN|DOWN: shop \(.*?\)|): |Permission denied|No such file or directory"
    r"|Address already in use|\S*[\d/=]\S*|…"
)


def words(text: str) -> list[str]:
    """The words of a text, without marks."""
    return re.findall(r"[A-Za-z_]+", text)


def texts() -> Iterator[str]:
    """Each text in the code, without the values in it."""
    files = ["exporter/*.py", "prometheus/*.py", "prometheus/*.sh", "Makefile"]
    for name in subprocess.check_output(["git", "ls-files", *files], cwd=ROOT, text=True).split():
        code = (ROOT / name).read_text(encoding="utf-8")
        if not name.endswith(".py"):
            yield from code.splitlines()
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.JoinedStr):
                yield " ".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


TEXTS = [words(text) for text in texts()]
PLACES: dict[str, set[int]] = defaultdict(set)
for index, text in enumerate(TEXTS):
    for word in text:
        PLACES[word].add(index)

MESSAGES = [
    (name, message)
    for name, page in PAGES.items()
    if name.startswith(("docs/how-to/", "docs/troubleshooting"))
    for row in re.findall(r"^\| (.*?) \|", page.prose, re.MULTILINE)
    for message in re.findall(r"`([^`]+)`", row)
    if len(words(VALUES.sub("", message))) > 3 and not message.startswith(FOREIGN)
]


def share(message: str) -> float:
    """The largest share of the words of a message that one text has, in their order."""
    said = words(VALUES.sub("", message))
    likely = Counter(index for word in set(said) for index in PLACES[word]).most_common(20)
    matches = (SequenceMatcher(None, said, TEXTS[index], autojunk=False) for index, _ in likely)
    return max(sum(block.size for block in match.get_matching_blocks()) for match in matches) / len(said)


@pytest.mark.parametrize(("name", "message"), MESSAGES)
def test_message_is_printed(name: str, message: str) -> None:
    """Seven of ten words; the rest are values."""
    assert share(message) >= 0.7, name


def test_a_message_of_nobody_is_seen() -> None:
    """It has words of the product in an order that the product has not."""
    assert share("share a directory: the workers set for each count themselves to") < 0.7
    assert len(MESSAGES) > 60
