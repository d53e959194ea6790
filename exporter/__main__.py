"""`python -m exporter <command>`: commands for the operator of a service."""

from __future__ import annotations

import argparse
import sys

from exporter.commands import capacity, run, top


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    result = argparse.ArgumentParser(prog="python -m exporter", description=__doc__)
    commands = result.add_subparsers(dest="command", required=True, metavar="command")
    run.add_command(commands)
    top.add_command(commands)
    capacity.add_command(commands)
    return result


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = parser().parse_args(arguments)
    status: int = options.run(options)
    return status


if __name__ == "__main__":
    sys.exit(main())
