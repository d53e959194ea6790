"""Hooks of mkdocs: pages and files that stand elsewhere in the repository are part of the site.

A link in a page is relative to the file that it stands in, as everywhere in the repository. A file that is no
page has a page with its text; pictures and JSON are copied as they are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parent
TOP = DOCS.parent
COPIES = (".png", ".svg", ".json")
LANGUAGES = {".yml": "yaml", ".yaml": "yaml", ".py": "python", ".sh": "sh"}

# The ending of the page of a file that is none; two letters before `.md` would be a language.
_TEXT = ".text.md"
# Code, in which nothing is a link; or the target of a link.
_LINK = re.compile(
    r"^ *```.*?^ *```$|`[^`\n]+`|(?<=\]\()(?P<target>[^)\s#]+)(?=[#)])", re.MULTILINE | re.DOTALL
)
# A block that names its file: ```python shop.py
_NAMED = re.compile(r"^```(\w+) (\S+)$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Give the navigation every page of its folders, and a site that mike builds the choice of versions."""
    config.nav = list(_expanded(config.nav or []))
    if "MIKE_DOCS_VERSION" in os.environ:
        config.extra["version"] = {"provider": "mike"}
    return config


def _expanded(entries: list[Any]) -> Iterator[Any]:
    """The entries of a navigation with the pages of a folder in its place."""
    for entry in entries:
        if isinstance(entry, dict):
            yield {
                title: list(_expanded(part)) if isinstance(part, list) else part
                for title, part in entry.items()
            }
        elif entry.endswith("/"):
            yield from (entry + page.name for page in sorted((DOCS / entry).glob("*.md")))
        else:
            yield entry


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand elsewhere, and every file to which a page links."""
    pages = [DOCS / file.src_uri for file in files.documentation_pages()]
    for uri in _uris(config.nav):
        if uri.startswith("../"):
            page = _normal(DOCS / uri)
            pages += [file for file in (page, page.with_suffix(".ko.md")) if file.exists()]
    inclusion = InclusionLevel.INCLUDED
    done: set[Path] = set()
    while pages:
        for path in {*pages} - done:
            file = _file(config, path, inclusion)
            if files.get_file_from_path(file.src_uri) is None:
                files.append(file)
        done.update(pages)
        pages = [target for page in pages for target in _targets(page) if target not in done]
        inclusion = InclusionLevel.NOT_IN_NAV
    return files


def _uris(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry.values() if isinstance(entry, dict) else entry or ():
            yield from _uris(part)


def _file(config: MkDocsConfig, path: Path, inclusion: InclusionLevel) -> File:
    """The file in the site: it has the path that it has in the repository."""
    # The start page of the site is another one than the README, which starts the product.
    place = Path(re.sub(r"^README\b", "start", path.relative_to(TOP).as_posix()))
    if path.suffix not in COPIES:
        place = (place.parent if place.name == "README.md" else _bare(place)) / "index.html"
    uri = os.path.relpath(_page(path), DOCS)
    file = File(
        uri,
        str(DOCS),
        config.site_dir,
        config.use_directory_urls,
        dest_uri=place.as_posix(),
        inclusion=inclusion,
    )
    # The plugin i18n translates a file whose path begins with docs/.
    file.abs_src_path = f"{DOCS}/{uri}"
    return file


def on_page_read_source(page: Page, config: MkDocsConfig) -> str | None:  # noqa: ARG001  mkdocs' signature
    """The text of a file that is no page."""
    source = _normal(DOCS / page.file.src_uri)
    if source.exists():
        return None
    path = _bare(source)
    if path.is_dir():
        text = "".join(f"- `{part.name}`\n" for part in sorted(path.glob("[!_]*")))
    else:
        text = f"````{LANGUAGES.get(path.suffix, 'text')}\n{path.read_text(encoding='utf-8')}````\n"
    name = path.relative_to(TOP).as_posix()
    return f"---\nsearch: {{exclude: true}}\n---\n# {path.name}\n\n`{name}` of the repository:\n\n{text}"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  mkdocs' signature
    """Lead links to files and folders to their pages; the name of a block's file becomes its title."""
    if page.file.src_uri == "reference/metrics.md":
        # Before the series that are recorded of a metric, which have its name in theirs.
        page.meta["search"] = {"boost": 4}
    folder = _normal(DOCS / page.file.src_uri).parent

    def follow(path: Path) -> str:
        inside = path.is_relative_to(DOCS) and path.suffix in (".md", *COPIES)
        return f"/{path.relative_to(DOCS)}" if inside else os.path.relpath(_page(path), folder)

    markdown = _follow(_between_languages(markdown, page), folder, follow)
    return _NAMED.sub(r'```\1 title="\2"', markdown)


def _between_languages(markdown: str, page: Page) -> str:
    """Lead a page's link to its translation, and back, to the same page in the other language.

    It is written as HTML, because a language is built without the pages of the other.
    """
    source = Path(page.file.src_uri)
    if source.name.endswith(".ko.md"):
        other, url = source.name.replace(".ko.md", ".md"), page.url.removeprefix("ko/")
    else:
        other, url = f"{source.stem}.ko.md", f"ko/{page.url}"
    href = os.path.relpath(f"/{url}", f"/{page.url}")
    return re.sub(rf"\[([^\]]+)\]\({re.escape(other)}\)", rf'<a href="{href}/">\1</a>', markdown)


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:  # noqa: ARG001  mkdocs' signature
    """Leave out the addresses of other languages for which the theme's script would look for sitemaps."""
    return re.sub(r'\s*<link rel="alternate"[^>]*>', "", output)


def _targets(page: Path) -> list[Path]:
    """The files of the repository to which a page links."""
    if page.suffix != ".md" or not page.exists():
        return []
    targets: list[Path] = []

    def note(path: Path) -> str:
        targets.append(path)
        return ""

    _follow(page.read_text(encoding="utf-8"), page.parent, note)
    return [target for target in targets if target.exists()]


def _follow(markdown: str, folder: Path, follow: Callable[[Path], str]) -> str:
    """The text of a page in this folder with another target for each link into the repository."""

    def replace(match: re.Match[str]) -> str:
        target = match["target"]
        path = _normal(folder / (target or ""))
        if target is None or re.match(r"\w+:", target) or not path.is_relative_to(TOP):
            return match[0]
        if (path / "README.md").exists():
            path /= "README.md"
        return follow(path)

    return _LINK.sub(replace, markdown)


def _page(path: Path) -> Path:
    """The page of a file or folder; what is copied has none."""
    return path if path.suffix in (".md", *COPIES) else Path(f"{path}{_TEXT}")


def _bare(page: Path) -> Path:
    """The path without the ending of a page."""
    return Path(re.sub(rf"({re.escape(_TEXT)}|\.md)$", "", str(page)))


def _normal(path: Path) -> Path:
    return Path(os.path.normpath(path))
