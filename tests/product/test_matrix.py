"""The workflow for GitHub Actions runs what `make matrix` does."""

from __future__ import annotations

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
    assert [row.name for row in matrix.ROWS if row.python not in ("", pythons[row.name])] == []
