"""`python -m tests.mutation`: the share of the changes that the rule tests notice, and the others."""

import argparse
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.mutation.cases import cases, rules_of
from tests.mutation.mutants import Mutant, mutants
from tests.mutation.reasons import reason
from tests.rig.places import ROOT

GOAL = 0.97
RULES = ROOT / "prometheus/rules"


def notices(name: str, mutant: Mutant) -> bool:
    """Tell whether a rule test fails with this change, for an alert one of those that name it."""
    place = (name, mutant.group, mutant.rule)
    alert = "alert" in rules_of(name)["groups"][mutant.group]["rules"][mutant.rule]
    named = [case for case in cases(place) if not alert or re.match(rf"{mutant.name}\b", case.name)]
    return not all(case.passes(place, mutant.key, mutant.value) for case in named)


def main() -> int:
    """Print each change that nobody noticed, with the reason, and the score; return 1 below the goal."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="rule files without .yml; default: all", metavar="FILE")
    parser.add_argument("--only", default="", help="only rules whose name has this in it")
    arguments = parser.parse_args()
    all_names = [file.stem for file in sorted(RULES.glob("*.yml"))]
    if strangers := sorted(set(arguments.files) - set(all_names)):
        parser.error(f"there is no {', '.join(strangers)}; there are {', '.join(all_names)}")
    names = arguments.files or all_names
    work = [
        (name, mutant)
        for name in names
        for mutant in mutants(rules_of(name))
        if arguments.only in mutant.name
    ]
    if not work:
        parser.error(f"no rule of {', '.join(names)} has {arguments.only} in its name")
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
