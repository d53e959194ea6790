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
from collections.abc import Iterator, Mapping, Sequence
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
        self._noticed: Counter[str] = Counter()
        self._second = int(time.time())

    def noticed_by(self, mutant: Mutant) -> str | None:
        """The file of a test that passes without the change and fails, or does not end, with it.

        Tests that call the changed function are run before all others, and those that call little else first.
        After the first file of the mutant come those that have noticed most changes before. At last come the
        tests of other rooms that call the function.
        """
        files = [*mutant.tests[:1], *sorted(mutant.tests[1:], key=lambda file: -self._noticed[file])]
        rest = {str(path.relative_to(self._root)) for path in (self._root / TESTS).rglob("test_*.py")}
        others = sorted(rest - {*files}, key=lambda file: (-self._noticed[file], file))
        for is_called, candidates in (
            (True, files),
            (False, files),
            (True, others if mutant.function else ()),
        ):
            for file in candidates:
                tests = [
                    (len(places), seconds, test)
                    for test, (seconds, places) in self._calls_of(file).items()
                    if (mutant.function is None or mutant.function in places) is is_called
                ]
                if tests and self._is_noticed(mutant, file, [test for *_, test in sorted(tests)]):
                    self._noticed[file] += 1
                    return file
        return None

    def _calls_of(self, file: str) -> choice.Calls:
        if file not in self._calls:
            notes = self._root / "notes.json"
            start = time.monotonic()
            self._fails(file, UNCHANGED_SECONDS, {choice.CALLS: str(notes)})
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

    def _is_noticed(self, mutant: Mutant, file: str, tests: Sequence[str]) -> bool:
        seconds = self._seconds[file] + sum(self._calls[file][test][0] for test in tests)
        path, chosen = self._root / mutant.file, self._root / "choice.json"
        text, stat = path.read_text(encoding="utf-8"), path.stat()
        path.write_text(mutant.text, encoding="utf-8")
        # Bytecode is known by the second and the length of its source: two changes may have both in common.
        self._second += 1
        os.utime(path, (self._second, self._second))
        chosen.write_text(json.dumps(tests), encoding="utf-8")
        try:
            return self._fails(file, self._patience + 3 * seconds, {choice.CHOICE: str(chosen)})
        finally:
            path.write_text(text, encoding="utf-8")
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
            chosen.unlink()

    def _fails(self, file: str, deadline: float, task: Mapping[str, str]) -> bool:
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
        plugins += [name for name in PLUGINS if name in (self._root / file).read_text(encoding="utf-8")]
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-m", "not soak", *(f"-p{name}" for name in plugins)),
            *([] if choice.CALLS in task else ["-x"]),
            file,
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
