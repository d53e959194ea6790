"""`python -m exporter <command>`: commands for the operator of a service."""

from __future__ import annotations

import argparse
import sys

from exporter.commands import capacity, run, top


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m exporter", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    run.add_command(commands)
    top.add_command(commands)
    capacity.add_command(commands)
    options = parser.parse_args(arguments)
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
