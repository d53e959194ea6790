"""The workflow for GitHub Actions runs what `make matrix` does."""

from __future__ import annotations

import ast

import pytest
import yaml

from tests import matrix
from tests.rig.places import ROOT


def test_the_workflow_runs_every_row_with_an_interpreter_for_it() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())["jobs"]
    versions = jobs["python"]["strategy"]["matrix"]["python"]
    pythons = {f"python-{version}": version for version in versions}
    for job in jobs["releases"]["strategy"]["matrix"]["include"]:
        pythons |= dict.fromkeys(job["rows"].split(), job["python"])

    assert pythons.keys() == {row.name for row in matrix.ROWS}
    assert [row.name for row in matrix.ROWS if row.choose([pythons[row.name]]) != pythons[row.name]] == []


@pytest.mark.parametrize(
    ("row", "here", "python"),
    [
        (matrix.Row("any"), ["3.9", "3.10", "3.14"], "3.14"),
        (matrix.Row("old", until="3.13"), ["3.9", "3.10", "3.14"], "3.10"),
        (matrix.Row("old", until="3.13"), ["3.13", "3.14"], "3.13"),
        (matrix.Row("old", until="3.13"), ["3.14"], "3.13"),
        (matrix.Row("one", python="3.10"), ["3.14"], "3.10"),
    ],
)
def test_a_row_has_the_newest_interpreter_that_its_releases_know(
    row: matrix.Row, here: list[str], python: str
) -> None:
    assert row.choose(here) == python


def test_the_tests_of_the_matrix_import_nothing_that_its_environments_lack() -> None:
    """pytest would run none of them."""
    spare = {name.replace("-", "_") for name in matrix.SPARE}
    files = {file for folder in matrix.ALL for file in (ROOT / "tests" / folder).rglob("*.py")}
    in_a_browser = {file for file in files if file.match(matrix.IN_A_BROWSER)}
    imports = {
        (file.name, alias.name if isinstance(node, ast.Import) else node.module)
        for file in files - in_a_browser
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }

    assert in_a_browser
    assert [(file, module) for file, module in imports if str(module).partition(".")[0] in spare] == []
