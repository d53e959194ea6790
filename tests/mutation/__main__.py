"""`python -m tests.mutation`: the share of the changes that the rule tests notice, and the others."""

import argparse
import copy
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from prometheus.tools.toolbox import executable
from tests.mutation.mutants import Mutant, mutants
from tests.mutation.reasons import reason
from tests.rig.places import ROOT

GOAL = 0.97
RULES = ROOT / "prometheus/rules"
TESTS = ROOT / "tests/rules"


@cache
def tests_of(name: str) -> list[Path]:
    """The files of tests that load a rule file, its own first: it notices most."""
    files = [file for file in TESTS.glob("*.yml") if f"/{name}.yml" in file.read_text(encoding="utf-8")]
    return sorted(files, key=lambda file: (file.stem != name, file.stat().st_size))


def notices(name: str, mutant: Mutant) -> bool:
    """Tell whether a test fails with this change: those that name the rule are asked first."""
    document: Any = copy.deepcopy(_load(name))
    rule = document["groups"][mutant.group]["rules"][mutant.rule]
    key, _, label = mutant.key.partition(".")
    if label:
        rule["labels"][label] = mutant.value
    else:
        rule[key] = mutant.value
    for file in tests_of(name):
        if _fails(file, name, document, rf"^{mutant.name}\b" if "alert" in rule else ""):
            return True
    return False


def _fails(file: Path, name: str, document: Any, only: str) -> bool:
    text = file.read_text(encoding="utf-8")
    if only and not re.search(rf"- name: {only.lstrip('^')}", text):
        return False
    with tempfile.TemporaryDirectory() as directory:
        changed = Path(directory) / f"{name}.yml"
        changed.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        text = text.replace(f"../../prometheus/rules/{name}.yml", str(changed))
        text = text.replace("../../prometheus/rules/", f"{RULES}/")
        tests = Path(directory) / "tests.yml"
        tests.write_text(text, encoding="utf-8")
        selection = ["--run", only] if only else []
        command = [str(executable("promtool")), "test", "rules", *selection, str(tests)]
        return subprocess.run(command, capture_output=True, check=False).returncode != 0


@cache
def _load(name: str) -> Any:
    return yaml.safe_load((RULES / f"{name}.yml").read_text(encoding="utf-8"))


def main() -> int:
    """Print each change that nobody noticed, with the reason, and the score; return 1 below the goal."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="rule files without .yml; default: all", metavar="FILE")
    parser.add_argument("--only", default="", help="only rules whose name has this in it")
    arguments = parser.parse_args()
    names = arguments.files or [file.stem for file in sorted(RULES.glob("*.yml"))]
    work = [
        (name, mutant) for name in names for mutant in mutants(_load(name)) if arguments.only in mutant.name
    ]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        verdicts = list(pool.map(lambda item: notices(*item), work))
    for (name, mutant), noticed in zip(work, verdicts, strict=True):
        if not noticed:
            change = f"{mutant.name}: {mutant.what}"
            print(f"{name}.yml {change} ({reason(change)})")
    score = sum(verdicts) / len(verdicts)
    print(f"{sum(verdicts)} of {len(verdicts)} changes were noticed: {score:.1%}")
    return int(score < GOAL)


if __name__ == "__main__":
    sys.exit(main())
