"""Fill `.tools/` with the programs that the stack runs: `python -m prometheus.tools [package …]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from prometheus.tools.packages import PACKAGES, REQUIRED
from prometheus.tools.toolbox import TOOLS, executable, fill, gave_up


def parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    names = ", ".join(package.name for package in PACKAGES)
    result = argparse.ArgumentParser(prog="python -m prometheus.tools", description=__doc__.splitlines()[0])
    result.add_argument("packages", nargs="*", metavar="package", help=f"default: {names}")
    return result


def main(arguments: list[str] | None = None, tools: Path = TOOLS) -> int:
    """Fill `tools` and print where each program is; return 1 if one that the stack needs is missing."""
    catalogue = {package.name: package for package in PACKAGES}
    names = parser().parse_args(arguments).packages
    strangers = sorted(set(names) - set(catalogue))
    if strangers:
        parser().error(f"no package {', '.join(strangers)}: known are {', '.join(catalogue)}")
    packages = [catalogue[name] for name in names] or [
        p for p in PACKAGES if p in REQUIRED or not gave_up(p, tools)
    ]
    reports = fill(packages, tools)
    for package, report in reports.items():
        print(report, file=sys.stderr)
        if package not in REQUIRED:
            print(f"`make run` goes on without {package.name}.", file=sys.stderr)
    for package in packages:
        if package not in reports:
            for name in package.executables:
                print(f"{name}\t{executable(name, tools)}")
    return int(any(names or package in REQUIRED for package in reports))


if __name__ == "__main__":
    sys.exit(main())
