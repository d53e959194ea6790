"""Coverage-guided fuzzing of every parser of foreign bytes: `python -m tests.fuzz SECONDS [TARGET …]`.

Each target gets its share of the time, in a process of its own; it begins with the inputs in `corpus/`. Ends
with 1 if one raised, and then the input that did it is in the working directory.
"""

from __future__ import annotations

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


def main(seconds: float, names: list[str]) -> int:
    """Fuzz these targets, or all, and tell how it went."""
    names = names or sorted(path.name for path in CORPUS.iterdir())
    failed = 0
    for name in names:
        with tempfile.TemporaryDirectory() as found:
            options = [f"-max_total_time={max(int(seconds / len(names)), 1)}", "-print_final_stats=1"]
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
    if sys.argv[1] == "--":
        fuzz(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
