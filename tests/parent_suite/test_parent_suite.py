"""The public test suite of prometheus_flask_exporter, as it distributes it, on its class and on ours."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.rig.network import free_ports
from tests.rig.places import ROOT

CACHE = ROOT / ".tools" / "cache"
PARENT = "prometheus-flask-exporter"
PORTS = ("32001", "32002", "32003")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The suite's modules with our `unittest_helper` beside them, which the distribution lacks."""
    directory = tmp_path_factory.mktemp("parent_suite")
    with tarfile.open(source_distribution()) as archive:
        for member in archive.getmembers():
            if re.fullmatch(r"[^/]+/tests/test_\w+\.py", member.name):
                content = archive.extractfile(member)
                assert content is not None
                (directory / Path(member.name).name).write_bytes(content.read())
    shutil.copy(ROOT / "tests" / "parent_suite" / "unittest_helper.py", directory)
    servers = directory / "test_endpoint.py"
    text = servers.read_text()
    for fixed, free in zip(PORTS, free_ports(len(PORTS)), strict=True):
        assert fixed in text
        text = text.replace(fixed, str(free))
    # Without a host the parent listens on every address.
    text = re.sub(r"(start_http_server\(\d+)(?!.*host=)", r"\1, host='127.0.0.1'", text)
    servers.write_text(text.replace("http://localhost:", "http://127.0.0.1:"))
    return directory


def source_distribution() -> Path:
    """The source distribution of the version that is installed, downloaded once."""
    name = f"{PARENT.replace('-', '_')}-{version(PARENT)}.tar.gz"
    if not (CACHE / name).exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        download += ["--no-deps", "--no-binary", ":all:", f"{PARENT}=={version(PARENT)}"]
        download += ["--dest", str(CACHE)]
        done = subprocess.run(download, capture_output=True, text=True)
        if done.returncode:
            reason = f"no source distribution of {PARENT}: {done.stderr}"
            (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    return CACHE / name


def outcomes(suite: Path, which: str) -> dict[str, set[str]]:
    """The names of the tests that passed, failed and were skipped with the parent's class or ours."""
    report = suite / f"{which}.xml"
    # Loaded as a plugin, so that the class under test is in place when the suite's modules import it.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "unittest_helper", "-p", "no:cacheprovider"]
    command += [f"--junit-xml={report}", "."]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EXPORTER_")}
    inherited.pop("PROMETHEUS_MULTIPROC_DIR", None)
    done = subprocess.run(
        command,
        cwd=suite,
        env={**inherited, "PARENT_SUITE_CLASS": which, "PYTHONPATH": f"{suite}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert report.exists(), done.stdout + done.stderr
    found: dict[str, set[str]] = {"passed": set(), "failed": set(), "skipped": set()}
    for case in ElementTree.parse(report).iter("testcase"):
        states = {child.tag for child in case}
        state = "skipped" if "skipped" in states else "failed" if states & {"failure", "error"} else "passed"
        found[state].add(f"{case.get('classname')}.{case.get('name')}")
    return found


# It expects version 1.0.0 of the text format without asking for it; prometheus_client answers with 0.0.4.
FORMAT = "test_metrics.MetricsTest.test_default_format"
# prometheus_client takes any label name by now, so on the parent requests are grouped by `<lambda>`.
LAMBDA = "test_group_by.GroupByTest.test_group_by_lambda_is_not_supported"


@pytest.mark.parametrize(
    ("which", "passed", "failed"),
    [("ours", 75, {FORMAT}), pytest.param("parent", 74, {FORMAT, LAMBDA}, marks=pytest.mark.soak)],
)
def test_whatever_passes_on_the_parent_passes_on_ours(
    suite: Path, which: str, passed: int, failed: set[str]
) -> None:
    """Of 79 tests; three are for Flask before 2.2."""
    found = outcomes(suite, which)

    assert found["failed"] == failed
    assert [len(found[state]) for state in ("passed", "skipped")] == [passed, 3]
