"""README.md and the pages of docs/ as data: their code blocks, tables, links and anchors."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.rig.places import ROOT


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its place, its language, the file that it is, and the output that the page shows."""

    page: str
    line: int
    section: str
    language: str
    file: str
    text: str
    output: str = ""

    def __str__(self) -> str:
        return f"{self.page} line {self.line}: {self.file or self.text.strip()[:60]}"


class Page:
    """A page of Markdown; its name is its path in the repository."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = ROOT / name
        self._text = self.path.read_text(encoding="utf-8")
        self.prose = _prose(self._text)
        self.blocks: list[Block] = []
        for block in self._blocks():
            if block.language == "text" and not block.file:  # the output of the block before it
                self.blocks[-1] = replace(self.blocks[-1], output=block.text)
            else:
                self.blocks.append(block)

    def _blocks(self) -> Iterator[Block]:
        for fence in re.finditer(r"^```(\w*) ?(\S*)\n(.*?)^```$", self._text, re.MULTILINE | re.DOTALL):
            before = self._text[: fence.start()]
            section = re.findall(r"^#+ (.*)$", _prose(before), re.MULTILINE)[-1]
            yield Block(self.name, before.count("\n") + 1, section, *fence.groups())

    def commands(self) -> list[str]:
        """The indented blocks: commands and outputs that no test runs as they are."""
        prose = re.sub(r"^ +```.*?^ +```$", "", self.prose, flags=re.MULTILINE | re.DOTALL)
        blocks = re.findall(r"(?:^|\n)\n((?: {4}[^\n]*\n)+)(?=\n|$)", prose)
        texts = (re.sub(r"^ {4}", "", block, flags=re.MULTILINE) for block in blocks)
        return [text for text in texts if not text.startswith(("|", "- "))]

    def table(self, section: str) -> list[tuple[str, ...]]:
        """The rows of a section's first table, without its head and the code marks around a whole cell."""
        body = re.split(rf"^#+ {re.escape(section)}\n", self.prose, flags=re.MULTILINE)[1]
        lines = re.findall(r"^\|(.*)\|$", re.split(r"^#+ ", body, flags=re.MULTILINE)[0], re.MULTILINE)
        rows = [tuple(_bare(cell) for cell in re.split(r"(?<!\\)\|", line)) for line in lines]
        assert set("".join(rows[1])) <= set("- "), f"{section}: the second line of a table is a rule"
        return rows[2:]

    def links(self) -> list[str]:
        """The targets of the links and pictures of the page."""
        links = re.findall(r"\]\(([^)\s]+)\)|<(https?://[^>]+)>", self.prose)
        return [target or address for target, address in links]

    def anchors(self) -> set[str]:
        """The names that GitHub gives to the page's headings."""
        headings = re.findall(r"^#+ (.*)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def _bare(cell: str) -> str:
    return re.sub(r"^`([^`]*)`$", r"\1", cell.strip())


NAMES = subprocess.check_output(["git", "ls-files", "*.md"], cwd=ROOT, text=True).split()
PAGES = {name: Page(name) for name in NAMES if name.startswith(("README.md", "docs/"))}
# The tutorial has a test of its own.
BLOCKS = [
    block
    for name, page in PAGES.items()
    if name == "README.md" or name.startswith(("docs/how-to/", "docs/explanation/"))
    for block in page.blocks
]


def shows(actual: str, output: str) -> bool:
    """Whether the output has the lines of a page in their order; numbers may differ, `…` is anything."""
    rest = iter(actual.splitlines())
    for line in output.splitlines():
        words = re.sub(r"(\\ )+", r"\\s+", re.escape(line.strip()))
        pattern = re.compile(re.sub(r"\d+(\\\.\d+)*", r"\\d[\\d.e+-]*", words).replace("…", ".*"))
        if not any(pattern.fullmatch(said.strip()) for said in rest):
            return False
    return True
