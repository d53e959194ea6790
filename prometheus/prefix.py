"""`python -m prometheus.prefix web FOLDER …`: copies of these folders for metrics that begin with `web_`.

They are written to `.prefix/web`, in the same places as here; `cp -r .prefix/web/. .` puts them in force.
"""

import re
import shutil
import sys
from pathlib import Path

from exporter import parsers

TOP = Path(__file__).resolve().parents[1]

# Not `flask-`, as in the names of dashboards, nor `Flask`, as in those of alerts.
_NAME = re.compile(r"(?<![A-Za-z0-9_])flask_(?=[a-z])")


def write(prefix: str, folders: list[str], into: Path) -> None:
    """Write the folders for metrics with this prefix below `into`; ValueError if no name can have it."""
    parsers.prefix(prefix)
    for folder in folders:
        shutil.rmtree(into / folder, ignore_errors=True)
        for file in sorted((TOP / folder).rglob("*.*")):
            copy = into / file.relative_to(TOP)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(_NAME.sub(f"{prefix}_", file.read_text(encoding="utf-8")), encoding="utf-8")


def main(prefix: str, *folders: str) -> int:
    """Write the folders, and say where; 1, with a line on stderr, if the prefix cannot be used."""
    into = TOP / ".prefix" / prefix
    try:
        write(prefix, list(folders), into)
    except ValueError as error:
        print(f"PREFIX={prefix}: {error}", file=sys.stderr)
        return 1
    print(f"{', '.join(folders)} for metrics that begin with {prefix}_: {into}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
