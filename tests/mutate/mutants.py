"""Changed copies of a module: aimed by hand at a truth, or by an operator at any place.

The operators are our own: mutmut and cosmic-ray know no aimed changes, and choose no tests by the place.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from tests.mutate.equal import EQUAL

TESTS = "tests/exporter"
# Rooms and modules whose tests, folders or files, stand with those of their users.
BESIDE = {
    "__main__.py": (f"{TESTS}/servers/test_auto.py",),
    "buckets.py": (f"{TESTS}/scrape", f"{TESTS}/measure"),
    "merge": (f"{TESTS}/store",),
    "store": (f"{TESTS}/servers/test_prefork.py",),
    "measure": (
        *(f"{TESTS}/worker", f"{TESTS}/scrape"),
        *(f"{TESTS}/servers/test_prefork.py", f"{TESTS}/servers/test_downloads.py"),
    ),
    "worker": (f"{TESTS}/servers/test_prefork.py",),
    "pages": (f"{TESTS}/servers/test_gevent.py",),
    "routes": (f"{TESTS}/measure", f"{TESTS}/servers/test_frameworks.py"),
    "startup": (f"{TESTS}/servers/test_auto.py",),
    "core.py": (
        *(f"{TESTS}/log", f"{TESTS}/pages", f"{TESTS}/measure", f"{TESTS}/worker"),
        f"{TESTS}/servers",
    ),
    "extension.py": (
        *(f"{TESTS}/log", f"{TESTS}/pages", f"{TESTS}/measure"),
        f"{TESTS}/servers/test_unprepared.py",
    ),
    "guard.py": (f"{TESTS}/store",),
    "posix.py": (f"{TESTS}/worker",),
    "auto.py": (f"{TESTS}/servers/test_gunicorn.py",),
    "servers.py": (f"{TESTS}/servers/test_auto.py",),
    "gunicorn.py": (f"{TESTS}/servers",),
    "prefork.py": (f"{TESTS}/servers",),
    "uwsgi.py": (f"{TESTS}/servers",),
    "log": (f"{TESTS}/test_platforms.py",),
    "parent.py": ("tests/parent_suite",),
}
OPPOSITES: dict[type[ast.AST], Any] = {
    ast.Eq: ast.NotEq(),
    ast.NotEq: ast.Eq(),
    ast.Lt: ast.LtE(),
    ast.LtE: ast.Lt(),
    ast.Gt: ast.GtE(),
    ast.GtE: ast.Gt(),
    ast.Is: ast.IsNot(),
    ast.IsNot: ast.Is(),
    ast.In: ast.NotIn(),
    ast.NotIn: ast.In(),
    ast.And: ast.Or(),
    ast.Or: ast.And(),
    ast.Add: ast.Sub(),
    ast.Sub: ast.Add(),
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module with one change, and the test files that cover the module, those that notice most first.

    `function`, if the change is in one, is its file and first line.
    """

    name: str
    what: str
    file: str
    text: str
    function: str | None
    tests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Aimed:
    """A change that breaks a truth; `file` is below `exporter/`, and `tests` are below `tests/exporter/`."""

    name: str
    truth: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def mutant(self, root: Path) -> Mutant:
        """The module with this change; raises LookupError unless the old text is there exactly once."""
        file = f"exporter/{self.file}"
        text = (root / file).read_text(encoding="utf-8")
        if text.count(self.before) != 1:
            raise LookupError(f"{self.name}: {file} has its text {text.count(self.before)} times, not once")
        tests = tuple(f"{TESTS}/{test}" for test in self.tests)
        line = text[: text.index(self.before)].count("\n") + 1
        function = function_of(file, text, line)
        return Mutant(self.name, self.truth, file, text.replace(self.before, self.after), function, tests)


def sample(root: Path, number: int, seed: int) -> list[Mutant]:
    """So many changes by operator, each place of the package as likely as any other but for equal ones."""
    places = []
    for path in sorted((root / "exporter").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        equal = EQUAL.get(str(path.relative_to(root / "exporter")), {})
        places += [
            (path, source, change) for change in changes(source) if (change.code, change.what) not in equal
        ]
    chosen = random.Random(seed).sample(places, min(number, len(places)))
    mutants = []
    for path, source, change in chosen:
        file = str(path.relative_to(root))
        name = f"{file}:{change.line}"
        function = function_of(file, source, change.line)
        mutants.append(
            Mutant(name, change.what, file, change.applied(source), function, tests_of(root, path))
        )
    return mutants


def function_of(file: str, source: str, line: int) -> str | None:
    """The file and the first line, decorators included, of the innermost function around a line."""
    starts = [
        min(part.lineno for part in (node, *node.decorator_list))
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.lineno <= line <= (node.end_lineno or 0)
    ]
    return f"{file}:{max(starts)}" if starts else None


def tests_of(root: Path, path: Path) -> tuple[str, ...]:
    """The test files of the module's name, those of its folder, or the next one above, and others."""
    module = path.relative_to(root / "exporter")
    room = next(folder for parent in module.parents if (folder := root / TESTS / parent).is_dir())
    files = {*room.glob("test_*.py"), *(root / TESTS).rglob(f"test_{path.stem}.py")}
    for other in BESIDE.get(module.parts[0], ()):
        files.update([root / other] if other.endswith(".py") else (root / other).glob("test_*.py"))
    order = sorted(
        files, key=lambda file: (file.stem != f"test_{path.stem}", file.parent != room, file.stat().st_size)
    )
    return tuple(str(file.relative_to(root)) for file in order)


@dataclass(frozen=True, slots=True)
class Change:
    """Another text in the place of some bytes of a source."""

    line: int
    code: str
    """The line without the spaces around it."""
    what: str
    start: int
    end: int
    text: str

    def applied(self, source: str) -> str:
        """The changed source."""
        data = source.encode()
        return (data[: self.start] + self.text.encode() + data[self.end :]).decode()


def changes(source: str) -> Iterator[Change]:
    """Yield each change of a source."""
    lines = source.encode().splitlines(keepends=True)
    starts = [0, *accumulate(map(len, lines))]
    for node in _nodes(ast.parse(source)):
        for text in replacements(node):
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
            code = lines[node.lineno - 1].decode().strip()
            yield Change(node.lineno, code, f"{ast.unparse(node)} → {text}", start, end, text)


def replacements(node: ast.AST) -> Iterator[str]:
    """Yield what may stand in the place of a node."""
    match node:
        case ast.expr():
            # In brackets: it may be a part of another expression.
            yield from (f"({ast.unparse(other)})" for other in _expressions(node))
        case ast.Return(ast.expr() as value) if not isinstance(value, ast.Constant) or value.value:
            yield "return None"
        case ast.AugAssign(target, ast.Add() | ast.Sub() as operator, value):
            yield ast.unparse(ast.AugAssign(target, OPPOSITES[type(operator)], value))
            yield "pass"
        case (
            ast.Expr(ast.Call() | ast.Await())
            | ast.Assign([ast.Attribute() | ast.Subscript()])
            | ast.Raise()
            | ast.Delete()
            | ast.AugAssign()
        ):
            yield "pass"


def _expressions(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Compare(left, [operator], others):
            yield ast.Compare(left, [OPPOSITES[type(operator)]], others)
        case ast.BoolOp(operator, values):
            yield ast.BoolOp(OPPOSITES[type(operator)], values)
        case ast.UnaryOp(ast.Not(), operand):
            yield operand
        case ast.BinOp(left, ast.Add() | ast.Sub() as operator, right):
            yield ast.BinOp(left, OPPOSITES[type(operator)], right)
        case ast.Constant(bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(int(value) | float(value)):
            yield ast.Constant(value + 1)


def _nodes(node: ast.AST) -> Iterator[ast.expr | ast.stmt]:
    """What runs: no annotations, no imports for types, and no f-strings, whose parts have no places.

    That a dataclass is frozen, or a `zip` strict, is a declaration, too: only an error of ours would show it.
    The number of a private name, a size or a patience, is a choice; what the code does with it is changed.
    """
    for field, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or field in ("annotation", "returns"):
                continue
            if field == "decorator_list" and ast.unparse(child).startswith("dataclass("):
                continue
            if isinstance(child, ast.JoinedStr) or _is_choice(child):
                continue
            if isinstance(child, ast.keyword) and child.arg == "strict":
                continue
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.expr | ast.stmt):
                yield child
            yield from _nodes(child)


def _is_choice(node: ast.AST) -> bool:
    match node:
        case ast.Assign([ast.Name(name)], value) if name.startswith("_") and name.isupper():
            return all(isinstance(part, ast.Constant | ast.BinOp | ast.operator) for part in ast.walk(value))
    return False
