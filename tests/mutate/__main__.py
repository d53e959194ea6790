"""`python -m tests.mutate [aimed | sample NUMBER [SEED] | NAME …]`: what changes no test notices, by module.

Works in a copy of the tree, which is removed at the end. A test that does not end counts as noticing.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.mutate.aimed import AIMED
from tests.mutate.mutants import Mutant, sample
from tests.rig.places import ROOT

GOALS = {"aimed": 1.0, "sample": 0.97}
TOP = (
    *("exporter", "prometheus", "grafana", "app", "deploy", "examples", "tests"),
    *("pyproject.toml", "README.md", "CHANGELOG.md", "docker-compose.yml", "replicas.yml"),
)
UNCHANGED_SECONDS = 600
"""How long a test file may take without a change."""


class Tree:
    """A copy of the repository in which one thing at a time is changed."""

    def __init__(self, root: Path, patience: float = 30) -> None:
        """`patience`: the seconds that a changed run may take beyond thrice the time of an unchanged one."""
        self._root = root
        self._patience = patience
        self._seconds: dict[str, float] = {}

    def notices(self, mutant: Mutant) -> bool:
        """Tell whether a test that passes without the change fails, or does not end, with it."""
        tests = [test for test in mutant.tests if self._passes(test)]
        deadline = self._patience + 3 * sum(self._seconds[test] for test in tests)
        with self._changed(mutant):
            return bool(tests) and self._fails(tests, deadline)

    def _passes(self, test: str) -> bool:
        if test not in self._seconds:
            start = time.monotonic()
            fails = self._fails([test], UNCHANGED_SECONDS)
            self._seconds[test] = -1 if fails else time.monotonic() - start
            if fails:
                print(f"{test} fails without a change: it is left out", flush=True)
        return self._seconds[test] >= 0

    @contextmanager
    def _changed(self, mutant: Mutant) -> Iterator[None]:
        path = self._root / mutant.file
        text = path.read_text(encoding="utf-8")
        path.write_text(mutant.text, encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(text, encoding="utf-8")

    def _fails(self, tests: Sequence[str], deadline: float) -> bool:
        temporary = self._root / "t"
        temporary.mkdir(exist_ok=True)
        environ = {
            **os.environ,
            "PYTHONPATH": str(self._root),
            # Two changes within a second may leave a file as long as it was: its old code would be run.
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(temporary),
        }
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-m",
            "not soak",
            "-p",
            "no:cacheprovider",
            *tests,
        ]
        process = subprocess.Popen(
            command,
            cwd=self._root,
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            # 5: all tests of the file are for `make soak`.
            return process.wait(deadline) not in (0, 5)
        except subprocess.TimeoutExpired:
            return True
        finally:
            # So that the tests end what they started, which may have sessions of its own.
            with suppress(subprocess.TimeoutExpired):
                process.send_signal(signal.SIGINT)  # nothing, when it has ended
                process.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            shutil.rmtree(temporary, ignore_errors=True)


def survivors(mutants: Sequence[Mutant]) -> list[Mutant]:
    """Run the mutants in a copy of the tree, and return those that no test notices."""
    rest = []
    with tempfile.TemporaryDirectory(prefix="m-") as directory:
        root = Path(directory)
        for name in TOP:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, root / name)
        for name in (".venv", ".tools"):  # what tests take from there
            (root / name).symlink_to((ROOT / name).resolve())
        tree = Tree(root)
        for mutant in mutants:
            start = time.monotonic()
            noticed = tree.notices(mutant)
            verdict = "noticed" if noticed else "SURVIVED"
            print(f"{verdict} after {time.monotonic() - start:.0f} s: {mutant.name}", flush=True)
            if not noticed:
                rest.append(mutant)
    return rest


def report(mutants: Sequence[Mutant], rest: Sequence[Mutant]) -> Iterator[str]:
    """The lines of a table by module, and of the changes that no test noticed."""
    changes, missed = (Counter(mutant.file for mutant in group) for group in (mutants, rest))
    yield f"{'module':40} noticed"
    for file, number in sorted(changes.items()):
        yield f"{file:40} {number - missed[file]} of {number}"
    for mutant in rest:
        yield f"SURVIVED {mutant.name} in {mutant.file}: {mutant.what}"
    noticed = len(mutants) - len(rest)
    yield f"{noticed} of {len(mutants)} changes were noticed: {noticed / len(mutants):.1%}"


def main() -> int:
    """Print what survives; return 1 below the goal, which is 97 % of a sample, and all aimed changes."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["aimed"], help="default: aimed", metavar="WHAT")
    kind, *rest = parser.parse_args().what
    aimed = {change.name: change for change in AIMED}
    if kind == "sample":
        try:
            number, seed = (*map(int, rest), random.randrange(10**6))[:2]
        except ValueError:
            parser.error("sample takes a number and, to repeat one, its seed: sample 300 7")
        print(f"sample {number} {seed}")
        mutants = sample(ROOT, number, seed)
    else:
        names = list(aimed) if kind == "aimed" else [kind, *rest]
        if strangers := sorted(set(names) - aimed.keys()):
            parser.error(f"there is no {', '.join(strangers)}; there are {', '.join(aimed)}")
        mutants = [aimed[name].mutant(ROOT) for name in names]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the copy is removed then, too
    left = survivors(mutants)
    print("\n".join(report(mutants, left)))
    return int(1 - len(left) / len(mutants) < GOALS.get(kind, 1.0))


if __name__ == "__main__":
    sys.exit(main())
