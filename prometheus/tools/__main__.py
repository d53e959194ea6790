"""Fill `.tools/` with the programs that the stack runs: `python -m prometheus.tools [package …]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from prometheus.tools.packages import PACKAGES, REQUIRED
from prometheus.tools.toolbox import TOOLS, executable, fill, gave_up


def main(arguments: list[str] | None = None, tools: Path = TOOLS) -> int:
    """Fill `tools` and print where each program is; 1 if one that the stack needs is missing."""
    names = {package.name: package for package in PACKAGES}
    parser = argparse.ArgumentParser(prog="python -m prometheus.tools", description=__doc__.splitlines()[0])
    parser.add_argument("packages", nargs="*", metavar="package", help=f"default: {', '.join(names)}")
    asked = parser.parse_args(arguments).packages
    unknown = sorted(set(asked) - set(names))
    if unknown:
        parser.error(f"no package {', '.join(unknown)}: known are {', '.join(names)}")
    wanted = [names[name] for name in asked] or [
        p for p in PACKAGES if p in REQUIRED or not gave_up(p, tools)
    ]
    missing = fill(wanted, tools)
    for package, report in missing.items():
        print(report, file=sys.stderr)
        if package not in REQUIRED:
            print(f"`make run` goes on without {package.name}.", file=sys.stderr)
    for package in wanted:
        if package not in missing:
            for name in package.executables:
                print(f"{name}\t{executable(name, tools)}")
    return int(any(asked or package in REQUIRED for package in missing))


if __name__ == "__main__":
    sys.exit(main())
