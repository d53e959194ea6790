"""`python -m exporter run -- command`: measures the WSGI application that a command serves."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

_STARTUP = str(Path(__file__).parents[1] / "startup")


def add_command(commands: Any) -> None:
    """Add `run` to the parser of the commands."""
    parser = commands.add_parser(
        "run",
        help="measure the WSGI application that a command serves, without a change of its code",
        description=__doc__,
        usage="python -m exporter run -- command [argument …]",
    )
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="command", help="such as: flask --app shop run"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Become the command; 2, with a message, if that is not possible."""
    command = options.words[1:] if options.words[:1] == ["--"] else options.words
    paths = [_STARTUP, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        os.execvpe(command[0], command, {**os.environ, "PYTHONPATH": os.pathsep.join(paths)})
    except IndexError:
        sys.stderr.write("name the command that serves: python -m exporter run -- flask --app shop run\n")
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
    return 2
