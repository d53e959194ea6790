"""`python -m tests.mutate [aimed | sample NUMBER [SEED] | NAME …]`: what changes no test notices, by module.

Works in a copy of the tree, which is removed at the end. A test that does not end counts as noticing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.mutate import choice
from tests.mutate.aimed import AIMED
from tests.mutate.mutants import TESTS, Mutant, sample
from tests.rig.places import ROOT

GOALS = {"aimed": 1.0, "sample": 0.97}
TOP = (
    *("exporter", "prometheus", "grafana", "app", "deploy", "examples", "tests"),
    *("pyproject.toml", "README.md", "CHANGELOG.md", "docker-compose.yml", "replicas.yml"),
)
PLUGINS = ("schemathesis",)
"""What a test file needs of pytest's plugins, if it has this word."""
UNCHANGED_SECONDS = 600
"""How long a test file may take without a change, while its calls are noted."""


class Tree:
    """A copy of the repository in which one thing at a time is changed."""

    def __init__(self, root: Path, patience: float = 30) -> None:
        """`patience`: the seconds that a changed run may take beyond thrice the time of an unchanged one."""
        self._root = root
        self._patience = patience
        self._calls: dict[str, choice.Calls] = {}
        self._seconds: dict[str, float] = {}  # of a file beside those of its tests
        self._second = int(time.time())

    def noticed_by(self, mutant: Mutant) -> str | None:
        """The test that passes without the change and fails, or does not end, with it.

        Tests that call the changed function are run before all others, and those that call little else first.
        At last come the tests of other rooms that call the function.
        """
        all_files = {str(path.relative_to(self._root)) for path in (self._root / TESTS).rglob("test_*.py")}
        others = all_files - {*mutant.tests} if mutant.function else ()
        for is_called, files in (
            (True, mutant.tests[:1]),
            (True, mutant.tests[1:]),
            (False, mutant.tests),
            (True, others),
        ):
            tests = {
                file: sorted(
                    (len(places), seconds, test)
                    for test, (seconds, places) in self._calls_of(file).items()
                    if (mutant.function is None or mutant.function in places) is is_called
                )
                for file in files
            }
            chosen = {file: tests[file] for file in sorted(files, key=tests.__getitem__) if tests[file]}
            if chosen and (test := self._noticing(mutant, chosen)):
                return test
        return None

    def _calls_of(self, file: str) -> choice.Calls:
        if file not in self._calls:
            notes = self._root / "notes.json"
            start = time.monotonic()
            self._fails([file], UNCHANGED_SECONDS, {choice.CALLS: str(notes)})
            try:
                self._calls[file], failures = json.loads(notes.read_text(encoding="utf-8"))
            except FileNotFoundError:
                self._calls[file], failures = {}, [file]
            for test in failures:
                print(f"{test} fails without a change: it is left out", flush=True)
            in_tests = sum(seconds for seconds, _ in self._calls[file].values())
            self._seconds[file] = time.monotonic() - start - in_tests
            notes.unlink(missing_ok=True)
        return self._calls[file]

    def _noticing(self, mutant: Mutant, chosen: Mapping[str, Sequence[tuple[int, float, str]]]) -> str | None:
        deadlines, total = {}, self._patience
        for file, tests in chosen.items():
            slowest = max(seconds for _, seconds, _ in tests)  # with the set-up that all of them share
            deadlines.update({test: self._patience + 3 * slowest for *_, test in tests})
            total += 3 * (self._seconds[file] + sum(seconds for _, seconds, _ in tests))
        path, choices, running = self._root / mutant.file, self._root / "choice.json", self._root / "running"
        text, stat = path.read_text(encoding="utf-8"), path.stat()
        path.write_text(mutant.text, encoding="utf-8")
        # Bytecode is known by the second and the length of its source: two changes may have both in common.
        self._second += 1
        os.utime(path, (self._second, self._second))
        choices.write_text(json.dumps(deadlines), encoding="utf-8")
        running.write_text("the import of a test", encoding="utf-8")
        task = {choice.CHOICE: str(choices), choice.RUNNING: str(running)}
        try:
            fails = self._fails(chosen, total, task)
            return running.read_text(encoding="utf-8") if fails else None
        finally:
            path.write_text(text, encoding="utf-8")
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            choices.unlink()
            running.unlink()

    def _fails(self, files: Collection[str], deadline: float, task: Mapping[str, str]) -> bool:
        temporary = self._root / "t"
        temporary.mkdir(exist_ok=True)
        environ = {
            **os.environ,
            **task,
            "PYTHONPATH": f"{self._root}{os.pathsep}{ROOT}",
            # To load all of them takes longer than most files of tests.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "TMPDIR": str(temporary),
        }
        plugins = ["no:cacheprovider", choice.__name__]
        text = "".join((self._root / file).read_text(encoding="utf-8") for file in files)
        plugins += [name for name in PLUGINS if name in text]
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-m", "not soak", *(f"-p{name}" for name in plugins)),
            *([] if choice.CALLS in task else ["-x"]),
            *files,
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
            # 5: all tests of the files are for `make soak`.
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
        root.chmod(0o755)  # tests start programs as other users
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
            test = tree.noticed_by(mutant)
            verdict = f"noticed by {test}" if test else f"SURVIVED ({mutant.what})"
            print(f"{mutant.name} {verdict} after {time.monotonic() - start:.0f} s", flush=True)
            if test is None:
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
