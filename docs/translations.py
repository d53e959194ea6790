"""`python -m docs.translations`: translations that are older than their source, and what has changed since.

A translation stands beside its source, `page.ko.md` beside `page.md`, and names the version that it was made
from in its first lines: `source: ` and twelve digits of that file's SHA-256.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]

_SOURCE = re.compile(r"^((?:<!-- )?source:) ?([0-9a-f]{12})?(.*)$", re.MULTILINE)


def translations(top: Path = TOP) -> list[Path]:
    """Every translation in the repository."""
    listed = _git(top, "ls-files", "--cached", "--others", "--exclude-standard", "*.ko.md")
    return [top / name for name in listed.splitlines()]


def source_of(translation: Path) -> Path:
    """The file that a translation was made from."""
    return translation.with_name(translation.name.replace(".ko.md", ".md"))


def digest(content: bytes) -> str:
    """What a translation calls a version of its source."""
    return sha256(content).hexdigest()[:12]


def is_current(translation: Path) -> bool:
    """Whether it was made from its source as it is."""
    return _named(translation) == digest(source_of(translation).read_bytes())


def seal(translation: Path) -> None:
    """Let it name its source as it is; ValueError if it has no place for that."""
    text = translation.read_text(encoding="utf-8")
    new = digest(source_of(translation).read_bytes())
    sealed, times = _SOURCE.subn(rf"\g<1> {new}\g<3>", text, count=1)
    if not times:
        raise ValueError(f"{translation} has no line `source:`, in its front matter or in a comment")
    translation.write_text(sealed, encoding="utf-8")


def difference(translation: Path, top: Path = TOP) -> str:
    """What has changed in the source since the translation was made."""
    source = source_of(translation)
    name = source.relative_to(top).as_posix()
    for commit in _git(top, "log", "--format=%H", "--", name).split():
        content = subprocess.run(
            ["git", "show", f"{commit}:{name}"], cwd=top, capture_output=True, check=False
        ).stdout
        if digest(content) == _named(translation):
            return _git(top, "diff", commit, "--", name)
    return f"{name} was never committed as {translation.name} names it: {_named(translation) or 'nothing'}\n"


def _named(translation: Path) -> str:
    match = _SOURCE.search(translation.read_text(encoding="utf-8"))
    return (match and match[2]) or ""


def _git(top: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=top, capture_output=True, text=True, check=True).stdout


def _lines(files: list[Path]) -> Iterator[str]:
    for file in files:
        if not is_current(file):
            source = source_of(file).relative_to(TOP)
            yield f"{file.relative_to(TOP)} is older than {source}:\n\n{difference(file)}"


def parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    result = argparse.ArgumentParser(
        prog="python -m docs.translations",
        description="Show what has changed in the source of a translation since that was made.",
    )
    result.add_argument("files", nargs="*", type=Path, metavar="file", help="default: every translation")
    result.add_argument("--seal", action="store_true", help="let the files name their source as it is")
    return result


def main() -> int:
    """Print the differences; 1 if a translation is old."""
    command = parser()
    arguments = command.parse_args()
    known = translations()
    files = [file.resolve() for file in arguments.files] or known
    if strangers := [str(file) for file in files if file not in known]:
        names = ", ".join(str(file.relative_to(TOP)) for file in known)
        command.error(f"no translation: {', '.join(strangers)}; there are {names}")
    if arguments.seal:
        try:
            for file in files:
                seal(file)
        except ValueError as error:
            command.error(str(error))
    lines = list(_lines(files))
    sys.stdout.write("\n".join(lines))
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main())
