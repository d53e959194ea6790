"""Coverage-guided fuzzing of every parser of foreign bytes: `python -m tests.fuzz SECONDS [TARGET …]`.

Each target gets its share of the time, in a process of its own; it begins with the inputs in `corpus/`. Ends
with 1 if one raised, and then the input that did it is in the working directory.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

CORPUS = Path(__file__).with_name("corpus")


def fuzz(name: str, arguments: list[str]) -> None:
    """Fuzz one target for ever, or until libFuzzer's arguments say otherwise."""
    with atheris.instrument_imports(include=["exporter"]):
        from tests.fuzz.targets import TARGETS

    warnings.simplefilter("ignore")  # of settings that nobody knows
    atheris.Setup(["fuzz", *arguments], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    """Fuzz the targets that are named, or all, and tell how it went."""
    known = sorted(path.name for path in CORPUS.iterdir())
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("seconds", type=float, help="for all of them together", metavar="SECONDS")
    parser.add_argument("targets", nargs="*", help=f"only these: {', '.join(known)}", metavar="TARGET")
    arguments = parser.parse_args()
    if strangers := sorted(set(arguments.targets) - set(known)):
        parser.error(f"there is no {', '.join(strangers)}; there are {', '.join(known)}")
    names = arguments.targets or known
    share, failed = max(int(arguments.seconds / len(names)), 1), 0
    for name in names:
        with tempfile.TemporaryDirectory() as found:
            options = [f"-max_total_time={share}", "-print_final_stats=1"]
            command = [sys.executable, "-m", "tests.fuzz", "--", name, found, str(CORPUS / name), *options]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        said = done.stdout + done.stderr
        cases = re.search(r"number_of_executed_units: (\d+)", said)
        coverage = re.findall(r"cov: (\d+)", said)
        print(f"{name}: {cases and cases[1]} cases, {coverage and coverage[-1]} branches", flush=True)
        if done.returncode:
            failed = 1
            print(said[-3000:])
    return failed


if __name__ == "__main__":
    if sys.argv[1:2] == ["--"]:
        fuzz(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main())
