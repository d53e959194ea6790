"""Fingerprints: one bug is one group wherever it is deployed, and two bugs are two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from exporter.measure.fingerprints import Fingerprints
from exporter.places import Places
from exporter.worker import errorslots
from exporter.worker.errorgroups import ErrorGroups
from tests.matrix import interpreters
from tests.rig import bugs
from tests.rig.exchanges import exchange
from tests.rig.memory import resident
from tests.rig.places import ROOT

DEPLOYS = (("srv/shop", 0), ("srv/shop-2", 0), ("opt/releases/20261128", 6), ("home/deploy/current", 14))


def groups_of_deploys(directory: Path, interpreter: str = sys.executable) -> dict[str, set[str]]:
    """The groups of each bug, over all deploys."""
    groups: dict[str, set[str]] = {}
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(deploy: Path) -> subprocess.CompletedProcess[str]:
        command = [interpreter, "-W", "ignore", bugs.__file__, str(deploy)]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)

    deploys = [bugs.deploy(directory / path, lines) for path, lines in DEPLOYS]
    with ThreadPoolExecutor(len(deploys)) as pool:
        for done in pool.map(run, deploys):
            assert done.returncode == 0, done.stdout + done.stderr
            for name, found in json.loads(done.stdout.splitlines()[-1]).items():
                groups.setdefault(name, set()).update(found)
    return groups


def assert_one_group_for_each_bug(groups: dict[str, set[str]], python: tuple[int, ...]) -> None:
    """Python 3.10 lacks two kinds of bugs: it has no groups of exceptions."""
    bug_of: dict[str, list[str]] = {}
    for name, found in groups.items():
        for group in found:
            bug_of.setdefault(group, []).append(name)

    assert len(groups) == 20 * 3 - 2 * 3 * (python < (3, 11))
    assert {name: len(found) for name, found in groups.items()} == dict.fromkeys(groups, 1)
    assert [names for names in bug_of.values() if len(names) > 1] == []


def test_sixty_bugs_are_sixty_groups_over_four_deploys(tmp_path: Path) -> None:
    assert_one_group_for_each_bug(groups_of_deploys(tmp_path), sys.version_info[:2])


@pytest.mark.soak
@pytest.mark.parametrize("version", [(3, 10), (3, 11), (3, 12), (3, 13), (3, 14)])
def test_other_pythons_have_the_same_groups(version: tuple[int, int], tmp_path: Path) -> None:
    """From 3.11 on; 3.10 has others, because there functions have no qualified names."""
    interpreter = interpreters().get(".".join(map(str, version)))
    if interpreter is None:
        pytest.skip("there is no such Python here")
    # Its own environment has the packages of this one: their compiled parts are left aside.
    home = tmp_path / "environment"
    subprocess.run([interpreter, "-m", "venv", "--without-pip", home], check=True)
    (packages,) = home.glob("lib/python*/site-packages")
    packages.rmdir()
    packages.symlink_to(sysconfig.get_path("purelib"))

    groups = groups_of_deploys(tmp_path, str(home / "bin/python"))
    assert_one_group_for_each_bug(groups, version)
    if version >= (3, 11) and sys.version_info >= (3, 11):
        assert groups == groups_of_deploys(tmp_path / "here")


@pytest.mark.parametrize(
    ("errors", "kinds"), [(20_000, 200), pytest.param(1_000_000, 10_000, marks=pytest.mark.soak)]
)
def test_errors_without_end_stay_within_the_files_and_the_cap(
    errors: int, kinds: int, tmp_path: Path
) -> None:
    """Of four workers; none is lost, and memory does not grow with them."""
    workers = [ErrorGroups(str(tmp_path)) for _ in range(4)]
    fingerprints = [Fingerprints(Places(), groups) for groups in workers]
    fail = [_failing(number) for number in range(kinds)]
    size = 0
    for number in range(errors):
        try:
            fail[number % kinds](number)
        except ZeroDivisionError as error:
            request = exchange(recorded=True)
            fingerprints[number % 4].note(request, error)
        assert request.fingerprint is not None
        workers[number % 4].count(request, request.fingerprint)
        if number == errors // 2:
            size = resident()

    groups = workers[0].read()
    assert sum(group.count for group in groups) == errors
    assert len(groups) == 64
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {errorslots.SIZE}
    assert len(list(tmp_path.iterdir())) == 4
    assert resident() - size < 8 << 20


def _failing(number: int) -> Callable[[int], object]:
    space: dict[str, Any] = {"__name__": "shop"}
    exec(compile(f"def view{number}(value): return value / 0", "/srv/shop/views.py", "exec"), space)
    function: Callable[[int], object] = space[f"view{number}"]
    return function
