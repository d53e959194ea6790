"""Imports of the exporter run one way, from what meets a user down to what everything stands on."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from tests.rig.places import ROOT

# A module imports from its own line and from the lines below; rooms on two sides of a bar are strangers.
FLOORS = """
    exporter __main__ startup gunicorn uwsgi servers
    auto
    extension wsgi prefork
    core state parent
    pages log
    routes
    scrape measure
    worker | store
    merge
    observation labels addresses settings parsers forks buckets posix client guard places version
    commands
""".strip().splitlines()
PRODUCT = ("exporter", "prometheus", "grafana", "deploy")
# A drop-in takes what its parent takes.
DROP_IN = "exporter/extension.py FlaskExporter.__init__"
FLOOR = {room: floor for floor, line in enumerate(FLOORS) for room in line.split()}
SIDE = {room: side for line in FLOORS for side in line.split("|") for room in side.split()}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "exporter").rglob("*.py")
}


def imports(path: Path) -> Iterator[str]:
    """The exporter's modules that this one imports, in a function or for the sake of types as well."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            package = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for name in (package + alias.name for alias in node.names):
                yield name if name in MODULES else name.rpartition(".")[0]


def runs_up(module: str, other: str) -> bool:
    """Whether the first may not import the second."""
    above, below = (f"{name}.{name}".split(".")[1] for name in (module, other))
    return FLOOR[above] > FLOOR[below] or (FLOOR[above] == FLOOR[below] and SIDE[above] != SIDE[below])


IMPORTS = {module: sorted(set(imports(path)) & MODULES.keys()) for module, path in MODULES.items()}


def test_no_import_runs_up() -> None:
    """Rooms of one floor may know each other, but worker and store do not, and commands know nobody."""
    offenders = [
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        for other in others
        if runs_up(module, other)
    ]
    assert not offenders, "\n".join(sorted(offenders))


def test_imports_form_no_circle() -> None:
    """Not within a room either."""
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        raise AssertionError(" is imported by ".join(error.args[1])) from None


def test_a_package_is_a_docstring() -> None:
    """Whoever imports a module runs that module only. The exporter's own package has the public names."""
    packages = {path for top in PRODUCT for path in ROOT.glob(f"{top}/**/__init__.py")}
    trees = {str(path): ast.parse(path.read_text()) for path in packages - {ROOT / "exporter/__init__.py"}}

    assert [path for path, tree in trees.items() if not ast.get_docstring(tree) or tree.body[1:]] == []


def parts() -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """The classes and functions of the product with their names; inner functions belong to the outer one."""
    for path in sorted(path for top in PRODUCT for path in (ROOT / top).rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                yield f"{path.relative_to(ROOT)} {node.name}", node
            if isinstance(node, ast.ClassDef):
                for member in node.body:
                    if isinstance(member, ast.FunctionDef):
                        yield f"{path.relative_to(ROOT)} {node.name}.{member.name}", member


def test_a_class_has_one_job() -> None:
    """Large ones have more: 200 lines, 40 for a constructor, ten parameters that are not settings."""
    offenders = []
    for name, node in parts():
        lines = (node.end_lineno or 0) - node.lineno + 1
        if isinstance(node, ast.ClassDef):
            if lines > 200:
                offenders.append(f"{name} has {lines} lines")
        elif len(node.args.posonlyargs + node.args.args) > 10 and name != DROP_IN:
            offenders.append(f"{name} takes {len(node.args.args)} parameters by position")
        elif node.name == "__init__" and lines > 40:
            offenders.append(f"{name} has {lines} lines")

    assert not offenders, "\n".join(offenders)
