"""README.md as data: its code blocks, tables, links and anchors."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.rig.places import ROOT

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the section that it stands in, its language, and the file that it is, if it is one."""

    line: int
    section: str
    language: str
    file: str
    text: str

    def __str__(self) -> str:
        return f"line {self.line}, {self.section}: {self.file or self.text.strip()[:60]}"


def _blocks() -> Iterator[Block]:
    for fence in re.finditer(r"^```(\w*) ?(\S*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        before = TEXT[: fence.start()]
        section = re.findall(r"^##+ (.*)$", before, re.MULTILINE)[-1]
        yield Block(before.count("\n") + 1, section, *fence.groups())


BLOCKS = list(_blocks())
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.MULTILINE | re.DOTALL)


def table(section: str) -> list[tuple[str, ...]]:
    """The rows of the only table of a section, without its head and the code marks around a whole cell."""
    body = re.split(rf"^##+ {re.escape(section)}\n", PROSE, flags=re.MULTILINE)[1]
    lines = re.findall(r"^\|(.*)\|$", re.split(r"^##+ ", body, flags=re.MULTILINE)[0], re.MULTILINE)
    rows = [tuple(_bare(cell) for cell in re.split(r"(?<!\\)\|", line)) for line in lines]
    assert set("".join(rows[1])) <= set("- "), f"{section}: the second line of a table is a rule"
    return rows[2:]


def _bare(cell: str) -> str:
    return re.sub(r"^`([^`]*)`$", r"\1", cell.strip())


def targets() -> list[str]:
    """The targets of the links and pictures of the page."""
    links = re.findall(r"\]\(([^)\s]+)\)|<(https?://[^>]+)>", PROSE)
    return [target or address for target, address in links]


def anchors() -> set[str]:
    """The names that GitHub gives to the page's headings."""
    headings = re.findall(r"^#+ (.*)$", PROSE, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def expanded(pattern: str) -> list[str]:
    """`a_{b,c}` as `a_b` and `a_c`, as in a shell."""
    parts = [part.split(",") for part in re.split(r"[{}]", pattern)]
    return ["".join(choice) for choice in itertools.product(*parts)]
